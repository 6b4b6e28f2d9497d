"""Chat formats: turns of text and audio as token ids, and which clip, turn and text every position belongs to.

Upstream: the processors and chat templates of Qwen2-Audio and Audio Flamingo 3 (transformers 5.23), the chat state of
liquid-audio (1.3.0), mistral-common's instruct tokenizer for Voxtral. A format lays turns out as pieces of text and
audio, the checkpoint's tokenizer turns them into ids. Special ids are looked up by name and must exist, they are never
assumed.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import sgpa_checkpoints

from sgpa_jax.errors import CheckpointError, UsageError, unknown_name
from sgpa_jax.models.tekken import read_tekken

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Messages = Sequence[Mapping[str, Any]]
ROLES = ("system", "user", "assistant")
TURN_BEGIN, TURN_END = "<|im_start|>", "<|im_end|>"


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
    """

    ids_t: np.ndarray
    clip_t: np.ndarray
    place_t: np.ndarray
    turn_t: np.ndarray
    is_content_t: np.ndarray
    roles: tuple[str, ...]


class Turn(NamedTuple):
    """A role and its parts: texts, and clips as their index in the conversation."""

    role: str
    parts: tuple[str | int, ...]
    given: bool = True  # by the user, not by the format


class Piece(NamedTuple):
    """A stretch of a prompt: text, or the audio of a clip."""

    turn: int
    text: str = ""
    clip: int = -1
    is_content: bool = False


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
                `{"type": "text", "text": ...}` and `{"type": "audio", "audio": ...}`.
            n_audio: how many positions each clip takes, in the order of `clips_of(messages)`.

        Raises:
            UsageError: the messages are malformed, or a text contains one of the format's own markers.
        """
        turns = _turns(messages)
        if self.default_system is not None and turns[0].role != "system":
            turns = (Turn("system", (self.default_system,), given=False), *turns)
        for turn in turns:
            if turn.given:  # its parts joined, because they may be tokenised as one text
                self._refuse_markers("".join(part for part in turn.parts if isinstance(part, str)))
        pieces = list(self.pieces(turns))
        runs = [[piece] for piece in pieces] if self.apart else [pieces]
        tokens = [token for run in runs for token in self._tokens(run, n_audio)]
        ids, clips, of, content = (np.asarray(column, np.int32) for column in zip(*tokens, strict=True))
        places = np.zeros_like(ids)
        for clip, n in enumerate(n_audio):
            places[clips == clip] = np.arange(n)
        return Prompt(ids, clips, places, of, content.astype(bool), (*(turn.role for turn in turns), "assistant"))

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

    def _tokens(self, run: list[Piece], n_audio: Sequence[int]) -> Iterator[tuple[int, int, int, bool]]:
        """Tokenise pieces together and yield (id, clip, turn, is content), by the piece in which a token begins."""
        if self.placeholder is None and run[0].clip >= 0:
            yield from [(0, run[0].clip, run[0].turn, False)] * n_audio[run[0].clip]
            return
        texts = [piece.text if piece.clip < 0 else (self.placeholder or "") * n_audio[piece.clip] for piece in run]
        owners = [piece for piece, text in zip(run, texts, strict=True) for _ in text]
        encoding = self._encode("".join(texts))
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            piece = owners[min(start, len(owners) - 1)]
            yield token, piece.clip, piece.turn, piece.is_content and all(o.is_content for o in owners[start:end])

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
                        yield Piece(number, "[BEGIN_AUDIO]")
                        yield Piece(number, clip=int(clip))
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


def clips_of(messages: Messages) -> tuple[Any, ...]:
    """Return what the audio parts of the messages hold, in order.

    Raises:
        UsageError: the messages are malformed.
    """
    return tuple(part["audio"] for message in messages for part in _parts(message) if part["type"] == "audio")


def _turns(messages: Messages) -> tuple[Turn, ...]:
    """Return the turns with their clips numbered through."""
    if not messages:
        raise UsageError("the conversation has no turns; give at least one turn of the user")
    turns, n_clips = [], 0
    for message in messages:
        parts: list[str | int] = []
        for part in _parts(message):
            if part["type"] == "text":
                parts.append(part["text"])
            else:
                parts.append(n_clips)
                n_clips += 1
        turns.append(Turn(message["role"], tuple(parts)))
    return tuple(turns)


def _parts(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Check a turn and return its parts."""
    if not isinstance(message, Mapping):
        raise UsageError(f"a turn is {message!r}, but {{'role': ..., 'content': ...}} was expected")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UsageError(f"a turn has the role {role!r}, but one of {', '.join(ROLES)} was expected")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise UsageError(f"the content of a {role} turn is {content!r}, but text or a list of parts was expected")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "audio") or kind not in part or (kind == "text" and not isinstance(part["text"], str)):
            raise UsageError(
                f"a part of a {role} turn is {part!r}, but {{'type': 'text', 'text': ...}} or "
                "{'type': 'audio', 'audio': ...} was expected"
            )
    return content


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
