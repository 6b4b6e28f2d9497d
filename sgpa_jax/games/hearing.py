"""What the encoder is given for a coalition: mel frames, of which most are the same in many coalitions.

A frame knows a few hundredths of a second of the waveform, where a player or two are heard. So the frames of `silence`
and `noise` are computed once for every pattern of neighbouring players and then picked; what looks at the whole clip
(Whisper's clamp, NeMo's normalisation) is applied to what was picked. `delete` moves the samples behind a cut by any
number, so that its frames are computed for every coalition. `mel_delete` picks among the frames of the whole clip.
Axes: `B` coalitions at once, `C` coalitions, `P` players, `S` samples, `F` frames in a bucket, `N` frames to pick from,
`M` mel bins.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import Clip, round_up_in_octaves
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.queues import Part
from sgpa_jax.models import Model
from sgpa_jax.players import ABSENCES, NOBODY, PADDING, Players, ambient_noise, join_kept, render_coalition

HEARD_ABSENCES = (*ABSENCES, "mel_delete")
"""The ways in which a player can be absent from what the encoder hears."""

_FRAME_STEP = 8
_SIZES, _FEW_SIZES = 8, 2
_MOST_PATTERNS = 64


class Picked(NamedTuple):
    """Frames as rows of a table: arrays of the host or the device, or traced ones.

    Attributes:
        table_nm: float32[N, M].
        index_bf: int32[B, F].
    """

    table_nm: Any
    index_bf: Any

    def frames(self, front_end: Any) -> Float[Array, "B F M"]:
        """Look the frames up."""
        return self.table_nm[self.index_bf]


class Rendered(NamedTuple):
    """Waveforms, zero behind their ends: arrays of the host or the device, or traced ones.

    Attributes:
        wave_bs: float32[B, S].
        n_samples_b: int32[B].
    """

    wave_bs: Any
    n_samples_b: Any

    def frames(self, front_end: Any) -> Float[Array, "B F M"]:
        """Compute the frames that lie within the bucket."""
        frames = front_end.local_frames(self.wave_bs, self.n_samples_b)
        return frames[:, : self.wave_bs.shape[1] // front_end.hop_samples]


class Taken(NamedTuple):
    """Frames as they are.

    Attributes:
        frames_bfm: float32[B, F, M].
    """

    frames_bfm: Any

    def frames(self, front_end: Any) -> Float[Array, "B F M"]:
        """Give them."""
        return self.frames_bfm


class Hearing(Protocol):
    """One absence in one recording."""

    @property
    def is_settled(self) -> bool:
        """Whether frames are features already, or still to be settled."""
        ...

    @property
    def table_nm(self) -> Any | None:
        """The frames that coalitions pick from, float32[N, M]; None where each has frames of its own."""
        ...

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """Whose absence changes anything."""
        ...

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """How many frames a coalition has."""
        ...

    def bucket(self, n_frames: int) -> int:
        """How many are computed where the longest of some coalitions has `n_frames`."""
        ...

    def hear(self, masks_bp: Bool[np.ndarray, "B P"], n_frames: int) -> Picked | Rendered:
        """What the frames of coalitions are made of, in a bucket of `n_frames`."""
        ...


def hearing_of(model: Model, clip: Clip, players: Players, absence: str) -> Hearing:
    """Return what coalitions of the players of a clip, at the model's rate, sound like to the model.

    Raises:
        UsageError: an unknown absence, or `mel_delete` with a model whose positions are not eight frames each.
    """
    if absence not in HEARD_ABSENCES:
        raise unknown_name("absence", absence, HEARD_ABSENCES)
    owner_s = Players(players.players, len(clip.wave_s), clip.rate_hz).owner_s()
    if absence == "mel_delete":
        if model.config.frames_per_position is None:
            raise UsageError(
                f"the absence 'mel_delete' cuts the mel frames of LFM2-Audio, but the model {model.name} is none; "
                "choose 'delete', which cuts the waveform"
            )
        return _CutFrames.of(model, clip, owner_s, len(players))
    waves = _Waves(model, clip.wave_s, owner_s, len(players), absence, ambient_noise(clip))
    if absence == "delete":
        return waves
    patterns = _Patterns.of(waves)
    return patterns if 2 ** int(patterns.color_p.max() + 1) <= _MOST_PATTERNS else waves


class JointHearing:
    """Recordings of several utterances that are heard in the same way: their frames are in one table.

    Attributes:
        table_nm: of the frames of all of them, float32[N, M], N a power of two; None where there are none to pick.
    """

    def __init__(self, hearings: Sequence[Hearing]) -> None:
        self._hearings, self.table_nm, self._first_row = hearings, None, [0] * len(hearings)
        if hearings[0].table_nm is not None:
            tables = [np.asarray(hearing.table_nm) for hearing in hearings]
            rows, self._first_row = np.concatenate(tables), np.cumsum([0, *map(len, tables)]).tolist()
            self.table_nm = jnp.asarray(np.pad(rows, ((0, (1 << (len(rows) - 1).bit_length()) - len(rows)), (0, 0))))

    def hear(self, parts: Sequence[Part], n_frames: int) -> Picked | Rendered:
        """What the frames of coalitions are made of, those of each recording, by its number, one behind another."""
        sounds = [(number, self._hearings[number].hear(masks_cp, n_frames)) for number, masks_cp in parts]
        picked = [sound.index_bf + self._first_row[number] for number, sound in sounds if isinstance(sound, Picked)]
        if picked:
            return Picked(self.table_nm, np.concatenate(picked).astype(np.int32))
        waves, lengths = zip(*(sound for _, sound in sounds), strict=True)
        return Rendered(np.concatenate(waves), np.concatenate(lengths))


def bucket_of(n_frames: int, *, most: int) -> int:
    """Return how many frames to compute where no coalition has more than `most`: each size is a program to compile."""
    whole = round_up_in_octaves(most, step=_FRAME_STEP, parts=_SIZES)
    return min(whole, round_up_in_octaves(n_frames, step=_FRAME_STEP, parts=_FEW_SIZES))


def frames_of_everybody(model: Model, n_samples: int) -> int:
    """Mel frames that are computed for a whole recording, in its bucket: eight sizes an octave."""
    front_end: Any = model.config.front_end
    n_frames = int(front_end.n_frames(max(int(n_samples), model.minimum_samples)))
    return round_up_in_octaves(n_frames + front_end.room_frames, step=_FRAME_STEP, parts=_SIZES)


@dataclass(frozen=True, eq=False)
class _Waves:
    """Every coalition rendered: `delete`, and the others where more than a few players share a frame."""

    model: Model
    wave_s: Float[np.ndarray, " S"]
    owner_s: Int[np.ndarray, " S"]
    n_players: int
    absence: str
    noise_s: Float[np.ndarray, " S"]
    is_settled = False
    table_nm = None

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """Whose samples are not what would be there without them."""
        instead_s = self.noise_s if self.absence == "noise" else 0
        differs_s = (self.wave_s != instead_s) | (self.absence == "delete")
        return np.bincount(self.owner_s[differs_s] + 1, minlength=self.n_players + 1)[1:] > 0

    @functools.cached_property
    def _samples_p(self) -> Int[np.ndarray, " P1"]:
        """Samples of everybody, and last of nobody."""
        return np.roll(np.bincount(self.owner_s + 1, minlength=self.n_players + 1), -1)

    def n_samples(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Length of what is heard, silence up to the model's minimum included."""
        kept_cp = masks_cp if self.absence == "delete" else np.ones_like(masks_cp)
        return np.maximum(kept_cp @ self._samples_p[:-1] + self._samples_p[-1], self.model.minimum_samples)

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """As the front end counts them."""
        front_end: Any = self.model.config.front_end
        return front_end.n_frames(self.n_samples(masks_cp))

    def bucket(self, n_frames: int) -> int:
        """Few sizes for the many lengths of `delete`."""
        most = frames_of_everybody(self.model, int(self._samples_p.sum()))
        return bucket_of(n_frames + self.model.config.front_end.room_frames, most=most)

    def hear(self, masks_bp: Bool[np.ndarray, "B P"], n_frames: int) -> Rendered:
        """Render coalitions: cuts on the host, where they are copies of a few runs of samples."""
        size = n_frames * self.model.config.front_end.hop_samples
        n_samples = self.n_samples(masks_bp).astype(np.int32)
        if self.absence == "delete":
            return Rendered(join_kept(self.wave_s, self.owner_s, masks_bp, size=size), n_samples)
        room = (0, size - len(self.wave_s))
        wave, noise = np.pad(self.wave_s, room), np.pad(self.noise_s, room)
        owner = np.pad(self.owner_s, room, constant_values=PADDING)
        return Rendered(_render(wave, owner, noise, masks_bp, self.absence), n_samples)


