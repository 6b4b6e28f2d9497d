"""Games of several utterances in the same batches: coalitions of different recordings, heard and read side by side.

A small game fills no batch by itself, and a large one leaves its last batch half empty. Here the coalitions of all
games stand in one queue, by length, so that only its last batch is padded; where short and longer recordings meet in a
batch, the short ones are heard with more silence behind them. Other games, whose engines share work within themselves,
are evaluated one after another.
Axes: `B` coalitions at once, `C` coalitions of a queue, `N` games of a queue, `R` tokens of the response.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import round_up
from sgpa_jax.games.game import Game
from sgpa_jax.games.hearing import Picked, Rendered, Taken
from sgpa_jax.games.speech import HeardGame, with_total
from sgpa_jax.games.waveform import WaveformEngine, coalition_bytes, coalitions_at_once, different_rows
from sgpa_jax.games.waveform_programs import Script, hear, read
from sgpa_jax.models import gathered
from sgpa_jax.typing import MaskCP

TABLE_BYTES, MOST_GAMES = 2**26, 64
"""What the mel frames of a queue may take on the device, and how many games it has at most."""

_TEXT_STEP, _RESPONSE_STEP = 16, 8


def evaluate_together(
    games: Sequence[Game], masks: Sequence[MaskCP], *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Evaluate coalitions of several games of one model; each game remembers its own, as if it had been asked alone.

    Args:
        games: of one model; those that `speech_game` built for players that are heard share batches.
        masks: the coalitions of each, bool[C, P].
        progress: called with (coalitions evaluated, coalitions to evaluate) after every batch.

    Raises:
        UsageError: masks of another shape, or values that are not finite.
    """
    asked = [_Asked(game, game.unknown(masks_cp)) for game, masks_cp in zip(games, masks, strict=True)]
    total = sum(len(masks_cp) for _, masks_cp in asked)
    done, queues = 0, {}
    for game, masks_cp in asked:
        if len(masks_cp) == 0:
            continue
        # Recordings in windows have an engine of their own.
        if isinstance(game, HeardGame) and type(game.engine) is WaveformEngine:
            queues.setdefault(_program(game.engine), []).append(_Asked(game, masks_cp))
            continue
        game.evaluate(masks_cp)
        done += len(masks_cp)
        if progress is not None:
            progress(done, total)
    for queue in itertools.chain.from_iterable(map(_fitting, queues.values())):
        for n_rows in _evaluated(queue):
            done += n_rows
            if progress is not None:
                progress(done, total)


class _Heard(NamedTuple):
    """Rows of one game in a batch: its number, their places, and who is heard in them."""

    number: int
    at: Int[np.ndarray, " X"]
    masks_xh: Bool[np.ndarray, "X H"]


class _Asked(NamedTuple):
    """A game and coalitions that it does not know yet."""

    game: Any
    masks_cp: Bool[np.ndarray, "C P"]


def _program(engine: WaveformEngine) -> tuple[Any, ...]:
    """What engines have in common whose coalitions are computed together."""
    prefix_ud = engine.script.prefix_ud[: int(engine.script.n_prefix)]
    return (type(engine.hearing), engine.text_absence, prefix_ud.tobytes())


def _fitting(waiting: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """Cut a queue where its games or their frames would be too many."""
    queue: list[_Asked] = []
    n_bytes = 0
    for asked in waiting:
        table = asked.game.engine.hearing.table_nm
        own_bytes = 0 if table is None else 4 * table.shape[0] * table.shape[1]
        if queue and (len(queue) == MOST_GAMES or n_bytes + own_bytes > TABLE_BYTES):
            yield queue
            queue, n_bytes = [], 0
        queue.append(asked)
        n_bytes += own_bytes
    yield queue


def _evaluated(queue: Sequence[_Asked]) -> Iterator[int]:
    """Evaluate a queue, and yield how many coalitions were fetched after every batch."""
    engines = [asked.game.engine for asked in queue]
    joint = _JointEngine(engines)
    game_c = np.repeat(np.arange(len(queue)), [len(asked.masks_cp) for asked in queue])
    masks_c = [mask for asked in queue for mask in asked.masks_cp]
    n_frames_c, length_c = (
        np.concatenate([measure(engine, asked.masks_cp) for engine, asked in zip(engines, queue, strict=True)])
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
        self._table_nm, self._first_row = None, np.zeros(len(engines), np.int64)
        if first.hearing.table_nm is not None:
            tables = [np.asarray(engine.hearing.table_nm) for engine in engines]
            rows, self._first_row = np.concatenate(tables), np.cumsum([0, *map(len, tables)])
            self._table_nm = jnp.asarray(np.pad(rows, ((0, (1 << (len(rows) - 1).bit_length()) - len(rows)), (0, 0))))

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
        sounds = [(number, self._engines[number].hearing.hear(masks_xh, n_frames)) for number, _, masks_xh in heard]
        picked = [sound.index_bf + self._first_row[number] for number, sound in sounds if isinstance(sound, Picked)]
        if picked:
            sound = Picked(self._table_nm, np.concatenate(picked)[order].astype(np.int32))
            return _taken(sound) if self._model.mesh is None else sound
        waves, lengths = zip(*(sound for _, sound in sounds), strict=True)
        return Rendered(np.concatenate(waves)[order], np.concatenate(lengths)[order])


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
