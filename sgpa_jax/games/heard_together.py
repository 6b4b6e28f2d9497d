"""Games of what is heard, of several utterances, in the same batches: coalitions heard and read side by side.

A small game fills no batch by itself, and a large one leaves its last batch half empty. Here the coalitions of all
games stand in one queue, by length, so that only its last batch is padded; where short and longer recordings meet in a
batch, the short ones are heard with more silence behind them.
Axes: `B` coalitions at once, `C` coalitions of a queue, `N` games of a queue, `R` tokens of the response.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import round_up
from sgpa_jax.games.hearing import JointHearing, Picked, Rendered, Taken
from sgpa_jax.games.queues import MOST_GAMES, Queued, fitting
from sgpa_jax.games.speech import with_total
from sgpa_jax.games.waveform import WaveformEngine, coalition_bytes, coalitions_at_once, different_rows
from sgpa_jax.games.waveform_programs import Script, hear, read
from sgpa_jax.models import gathered

_TEXT_STEP, _RESPONSE_STEP = 16, 8


def evaluate_heard(waiting: Sequence[Queued]) -> Iterator[int]:
    """Evaluate coalitions of games of what is heard; yield how many were fetched after every batch."""
    queues: dict[tuple[Any, ...], list[Queued]] = {}
    for queued in waiting:
        queues.setdefault(_program(queued.game.engine), []).append(queued)
    for alike in queues.values():
        for queue in fitting(alike, lambda game: game.engine.hearing.table_nm):
            yield from _evaluated(queue)


class _Heard(NamedTuple):
    """Rows of one game in a batch: its number, their places, and who is heard in them."""

    number: int
    at: Int[np.ndarray, " X"]
    masks_xh: Bool[np.ndarray, "X H"]


def _program(engine: WaveformEngine) -> tuple[Any, ...]:
    """What engines have in common whose coalitions are computed together."""
    prefix_ud = engine.script.prefix_ud[: int(engine.script.n_prefix)]
    return (type(engine.hearing), engine.text_absence, prefix_ud.tobytes())


def _evaluated(queue: Sequence[Queued]) -> Iterator[int]:
    """Evaluate a queue, and yield how many coalitions were fetched after every batch."""
    engines = [queued.game.engine for queued in queue]
    joint = _JointEngine(engines)
    game_c = np.repeat(np.arange(len(queue)), [len(queued.masks_cp) for queued in queue])
    masks_c = [mask for queued in queue for mask in queued.masks_cp]
    n_frames_c, length_c = (
        np.concatenate([measure(engine, queued.masks_cp) for engine, queued in zip(engines, queue, strict=True)])
        for measure in (WaveformEngine.frames_alone, WaveformEngine.length)
    )
    order_c = np.lexsort((length_c, game_c, n_frames_c))
    found_cr, forwards_n = np.zeros((len(order_c), joint.n_targets), np.float32), np.zeros(len(queue), np.int64)
    on_the_way: list[tuple[Int[np.ndarray, " B"], Array]] = []
    first = 0
    while first < len(order_c) or on_the_way:
        if first < len(order_c):
            n_frames, size = _shape(joint, n_frames_c[order_c[first:]])
            rows = order_c[first : first + size]
            padded = np.pad(rows, (0, size - len(rows)), mode="edge")
            values_br = joint.log_probs(game_c[padded], [masks_c[row] for row in padded], n_frames)
            on_the_way.append((rows, gathered(values_br)))
            forwards_n += np.bincount(game_c[padded], minlength=len(queue))
            first += size
        # A batch is computed while the one before is fetched.
        if len(on_the_way) == 2 or first >= len(order_c):
            fetched, values_br = on_the_way.pop(0)
            found_cr[fetched] = np.asarray(values_br)[: len(fetched)]
            yield len(fetched)
    for number, (game, masks_cp) in enumerate(queue):
        token_cr = found_cr[game_c == number, : game.engine.n_targets]
        game.remember(masks_cp, with_total(token_cr, game.value), model_forwards=int(forwards_n[number]))


def _shape(joint: "_JointEngine", n_frames_c: Int[np.ndarray, " C"]) -> tuple[int, int]:
    """Return frames and rows of the next batch; it is as long as the longest of as many as the first would allow."""
    size = joint.at_once(int(n_frames_c[0]))
    n_frames = int(n_frames_c[:size][-1])
    return n_frames, joint.at_once(n_frames)


class _JointEngine:
    """Engines of one program as one: their frames in one table, their texts in one script."""

    def __init__(self, engines: Sequence[WaveformEngine]) -> None:
        first, scripts = engines[0], [engine.script for engine in engines]
        self._engines, self._model = engines, first.model
        n_text = round_up(max(script.text_nkd.shape[1] for script in scripts), _TEXT_STEP)
        self.n_targets = round_up(max(script.targets_nr.shape[1] for script in scripts), _RESPONSE_STEP)
        sizes = {"text_nkd": n_text, "instead_nkd": n_text, "targets_nr": self.n_targets}
        own = [name for name in Script._fields if name not in ("prefix_ud", "n_prefix")]
        stacked = {name: _stacked([getattr(script, name)[0] for script in scripts], sizes.get(name)) for name in own}
        self._script = jax.tree.map(jnp.asarray, first.script._replace(**stacked))
        self._owner_k = [
            np.pad(engine.owner_k, (0, n_text - len(engine.owner_k)), constant_values=engine.n_players)
            for engine in engines
        ]
        self._hearing = JointHearing([engine.hearing for engine in engines])

    def at_once(self, n_frames: int) -> int:
        """Rows of a batch of so many frames."""
        n_prefix = len(self._script.prefix_ud)
        bytes_each = coalition_bytes(self._model, n_frames, self._n_tokens(n_frames), n_prefix, self.n_targets)
        return coalitions_at_once(self._model, bytes_each)

    def log_probs(
        self, game_b: Int[np.ndarray, " B"], masks_b: Sequence[Bool[np.ndarray, " P"]], n_frames: int
    ) -> Float[Array, "B R"]:
        """Log-probability of every token of each row's response, rubbish behind its last one, heard in `n_frames`."""
        n_text, size = self._script.text_nkd.shape[1], len(game_b)
        there_bk, n_frames_b = np.ones((size, n_text), bool), np.zeros(size, np.int32)
        heard: list[_Heard] = []
        for number in np.unique(game_b).tolist():
            engine, at = self._engines[number], np.flatnonzero(game_b == number)
            masks_xp = np.stack([masks_b[row] for row in at.tolist()])
            there_bk[at] = np.append(masks_xp, np.ones((len(at), 1), bool), axis=1)[:, self._owner_k[number]]
            n_frames_b[at] = engine.n_frames(masks_xp)
            heard.append(_Heard(number, at, masks_xp[:, engine.heard]))
        rows, row_b = self._different(heard, size)
        sound = self._sound(heard, rows, n_frames)
        model, encoder = self._model, self._model.config.encoder
        audio_bad = hear(
            model.stacked_encoder, sound, n_frames_b[rows], is_settled=self._engines[0].hearing.is_settled,
            mesh=model.mesh,
        )  # fmt: skip
        return read(
            model.decoder, self._script, audio_bad if row_b is None else audio_bad[row_b],
            encoder.n_tokens(jnp.asarray(n_frames_b)), there_bk, game_b.astype(np.int32),
            n_tokens=self._n_tokens(n_frames), text_absence=self._engines[0].text_absence, mesh=model.mesh,
        )  # fmt: skip

    def _n_tokens(self, n_frames: int) -> int:
        """T of a bucket of frames."""
        config = self._model.config
        n_audio = config.encoder.n_tokens(n_frames - config.front_end.room_frames)
        return round_up(n_audio + self._script.text_nkd.shape[1], _RESPONSE_STEP)

    def _different(
        self, heard: Sequence[_Heard], size: int
    ) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " B"] | None]:
        """Rows that sound different, and which of these each row sounds like; None: as they stand."""
        # Rows differ in sound where there is no text that could be absent, and on several devices they stay put.
        if self._model.mesh is not None or all(len(engine.heard) == engine.n_players for engine in self._engines):
            return np.arange(size), None
        pattern_bp = np.zeros((size, 1 + max(masks_xh.shape[1] for _, _, masks_xh in heard)), np.int32)
        for number, at, masks_xh in heard:
            pattern_bp[at, 0] = number
            pattern_bp[at, 1 : 1 + masks_xh.shape[1]] = masks_xh
        return different_rows(pattern_bp)

    def _sound(self, heard: Sequence[_Heard], rows: Int[np.ndarray, " N"], n_frames: int) -> Picked | Rendered | Taken:
        """What the frames of rows are made of."""
        order = np.argsort(np.concatenate([at for _, at, _ in heard]))[rows]
        sound = self._hearing.hear([(number, masks_xh) for number, _, masks_xh in heard], n_frames)
        if isinstance(sound, Rendered):
            return Rendered(sound.wave_bs[order], sound.n_samples_b[order])
        sound = Picked(sound.table_nm, sound.index_bf[order])
        return _taken(sound) if self._model.mesh is None else sound


@jax.jit
def _taken(picked: Picked) -> Taken:
    """Look frames up outside of the program that hears them: it is the same then for any number of games."""
    return Taken(picked.frames(None))


def _stacked(arrays: Sequence[np.ndarray], n_rows: int | None) -> np.ndarray:
    """Stack arrays, filled up with zeros to `n_rows` each, into one with room for `MOST_GAMES`."""
    first = arrays[0]
    shape = (MOST_GAMES, *first.shape) if n_rows is None else (MOST_GAMES, n_rows, *first.shape[1:])
    stacked = np.zeros(shape, first.dtype)
    for number, array in enumerate(arrays):
        stacked[(number, slice(len(array))) if first.ndim else number] = array
    return stacked