@dataclass(frozen=True, eq=False)
class _Patterns:
    """Frames of `silence` and `noise`, picked by who of the players around a frame is there.

    Players who meet in a frame have different colours; `is_near_pf` tells who is heard in a frame, and the table's
    rows are, for every set of colours, the frames of the coalition of the players who have them.
    """

    waves: _Waves
    color_p: Int[np.ndarray, " P"]
    is_near_pf: Bool[np.ndarray, "P F"]
    is_settled = False

    @classmethod
    def of(cls, waves: _Waves) -> "_Patterns":
        """Colour the players in the order of time: those who meet in a frame follow one another."""
        front_end = waves.model.config.front_end
        middle_f = np.arange(frames_of_everybody(waves.model, len(waves.wave_s))) * front_end.hop_samples
        samples = [np.flatnonzero(waves.owner_s == player) for player in range(waves.n_players)]
        first_p, last_p = (np.array([of_player[end] for of_player in samples])[:, None] for end in (0, -1))
        reach = front_end.reach_samples
        is_near_pf = (first_p - reach <= middle_f[None]) & (middle_f[None] <= last_p + reach)
        n_colors = max(1, int(is_near_pf.sum(axis=0).max()))
        color_p = np.empty(waves.n_players, np.int64)
        color_p[np.argsort(first_p[:, 0])] = np.arange(waves.n_players) % n_colors
        return cls(waves, color_p, is_near_pf)

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """As of the waves."""
        return self.waves.is_audible_p

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Those of the whole clip."""
        return self.waves.n_frames(masks_cp)

    def bucket(self, n_frames: int) -> int:
        """One size for all."""
        return self.is_near_pf.shape[1]

    def hear(self, masks_bp: Bool[np.ndarray, "B P"], n_frames: int) -> Picked:
        """Pick the frames of the pattern around each; the last one, which holds nothing, again and again for more."""
        n_own = self.is_near_pf.shape[1]
        pattern_bf = (masks_bp << self.color_p) @ self.is_near_pf.astype(np.int64)
        index_bf = pattern_bf * n_own + np.arange(n_own)
        return Picked(self.table_nm, np.pad(index_bf, ((0, 0), (0, n_frames - n_own)), mode="edge").astype(np.int32))

    @functools.cached_property
    def table_nm(self) -> Float[Array, "N M"]:
        """The frames of every set of colours, one set after the other."""
        # Players of one colour stand in for one player, so that their number compiles nothing.
        n_colors, owner_s = int(self.color_p.max()) + 1, self.waves.owner_s
        of_colors = replace(
            self.waves, owner_s=np.where(owner_s < 0, owner_s, self.color_p[owner_s]), n_players=n_colors
        )
        patterns_xc = np.arange(2**n_colors)[:, None] >> np.arange(n_colors)[None] & 1 == 1
        rendered = of_colors.hear(patterns_xc, self.is_near_pf.shape[1])
        return _frames(self.waves.model.config.front_end, rendered)


@dataclass(frozen=True, eq=False)
class _CutFrames:
    """Features of the whole clip, eight frames of which are there or not: the authors' token mode.

    Eight frames belong to whom most of their samples belong. Where nobody is left, nothing is heard at all.
    """

    table_nm: Float[Array, "N M"]
    owner_f: Int[np.ndarray, " F"]
    n_players: int
    is_settled = True

    @classmethod
    def of(cls, model: Model, clip: Clip, owner_s: Int[np.ndarray, " S"], n_players: int) -> "_CutFrames":
        """Compute the features, and behind them a row of zeros; find each frame's owner."""
        front_end, n_samples = model.config.front_end, len(clip.wave_s)
        n_frames = front_end.n_frames(n_samples)
        size = round_up_in_octaves(n_frames, step=_FRAME_STEP, parts=_SIZES)
        wave = np.pad(clip.wave_s, (0, size * front_end.hop_samples - n_samples))
        features = _features(front_end, Rendered(wave[None], np.array([n_samples], np.int32)), np.array([n_frames]))
        together = model.config.frames_per_position or 1
        position_s = np.arange(n_samples) // (together * front_end.hop_samples)
        # The last column is nobody's, so that a tie falls to a player; a last frame without samples is nobody's too.
        count_tp = np.zeros((-(-n_frames // together), n_players + 1), np.int64)
        np.add.at(count_tp, (position_s, owner_s), 1)
        owner_t = np.where(count_tp.any(axis=1), count_tp.argmax(axis=1), n_players)
        owner_f = np.repeat(np.where(owner_t == n_players, NOBODY, owner_t), together)[:n_frames]
        return cls(jnp.asarray(np.pad(np.asarray(features)[0, :n_frames], ((0, 1), (0, 0)))), owner_f, n_players)

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """Who owns a frame."""
        return np.isin(np.arange(self.n_players), self.owner_f)

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Those that are left."""
        return self._keep(masks_cp).sum(axis=1)

    def bucket(self, n_frames: int) -> int:
        """Few sizes for many lengths."""
        return bucket_of(n_frames, most=len(self.owner_f))

    def hear(self, masks_bp: Bool[np.ndarray, "B P"], n_frames: int) -> Picked:
        """Join the frames that are left."""
        keep_bf = self._keep(masks_bp)
        index_bf = np.full((len(masks_bp), n_frames), len(self.owner_f), np.int32)
        row, frame = np.nonzero(keep_bf)
        index_bf[row, (np.cumsum(keep_bf, axis=1) - 1)[row, frame]] = frame
        return Picked(self.table_nm, index_bf)

    def _keep(self, masks_cp: Bool[np.ndarray, "C P"]) -> Bool[np.ndarray, "C F"]:
        return np.append(masks_cp, np.ones((len(masks_cp), 1), bool), axis=1)[:, self.owner_f]


@functools.partial(jax.jit, static_argnames="absence")
def _render(wave_s: Array, owner_s: Array, noise_s: Array, masks_bp: Array, absence: str) -> Float[Array, "B S"]:
    return jax.vmap(lambda mask: render_coalition(wave_s, owner_s, mask, absence=absence, noise_s=noise_s)[0])(masks_bp)


@functools.partial(jax.jit, static_argnums=0)
def _frames(front_end: Any, rendered: Rendered) -> Float[Array, "N M"]:
    frames = rendered.frames(front_end)
    return frames.reshape(-1, frames.shape[2])


@functools.partial(jax.jit, static_argnums=0)
def _features(front_end: Any, rendered: Rendered, n_frames_b: Array) -> Float[Array, "B F M"]:
    return front_end.settle(rendered.frames(front_end), n_frames_b)
