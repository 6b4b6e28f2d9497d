"""How a chat format makes positions of a conversation: pieces of text and audio, and whose every token is.

Each format of `chat.py` says in which pieces its turns are laid out; the checkpoint's tokenizer turns these into ids.
Special ids are looked up by name and must exist, they are never assumed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import sgpa_checkpoints

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.models.messages import Messages, Turn, turns_of
from sgpa_jax.models.speech import Speech

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


@dataclass(frozen=True, eq=False)
class Prompt:
    """A conversation up to the opened turn of the assistant, position by position.

    Attributes:
        ids_t: token ids (int32[T], as the next three); at audio positions the placeholder's, or 0 where there is none.
        clip_t: index of the clip whose audio stands here, -1 for text.
        place_t: how many positions of the same clip stand before this one, 0 for text.
        turn_t: index into `roles`, -1 for what stands before the first turn.
        is_content_t: bool[T], whether the token is text of the messages, not audio and not the format's own text.
        roles: role of each turn, a default system turn and the opened turn included.
        codes_tk: int32[T, K], codes of the frames that the assistant spoke, -1 for other tokens; None without any.
    """

    ids_t: np.ndarray
    clip_t: np.ndarray
    place_t: np.ndarray
    turn_t: np.ndarray
    is_content_t: np.ndarray
    roles: tuple[str, ...]
    codes_tk: np.ndarray | None = None


class Piece(NamedTuple):
    """A stretch of a prompt: text, the audio of a clip, or what the assistant spoke, token by token."""

    turn: int
    text: str = ""
    clip: int = -1
    is_content: bool = False
    speech: Speech | None = None


class _Token(NamedTuple):
    id: int
    clip: int
    turn: int
    is_content: bool
    codes: tuple[int, ...] = ()


class ChatFormat(ABC):
    """A tokenizer together with the markers and the layout of its model's conversations.

    Attributes:
        tokenizer: the checkpoint's tokenizer.
        audio_id: id of the placeholder at audio positions, None where the format has none.
        transcription: what asks the model to write down what is said in a clip: a system turn if it takes one (None:
            the format's own), and the text beside the clip; from the model's card.
        end_ids: ids that end an answer: those of `generation_config.json` if it names any, else the end of a turn.
    """

    markers: ClassVar[tuple[str, ...]]
    turn_end: ClassVar[str]
    placeholder: ClassVar[str | None] = None
    default_system: ClassVar[str | None] = None
    transcription: ClassVar[tuple[str | None, str]]
    apart: ClassVar[bool] = False  # whether each piece is tokenised alone, so that no token spans two of them

    def __init__(self, tokenizer: "Tokenizer", folder: Path):
        """Look up the markers, and compare them with `config.json` and `generation_config.json` of the folder.

        Raises:
            CheckpointError: a marker is missing, or the files do not agree.
        """
        self.tokenizer = tokenizer
        missing = [marker for marker in self.markers if not self._is_one_token(marker)]
        if missing:
            raise CheckpointError(
                f"the tokenizer of {folder} lacks the tokens {', '.join(missing)} of the model's chat format; fetch "
                "the one of this checkpoint"
            )
        added = tokenizer.get_added_tokens_decoder()
        self._reserved = sorted({*self.markers, *(token.content for token in added.values() if token.special)})
        self._marker_ids = {self.id_of(marker) for marker in self._reserved}
        self._unknown_id = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "<unk>")
        self.audio_id = None if self.placeholder is None else self.id_of(self.placeholder)
        said = _audio_id(folder)
        if said is not None and self.audio_id is not None and said != self.audio_id:
            raise CheckpointError(
                f"{folder}: audio is token {said} in config.json, but {self.audio_id} in the tokenizer; "
                "fetch both files of one version"
            )
        self.end_ids = _end_ids(folder) or (self.id_of(self.turn_end),)
        strangers = [token for token in self.end_ids if token not in added]
        if strangers:
            raise CheckpointError(
                f"{folder}: answers end with the tokens {strangers} in generation_config.json, but the tokenizer has "
                "no markers of these numbers; fetch both files of one version"
            )

    @abstractmethod
    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """Yield the pieces of turns, of the opened turn of the assistant, and of what stands before and between."""

    def layout(self, messages: Messages, n_audio: Sequence[int]) -> Prompt:
        """Lay out a conversation and open the turn of the assistant; turns of the assistant in it are history.

        Args:
            messages: turns `{"role": "system" | "user" | "assistant", "content": text or parts}` with the parts
                `{"type": "text", "text": ...}`, `{"type": "audio", "audio": ...}` and, in the assistant's,
                `{"type": "speech", "speech": Speech}`.
            n_audio: how many positions each clip takes, in the order of `clips_of(messages)`.

        Raises:
            UsageError: the messages are malformed, or a text contains one of the format's own markers.
        """
        turns = turns_of(messages)
        if self.default_system is not None and turns[0].role != "system":
            turns = (Turn("system", (self.default_system,), given=False), *turns)
        for turn in turns:
            if turn.given:  # its parts joined, because they may be tokenised as one text
                self._refuse_markers("".join(part for part in turn.parts if isinstance(part, str)))
        pieces = list(self.pieces(turns))
        runs = [[piece] for piece in pieces] if self.apart else [pieces]
        tokens = [token for run in runs for token in self._tokens(run, n_audio)]
        *columns, codes = zip(*tokens, strict=True)
        ids, clips, of, content = (np.asarray(column, np.int32) for column in columns)
        places = np.zeros_like(ids)
        for clip, n in enumerate(n_audio):
            places[clips == clip] = np.arange(n)
        n_codes = max(map(len, codes))
        codes_tk = np.array([frame or (-1,) * n_codes for frame in codes], np.int32) if n_codes else None
        roles = (*(turn.role for turn in turns), "assistant")
        return Prompt(ids, clips, places, of, content.astype(bool), roles, codes_tk)

    def response_ids(self, response: str) -> list[int]:
        """Token ids of a response's text, without an end mark.

        Raises:
            UsageError: it is empty, contains a marker, or has words that the tokenizer cannot spell.
        """
        self._refuse_markers(response)
        ids = self._encode(response).ids
        if not ids or self._unknown_id in ids:
            raise UsageError(f"the response {response!r} is not made of words that the model can say; give another one")
        return ids

    def knows(self, text: str) -> bool:
        """Whether the tokenizer spells the whole text without its unknown token."""
        return self._unknown_id not in self._encode(text).ids

    def text(self, ids: Sequence[int]) -> str:
        """Text of token ids, markers left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def id_of(self, marker: str) -> int:
        """Id of one of the format's markers."""
        return self._encode(marker).ids[0]

    def _tokens(self, run: list[Piece], n_audio: Sequence[int]) -> Iterator[_Token]:
        """Tokenise pieces together, every token by the piece in which it begins."""
        first = run[0]
        if first.speech is not None:
            for token, codes in zip(first.speech.ids, first.speech.codes, strict=True):
                yield _Token(token, -1, first.turn, not codes and token not in self._marker_ids, codes)
            return
        if self.placeholder is None and first.clip >= 0:
            yield from [_Token(0, first.clip, first.turn, False)] * n_audio[first.clip]
            return
        texts = [piece.text if piece.clip < 0 else (self.placeholder or "") * n_audio[piece.clip] for piece in run]
        owners = [piece for piece, text in zip(run, texts, strict=True) for _ in text]
        encoding = self._encode("".join(texts))
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            piece = owners[min(start, len(owners) - 1)]
            is_content = piece.is_content and all(owner.is_content for owner in owners[start:end])
            yield _Token(token, piece.clip, piece.turn, is_content)

    def _is_one_token(self, marker: str) -> bool:
        token = self.tokenizer.token_to_id(marker)
        return token is not None and self._encode(marker).ids == [token]

    def _encode(self, text: str) -> "Encoding":
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except TypeError as error:  # halves of characters, from bytes that were no text
            raise UsageError(f"the text {text!r} is no valid Unicode; give it in UTF-8") from error

    def _refuse_markers(self, text: str) -> None:
        for marker in self._reserved:
            if marker in text:
                raise UsageError(f"the text {text!r} contains the model's own marker {marker}; leave it out")


def _end_ids(folder: Path) -> tuple[int, ...]:
    """Ids that `generation_config.json` names as ends; none where the file is missing or silent."""
    ids = _json(folder / "generation_config.json").get("eos_token_id")
    return tuple(ids) if isinstance(ids, list) else () if ids is None else (ids,)


def _audio_id(folder: Path) -> int | None:
    """Id of the placeholder by `config.json`, under the name of either age; None where it says nothing."""
    config = _json(folder / "config.json")
    return config.get("audio_token_index", config.get("audio_token_id"))


def _json(path: Path) -> dict[str, Any]:
    try:
        return sgpa_checkpoints.read_json(path) if path.is_file() else {}
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error
