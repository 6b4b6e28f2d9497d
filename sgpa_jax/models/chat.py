"""Chat formats: how each family lays turns of text and audio out, read together with a checkpoint's tokenizer.

Upstream: the processors and chat templates of Qwen2-Audio and Audio Flamingo 3 (transformers 5.23), the chat state of
liquid-audio (1.3.0), mistral-common's instruct tokenizer for Voxtral.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sgpa_jax.errors import CheckpointError, UsageError, unknown_name
from sgpa_jax.models.chat_layout import ChatFormat, Piece
from sgpa_jax.models.messages import Turn
from sgpa_jax.models.speech import Speech
from sgpa_jax.models.tekken import read_tekken

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TURN_BEGIN, TURN_END = "<|im_start|>", "<|im_end|>"


class ChatML(ChatFormat):
    """Turns between `<|im_start|>role` and `<|im_end|>`."""

    turn_end = TURN_END
    start: ClassVar[str] = ""

    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """Yield what stands at the start, each turn's header, parts and end, and the assistant's header."""
        if self.start:
            yield Piece(-1, self.start)
        for number, turn in enumerate(turns):
            yield Piece(number, f"{TURN_BEGIN}{turn.role}\n")
            for part in turn.parts:
                if isinstance(part, str):
                    yield Piece(number, part, is_content=turn.given)
                elif isinstance(part, Speech):
                    yield Piece(number, speech=part)
                else:
                    yield from self.audio(number, part)
            yield Piece(number, f"{TURN_END}\n")
        yield Piece(len(turns), f"{TURN_BEGIN}assistant\n")

    def audio(self, turn: int, clip: int) -> Iterator[Piece]:
        """Yield a clip and what stands around it."""
        yield Piece(turn, clip=clip)


class Qwen2AudioChat(ChatML):
    """ChatML with a default system turn; the k-th clip stands behind `Audio k:`, between two markers, in a line."""

    markers = (TURN_BEGIN, TURN_END, "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    placeholder = "<|AUDIO|>"
    default_system = "You are a helpful assistant."
    transcription = (None, "What does the person say?")

    def audio(self, turn: int, clip: int) -> Iterator[Piece]:
        """Yield a clip with its number and its brackets."""
        yield Piece(turn, f"Audio {clip + 1}: <|audio_bos|>")
        yield Piece(turn, clip=clip)
        yield Piece(turn, "<|audio_eos|>\n")


class LFM2AudioChat(ChatML):
    """ChatML behind a start mark, each piece tokenised alone; nothing stands around or in place of audio.

    What the assistant spoke before goes back in as it came out: text ids and frames of codes in their order.

    Attributes:
        audio_start_id: with it the model turns from text to audio codes.
        text_end_id: with it the model ends the text of an answer that interleaves text and audio.
    """

    markers = ("<|startoftext|>", TURN_BEGIN, TURN_END, "<|audio_start|>", "<|text_end|>")
    start = "<|startoftext|>"
    transcription = ("Perform ASR.", "")
    apart = True

    def __init__(self, tokenizer: "Tokenizer", folder: Path):
        super().__init__(tokenizer, folder)
        self.audio_start_id = self.id_of("<|audio_start|>")
        self.text_end_id = self.id_of("<|text_end|>")


class AudioFlamingo3Chat(ChatML):
    """ChatML with a default system turn; a turn's one clip stands before all of its text."""

    markers = (TURN_BEGIN, TURN_END, "<sound>")
    placeholder = "<sound>"
    default_system = "You are a helpful assistant."
    transcription = (None, "Transcribe the input speech.")

    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """Yield the pieces of turns whose clip was brought to the front."""
        for turn in turns:
            if sum(isinstance(part, int) for part in turn.parts) > 1:
                raise UsageError("a turn holds several clips, but Audio Flamingo 3 takes one a turn; spread them out")
        clip_first = [sorted(turn.parts, key=lambda part: isinstance(part, str)) for turn in turns]
        return super().pieces(
            [turn._replace(parts=tuple(parts)) for turn, parts in zip(turns, clip_first, strict=True)]
        )


class VoxtralChat(ChatFormat):
    """Turns of the user between `[INST]` and `[/INST]`, which opens the assistant's; each piece tokenised alone."""

    markers = ("<s>", "</s>", "[INST]", "[/INST]", "[BEGIN_AUDIO]", "[AUDIO]")
    turn_end = "</s>"
    placeholder = "[AUDIO]"
    transcription = (None, "Transcribe this recording word for word, and say nothing else.")
    apart = True

    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """Yield the start, and turns that must alternate; texts that follow one another are two lines apart."""
        roles = tuple(turn.role for turn in turns)
        if len(roles) % 2 == 0 or roles != ("user", "assistant") * (len(roles) // 2) + ("user",):
            raise UsageError(
                f"the turns are those of {', '.join(roles)}, but Voxtral takes turns of user and assistant in "
                "alternation, the first and the last the user's; write what the system says into the user's text"
            )
        yield Piece(-1, "<s>")
        for number, turn in enumerate(turns):
            if turn.role == "user":
                yield Piece(number, "[INST]")
            for is_text, parts in itertools.groupby(turn.parts, key=lambda part: isinstance(part, str)):
                if is_text:
                    text = "\n\n".join(map(str, parts))
                    yield Piece(number, text if turn.role == "user" else text.rstrip(" "), is_content=True)
                else:
                    for clip in parts:
                        assert isinstance(clip, int)
                        yield Piece(number, "[BEGIN_AUDIO]")
                        yield Piece(number, clip=clip)
            yield Piece(number + 1, "[/INST]") if turn.role == "user" else Piece(number, "</s>")


_FORMATS: dict[str, type[ChatFormat]] = {
    "qwen2_audio": Qwen2AudioChat,
    "lfm2_audio": LFM2AudioChat,
    "audioflamingo3": AudioFlamingo3Chat,
    "voxtral": VoxtralChat,
}
TOKENIZER_FILES = ("tokenizer.json", "tekken.json")


def chat_format(family: str, folder: Path) -> ChatFormat:
    """Read a checkpoint's tokenizer, `tokenizer.json` or else `tekken.json`, for the chat format of its family.

    Raises:
        CheckpointError: the tokenizer is missing or damaged, lacks a marker, or does not fit the other files.
        UsageError: a family without a chat format.
    """
    if family not in _FORMATS:
        raise unknown_name("chat format", family, _FORMATS)
    if (folder / "tokenizer.json").is_file():
        tokenizer = _read_tokenizer(folder / "tokenizer.json")
    elif (folder / "tekken.json").is_file():
        tokenizer = read_tekken(folder / "tekken.json")
    else:
        raise CheckpointError(f"{folder} holds no {' or '.join(TOKENIZER_FILES)}; give a complete checkpoint folder")
    return _FORMATS[family](tokenizer, folder)


def _read_tokenizer(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every parse error
        raise CheckpointError(f"{path} is not a readable tokenizer ({error}); fetch it again") from error
    tokenizer.no_truncation()  # a saved tokenizer may carry the lengths that it was trained with
    tokenizer.no_padding()
    return tokenizer
