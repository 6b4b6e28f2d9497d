"""Prompts of Qwen2-Audio: turns of text and audio as token ids, read through `tokenizer.json`.

The format is ChatML as in the checkpoint's own processor: a default system turn, `Audio k:` before every clip, one
placeholder a pooled audio position. Special ids are looked up by name and must exist, they are never assumed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sgpa_jax.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_SYSTEM = "You are a helpful assistant."
AUDIO, AUDIO_BEGIN, AUDIO_END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
TURN_BEGIN, TURN_END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer together with the turn markers of its model."""

    tokenizer: "Tokenizer"
    audio_id: int
    end_id: int
    unknown_id: int | None

    @classmethod
    def from_folder(cls, folder: Path) -> "ChatFormat":
        """Read `tokenizer.json`.

        Raises:
            CheckpointError: the file is missing or damaged, or lacks one of the markers.
        """
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{folder} holds no tokenizer.json; give a complete checkpoint folder")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every parse error
            raise CheckpointError(f"{path} is not a readable tokenizer ({error}); fetch it again") from error
        vocabulary = tokenizer.get_vocab()
        markers = (AUDIO, AUDIO_BEGIN, AUDIO_END, TURN_BEGIN, TURN_END)
        missing = [marker for marker in markers if marker not in vocabulary]
        if missing:
            raise CheckpointError(f"{path} lacks the tokens {', '.join(missing)} of the Qwen2-Audio chat format")
        return cls(tokenizer, vocabulary[AUDIO], vocabulary[TURN_END], vocabulary.get("<unk>"))

    def prompt_ids(self, question: str, *, system: str | None, n_audio: int) -> list[int]:
        """Token ids of a system turn, a user turn of one clip and a question, and the opened assistant turn.

        Raises:
            UsageError: the texts contain one of the format's own markers.
        """
        system = DEFAULT_SYSTEM if system is None else system
        for text in (question, system):
            self._refuse_markers(text)
        text = (
            f"{TURN_BEGIN}system\n{system}{TURN_END}\n"
            f"{TURN_BEGIN}user\nAudio 1: {AUDIO_BEGIN}{AUDIO * n_audio}{AUDIO_END}\n{question}{TURN_END}\n"
            f"{TURN_BEGIN}assistant\n"
        )
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def response_ids(self, response: str) -> list[int]:
        """Token ids of a response's text, without an end mark.

        Raises:
            UsageError: it is empty, contains a marker, or has words that the tokenizer cannot spell.
        """
        self._refuse_markers(response)
        ids = self.tokenizer.encode(response, add_special_tokens=False).ids
        if not ids or self.unknown_id in ids:
            raise UsageError(f"the response {response!r} is not made of words that the model can say; give another one")
        return ids

    def knows(self, text: str) -> bool:
        """Whether the tokenizer spells the whole text without its unknown token."""
        return self.unknown_id not in self.tokenizer.encode(text, add_special_tokens=False).ids

    def text(self, ids: list[int]) -> str:
        """Text of token ids, markers left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _refuse_markers(self, text: str) -> None:
        for token in self.tokenizer.get_added_tokens_decoder().values():
            if token.content in text:
                raise UsageError(f"the text {text!r} contains the model's own marker {token.content}; leave it out")
