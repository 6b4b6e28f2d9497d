"""The game that the code of SGPA's authors plays (mllm-shap 0.1.12: `connectors/base/chat.py`, `shap/similarity.py`).

A coalition is heard as the samples of its words, cut at the recording's own rate, joined, quantised to 16 bits and only
then resampled; a word that runs into the next one is heard in full, so that samples may come twice. Two coalitions are
not rendered: with nobody there, the turn holds no recording, and without text there is no turn; everybody is the
recording untouched, pauses and all. Its answer is what the others are compared with: TF-IDF over the tokens and the
mark that ends an answer, fitted anew to every request.
Axes: `C` coalitions, `P` players, `S` samples, `B` coalitions at once.
"""

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sgpa_jax.align import Alignment
from sgpa_jax.audio import Clip
from sgpa_jax.games.game import Game
from sgpa_jax.games.hearing import Rendered, bucket_of
from sgpa_jax.games.prompts_heard import HeardPrompts
from sgpa_jax.games.responses import answers_at_once, answers_to
from sgpa_jax.games.scores import tfidf_cosine
from sgpa_jax.models import Model, ModelInputs, Response, Speech, without_spoken_turn
from sgpa_jax.players import as_pcm16, spoken_players

AUTHORS_GAME = {
    "samples": "joined, 16 bit, resampled",
    "nobody": "turn without the recording",
    "everybody": "recording untouched",
    "terms": "tokens and end mark",
    "corpus": "of each phase",
}
"""What is particular about the game, as an explanation tells it."""

_END = "the mark that ends an answer"


def authors_game(
    model: Model,
    clip: Clip,
    alignment: Alignment,
    *,
    prompt: str = "",
    system: str | None = None,
    max_new_tokens: int = 30,
    microbatch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Game:
    """Build the game of a recording's words as the authors' code plays it.

    Args:
        model: the audio language model.
        clip: the recording, at its own rate.
        alignment: its words, which are the players in their order (`spoken_players`).
        prompt: the question beside it.
        system: the system turn, if not the chat format's own.
        max_new_tokens: the longest answer; the authors take 30.
        microbatch: coalitions answered at once; None: what suits the devices.
        progress: called with (coalitions evaluated, coalitions to evaluate) after every microbatch.

    Returns:
        A `Game` whose outputs are a `Response` for each coalition and whose values are 1 for everybody.

    Raises:
        AudioError: the recording, or its words joined, are too long or too short for the model.
        PlayerError: nothing of a word is left.
        UsageError: no room for a token, or a chat format that cannot do without the turn.
    """
    players = spoken_players(alignment, clip)
    heard = JoinedWords.of(model, clip, alignment)
    untouched = model.prepare(clip, prompt, system=system)
    silent = _without_recording(model, untouched, prompt, system)
    joined = heard.wave_s(np.ones(len(players), bool))
    # The prompt has room for the longest recording: words that are heard twice may be longer together than the clip.
    longest = untouched
    if len(joined) > len(untouched.clips[0].wave_s):
        longest = model.prepare(Clip(joined, model.rate_hz), prompt, system=system)
    prompts = HeardPrompts(model, longest, players, heard)
    rendered = answers_to(model, prompts, max_new_tokens=max_new_tokens)

    @functools.cache
    def said(is_full: bool) -> Response:
        return model.generate(untouched if is_full else silent, max_new_tokens=max_new_tokens)

    def respond(masks_cp: Any) -> list[Response | Speech]:
        masks, answers = np.asarray(masks_cp), list[Response | Speech](rendered(masks_cp))
        for row in np.flatnonzero(masks.all(axis=1) | ~masks.any(axis=1)).tolist():
            answers[row] = said(bool(masks[row].all()))
        return answers

    def terms(response: Response) -> list[Hashable]:
        # Their answers hold the mark that ended them, where it came in time.
        return [*response.ids, *[_END] * (len(response.ids) < max_new_tokens)]

    return Game(
        respond,
        len(players),
        score=functools.partial(tfidf_cosine, terms=terms, per_phase=True),
        microbatch=answers_at_once(model) if microbatch is None else microbatch,
        mesh=model.mesh,
        outputs=("response",),
        jit=False,
        length=prompts.length,
        progress=progress,
    )


@dataclass(frozen=True, eq=False)
class JoinedWords:
    """What a model hears of the words that are there: a `Hearing`.

    Attributes:
        spans_p2: int[P, 2], first sample and end of each word, at the rate of the clip.
    """

    model: Model
    clip: Clip
    spans_p2: Int[np.ndarray, "P 2"]
    is_settled = False
    table_nm = None

    @classmethod
    def of(cls, model: Model, clip: Clip, alignment: Alignment) -> "JoinedWords":
        """Take the words' own spans, which may overlap."""
        spans = [[round(edge_s * clip.rate_hz) for edge_s in (word.start_s, word.end_s)] for word in alignment.words]
        return cls(model, clip, np.clip(np.array(spans, np.int64), 0, len(clip.wave_s)))

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """Everybody: whoever is missing brings the others together."""
        return np.ones(len(self.spans_p2), bool)

    def wave_s(self, mask_p: Bool[np.ndarray, " P"]) -> Float[np.ndarray, " S"]:
        """Samples of a coalition at the model's rate."""
        words = [self.clip.wave_s[first:end] for first, end in self.spans_p2[mask_p].tolist()]
        if not words:
            return np.zeros(0, np.float32)
        return Clip(as_pcm16(np.concatenate(words)), self.clip.rate_hz).at_rate(self.model.rate_hz).wave_s

    def n_samples(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Length of what is heard, silence up to the model's minimum included."""
        n_joined = masks_cp @ (self.spans_p2[:, 1] - self.spans_p2[:, 0])
        # What resampling makes of a length.
        n_heard = np.floor(n_joined * self.model.rate_hz / self.clip.rate_hz + 0.5).astype(np.int64)
        return np.maximum(n_heard, self.model.minimum_samples)

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """As the front end counts them."""
        front_end: Any = self.model.config.front_end
        return front_end.n_frames(self.n_samples(masks_cp))

    def bucket(self, n_frames: int) -> int:
        """Few sizes for many lengths."""
        room = self.model.config.front_end.room_frames
        whole = int(self.n_frames(np.ones((1, len(self.spans_p2)), bool))[0])
        return bucket_of(n_frames + room, most=whole + room)

    def hear(self, masks_bp: Bool[np.ndarray, "B P"], n_frames: int) -> Rendered:
        """Render coalitions on the host."""
        waves = np.zeros((len(masks_bp), n_frames * self.model.config.front_end.hop_samples), np.float32)
        for row_s, mask_p in zip(waves, masks_bp, strict=True):
            wave_s = self.wave_s(mask_p)
            row_s[: len(wave_s)] = wave_s
        return Rendered(waves, self.n_samples(masks_bp).astype(np.int32))


def _without_recording(model: Model, inputs: ModelInputs, prompt: str, system: str | None) -> ModelInputs:
    """Leave the recording out of its turn, and the turn too where it has no text."""
    if not prompt:
        return without_spoken_turn(inputs)
    first = [] if system is None else [{"role": "system", "content": system}]
    return model.prepare_text([*first, {"role": "user", "content": prompt}])
