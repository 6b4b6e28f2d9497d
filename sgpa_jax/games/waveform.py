"""The waveform engine: games whose absent players change what the encoder hears, and so all that follows it.

The audio of every coalition is encoded by itself, many at a time. What comes before all players in the prompt is the
same for all and run once, what comes behind the audio is short, and the last layer computes only the rows that predict
the response (`blocks.py`). Players that are text are absent at the decoder's input, and coalitions that differ in them
alone are encoded once where they meet in a batch. Recording and tokens are arguments of the two compiled programs, one
for the encoder and one for the decoder, so that another recording of the same bucket compiles nothing.
Axes: `B` coalitions at once, `C` coalitions, `P` players, `R` tokens of the response, `F` mel frames, `A` audio
positions, `T` tokens behind the prefix, `U` tokens of the prefix, `K` tokens of text behind the prefix.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int
from sgpa_kernels import target_log_probs

from sgpa_jax.audio import round_up
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.blocks import Block, block_residuals, run_blocks
from sgpa_jax.games.flat import earlier_of, positions_of
from sgpa_jax.games.hearing import Hearing, Picked, Rendered, hearing_of
from sgpa_jax.games.readout import Readout
from sgpa_jax.games.tokens import TEXT_ABSENCES, neutral_rows, text_owners, text_rows
from sgpa_jax.models import AudioLM, Decoder, Model, ModelInputs, only_clip
from sgpa_jax.players import Players

CACHE_BYTES, MEMORY_BYTES = 2**24, 2**32
"""What the activations of coalitions computed at once may take: a CPU is quickest where they stay in its cache."""

_TOKEN_STEP, _RESPONSE_STEP = 8, 4


class Script(NamedTuple):
    """The text around the audio and the response, in buckets.

    Attributes:
        prefix_ud: embeddings of what every coalition begins with, before the audio and all players that are text; of
            them `n_prefix` are real.
        text_kd: embeddings of the other text, without the response's last token; `n_between` stand before the audio,
            `n_text` are real.
        instead_kd: what replaces such text where it is absent.
        targets_r: the response's tokens, of which `n_targets` are real.
    """

    prefix_ud: Float[Array, "U D"]
    text_kd: Float[Array, "K D"]
    instead_kd: Float[Array, "K D"]
    targets_r: Int[Array, " R"]
    n_prefix: Int[Array, ""]
    n_between: Int[Array, ""]
    n_text: Int[Array, ""]
    n_targets: Int[Array, ""]


class WaveformEngine:
    """Log-probabilities of a response under coalitions of the players of its prompt and of the one recording in it.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response.
        players: spans of the clip, at the clip's own rate, and text of the prompt.
        absence: of players that are heard, one of `HEARD_ABSENCES`.
        text_absence: of players that are text, one of `TEXT_ABSENCES`.

    Raises:
        PlayerError: a player's text is not in the prompt.
        UsageError: an unknown absence, one that the model does not offer, no player that is heard, or a conversation of
            more than one recording.
    """

    def __init__(
        self, model: Model, inputs: ModelInputs, players: Players, *, absence: str, text_absence: str = "attention"
    ) -> None:
        if text_absence not in TEXT_ABSENCES:
            raise unknown_name("absence of text", text_absence, TEXT_ABSENCES)
        if not players.heard:
            raise UsageError("the players are all text, which is absent at the decoder's input: expected one to hear")
        network: AudioLM = nnx.merge(model.graphdef, model.state)
        # Text players change none of what is compiled where there are none of them.
        self._model, self._text_absence = model, text_absence if players.text else "attention"
        self._heard, self._n_players = list(players.heard), len(players)
        heard = replace(players, players=tuple(players[index] for index in players.heard))
        self._listen(inputs, heard, absence)
        self._n_targets = len(inputs.ids_t) - inputs.response_start
        self._script, self._owner_k = _script(model, inputs, players, self._text_absence)
        self._decoder = model.decoder
        self._encoder = _Encoder.of(network)

    def _listen(self, inputs: ModelInputs, heard: Players, absence: str) -> None:
        """Take the recording and the players that are heard in it."""
        self._hearing = hearing_of(self._model, only_clip(inputs), heard, absence)

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """Which players change anything: coalitions that differ in the others alone are one and the same."""
        changes_p = np.ones(self._n_players, bool)
        changes_p[self._heard] = self._hearing.is_audible_p
        return changes_p

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Mel frames of each coalition; those of similar length are best computed together."""
        return self._hearing.n_frames(masks_cp[:, self._heard])

    def n_audio(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Tokens of each coalition from the audio's first to its last."""
        return np.asarray(self._model.config.encoder.n_tokens(jnp.asarray(self.n_frames(masks_cp))))

    def length(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """By what coalitions are best sorted: by frames, and those together that sound the same."""
        if len(self._heard) == self._n_players:
            return self.n_frames(masks_cp)
        rows = np.column_stack([self.n_frames(masks_cp), masks_cp[:, self._heard]])
        return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)

    def microbatch(self, n_bytes: int | None = None, *, readout: Readout | None = None) -> int:
        """How many coalitions to compute at once, so that their activations take about `n_bytes` on a device.

        Without a number: what the devices are quickest with. A power of two for each along the mesh's axis `data`.
        """
        if n_bytes is None:
            n_bytes = CACHE_BYTES if self._model.platform == "cpu" else MEMORY_BYTES
        everybody_1p = np.ones((1, len(self.is_audible_p)), bool)
        buckets, n_read = self._buckets(everybody_1p), 0
        if readout is not None and readout.positions == "audio":
            n_read = 4 * self._n_tokens(*buckets) * readout.n_values(self._model.config.decoder.width)
        most = n_bytes // max(self._coalition_bytes(*buckets), n_read)
        n_devices = 1 if self._model.mesh is None else self._model.mesh.shape["data"]
        return n_devices << (max(most, 1).bit_length() - 1)

    def log_probs(self, masks_bp: Bool[np.ndarray, "B P"], *, readout: Readout | None = None) -> Float[Array, "B R"]:
        """Log-probability of every token of the response, or what a readout reads, of every coalition, all at once."""
        audio_bad, n_audio_b = self._audio(masks_bp)
        there_bk = np.append(masks_bp, np.ones((len(masks_bp), 1), bool), axis=1)[:, self._owner_k]
        found_br = _read(
            self._decoder, self._script, audio_bad, n_audio_b, there_bk, readout,
            n_tokens=self._n_tokens(*self._buckets(masks_bp)), text_absence=self._text_absence, mesh=self._model.mesh,
        )  # fmt: skip
        return found_br if readout is not None else found_br[:, : self._n_targets]

    def _audio(self, masks_bp: Bool[np.ndarray, "B P"]) -> tuple[Float[Array, "B A D"], Int[Array, " B"]]:
        """Encode coalitions, those that sound the same once; the number of their positions that are real."""
        rows, row_b = self._different(masks_bp)
        audio_bad, n_audio_b = self._encoded(self._hearing, masks_bp[:, self._heard], rows)
        return audio_bad if row_b is None else audio_bad[row_b], n_audio_b

    def _encoded(
        self, hearing: Hearing, masks_bh: Bool[np.ndarray, "B H"], rows: Int[np.ndarray, " N"]
    ) -> tuple[Float[Array, "N A D"], Int[Array, " B"]]:
        """Encode what some of the rows sound like; the number of real positions of every one."""
        n_frames_b = hearing.n_frames(masks_bh).astype(np.int32)
        heard = hearing.hear(masks_bh[rows], hearing.bucket(int(n_frames_b.max())))
        audio_nad = _hear(self._encoder, heard, n_frames_b[rows], is_settled=hearing.is_settled, mesh=self._model.mesh)
        return audio_nad, self._model.config.encoder.n_tokens(jnp.asarray(n_frames_b))

    def _different(
        self, masks_bp: Bool[np.ndarray, "B P"]
    ) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " B"] | None]:
        """Rows that sound different, and which of these each row sounds like; None: as they stand.

        Rows on several devices stay where they are.
        """
        if len(self._heard) == self._n_players or self._model.mesh is not None:
            return np.arange(len(masks_bp)), None
        return different_rows(masks_bp[:, self._heard])

    def cost(self, masks_cp: Bool[np.ndarray, "C P"]) -> dict[str, Any]:
        """Return what different coalitions would run; see `speech_cost`."""
        masks_cp, size = masks_cp[np.argsort(self.length(masks_cp), kind="stable")], self.microbatch()
        buckets = [self._buckets(masks_cp[i : i + size]) for i in range(0, len(masks_cp), size)]
        n_prefix, n_text = int(self._script.n_prefix), int(self._script.n_text)
        n_audio = int(self.n_audio(masks_cp).sum())
        return {
            "decoder_tokens": n_prefix * len(buckets) + n_audio + n_text * len(masks_cp),
            "tokens_one_by_one": (n_prefix + n_text) * len(masks_cp) + n_audio,
            "bytes_at_once": size * max(self._coalition_bytes(*n) for n in {*buckets}),
            "runs": len(buckets),
            "shapes": [
                f"{size} coalitions of {' + '.join(map(str, n))} frames, {self._n_tokens(*n)} tokens behind {n_prefix}"
                for n in sorted({*buckets})
            ],
        }

    def _buckets(self, masks_cp: Bool[np.ndarray, "C P"]) -> tuple[int, ...]:
        """Frames computed for each recording where these coalitions are computed together."""
        return (self._hearing.bucket(int(self.n_frames(masks_cp).max())),)

    def _n_tokens(self, *buckets: int, n_between: int = 0) -> int:
        """T of buckets of frames, with so many tokens of text between them."""
        config, n_text = self._model.config, int(self._script.n_text)
        n_audio = sum(config.encoder.n_tokens(n_frames - config.front_end.room_frames) for n_frames in buckets)
        return round_up(n_audio + n_between + n_text, _TOKEN_STEP)

    def _coalition_bytes(self, *buckets: int) -> int:
        """About the activations of a coalition where they take most: in a layer, or in the head."""
        config, decoder, n_tokens = self._model.config, self._model.config.decoder, self._n_tokens(*buckets)
        n_keys, in_head = n_tokens + len(self._script.prefix_ud), len(self._script.targets_r) * decoder.vocab_size
        in_layer = n_tokens * (2 * decoder.ffn_width + 6 * decoder.width + decoder.n_heads * n_keys)
        return 4 * max(config.n_activations(max(buckets)), in_layer, in_head)


def different_rows(masks_bp: Bool[np.ndarray, "B P"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " B"]]:
    """Return the first of equal rows, and which of these each row equals; a power of two, so that few are compiled."""
    _, rows, row_b = np.unique(masks_bp, axis=0, return_index=True, return_inverse=True)
    size = min(len(masks_bp), 1 << (len(rows) - 1).bit_length())
    return np.pad(rows, (0, size - len(rows)), mode="edge"), row_b.reshape(-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Encoder:
    """A network as far as the decoder, its encoder's layers stacked: they are alike, and one body is compiled."""

    graphdef: nnx.GraphDef = field(metadata={"static": True})
    state: nnx.State
    layer: nnx.GraphDef = field(metadata={"static": True})
    layers: nnx.State

    @classmethod
    def of(cls, network: AudioLM) -> "_Encoder":
        """Take a network apart, which is of no use afterwards."""
        left: Any = network
        layers = [nnx.split(layer) for layer in left.encoder.layers]
        left.encoder.layers, left.decoder, left.audio_out = nnx.List([]), None, None
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in layers))
        return cls(*nnx.split(left), layers[0][0], stacked)

    def network(self) -> AudioLM:
        """The network, all layers in one."""
        network: Any = nnx.merge(self.graphdef, self.state)
        network.encoder.layers = nnx.List([_Stack(self.layer, self.layers)])
        return network


class _Stack(nnx.Module):
    """Layers one after another, as one."""

    def __init__(self, layer: nnx.GraphDef, layers: nnx.State) -> None:
        self.layer, self.layers = layer, nnx.data(layers)

    def __call__(self, x: Array, *rest: Array) -> Array:
        def run(x: Array, params: nnx.State) -> tuple[Array, None]:
            return nnx.merge(self.layer, params)(x, *rest), None

        return jax.lax.scan(run, x, self.layers)[0]


def _script(
    model: Model, inputs: ModelInputs, players: Players, text_absence: str
) -> tuple[Script, Int[np.ndarray, " K"]]:
    """Return the script, and who owns its text behind the prefix; the number of players, where nobody does."""
    audio_t, owner_t = np.flatnonzero(inputs.clip_t >= 0), text_owners(inputs, players)
    n_prefix = min(int(audio_t[0]), int(np.argmax(np.append(owner_t >= 0, True))))
    place_k = np.concatenate([np.arange(n_prefix, audio_t[0]), np.arange(audio_t[-1] + 1, len(inputs.ids_t) - 1)])
    rows = instead = np.asarray(text_rows(model, inputs))
    if text_absence == "replace":
        instead = np.asarray(neutral_rows(model, inputs, players))
    targets = inputs.ids_t[inputs.response_start :]
    padded = (*(_padded(part, _TOKEN_STEP) for part in (rows[:n_prefix], rows[place_k], instead[place_k])),
              _padded(targets, _RESPONSE_STEP))  # fmt: skip
    owner_k = _padded(owner_t[place_k] + 1, _TOKEN_STEP) - 1
    lengths = (n_prefix, audio_t[0] - n_prefix, len(place_k), len(targets))
    script = Script(*map(jnp.asarray, padded), *map(np.int32, lengths))
    return script, np.where(owner_k < 0, len(players), owner_k)


def _padded(rows: np.ndarray, step: int) -> np.ndarray:
    return np.pad(rows, ((0, round_up(len(rows), step) - len(rows)), *((0, 0),) * (rows.ndim - 1)))


@functools.partial(jax.jit, static_argnames=("is_settled", "mesh"))
def _hear(
    encoder: _Encoder, heard: Picked | Rendered, n_frames_b: Int[Array, " B"], *, is_settled: bool, mesh: Mesh | None
) -> Float[Array, "B A D"]:
    """Audio embeddings of a microbatch."""

    def run(encoder: _Encoder, heard: Picked | Rendered, n_frames_b: Array) -> Array:
        network = encoder.network()
        front_end: Any = network.config.front_end
        frames = heard.frames(front_end)
        return network.encode(frames if is_settled else front_end.settle(frames, n_frames_b), n_frames_b)

    shared = PartitionSpec("data")
    parts = Picked(PartitionSpec(), shared) if isinstance(heard, Picked) else Rendered(shared, shared)
    return _over(mesh, run, (PartitionSpec(), parts, shared))(encoder, heard, n_frames_b)


@functools.partial(jax.jit, static_argnames=("n_tokens", "text_absence", "mesh"))
def _read(
    decoder: Decoder,
    script: Script,
    audio_bad: Float[Array, "B A D"],
    n_audio_b: Int[Array, " B"],
    there_bk: Bool[Array, "B K"],
    readout: Readout | None = None,
    *,
    n_tokens: int,
    text_absence: str,
    mesh: Mesh | None,
) -> Float[Array, "B R"]:
    """Log-probabilities of the response, rubbish behind its last token; or what a readout reads."""
    run = functools.partial(_read_rows, n_tokens=n_tokens, text_absence=text_absence)
    everywhere, shared = PartitionSpec(), PartitionSpec("data")
    parts = (everywhere, everywhere, shared, shared, shared, everywhere)
    return _over(mesh, run, parts)(decoder, script, audio_bad, n_audio_b, there_bk, readout)


def _over(mesh: Mesh | None, run: Callable[..., Array], parts: tuple[Any, ...]) -> Callable[..., Array]:
    """Share a function's rows along a mesh's axis `data`, and leave the weights' axis to the compiler."""
    if mesh is None:
        return run
    return jax.shard_map(
        run, mesh=mesh, in_specs=parts, out_specs=PartitionSpec("data"), axis_names={"data"}, check_vma=False
    )


def _read_rows(
    decoder: Decoder,
    script: Script,
    audio_bad: Float[Array, "B A D"],
    n_audio_b: Int[Array, " B"],
    there_bk: Bool[Array, "B K"],
    readout: Readout | None,
    *,
    n_tokens: int,
    text_absence: str,
) -> Float[Array, "B R"]:
    size, n_path, n_before = len(audio_bad), len(script.prefix_ud), decoder.n_before
    n_prefix, end_b1 = script.n_prefix, (n_audio_b + script.n_text)[:, None]
    path_1u, token_bt = jnp.arange(n_path)[None], jnp.broadcast_to(jnp.arange(n_tokens), (size, n_tokens))
    x_btd, there_bt = _behind(script, audio_bad, n_audio_b, there_bk, token_bt)
    gone_bt = ~there_bt & (text_absence != "replace")
    runs_bt = (token_bt < end_b1) & ~gone_bt
    positions = n_prefix + positions_of(gone_bt & (text_absence == "drop"))
    before_root = before = None
    if n_before:
        before_root = jnp.maximum(path_1u[:, :, None] - 1 - jnp.arange(n_before)[None, None], -1)
        before = _before(runs_bt, gone_bt & (text_absence in ("drop", "drop_keep")), n_prefix, n_path, n_before)
    # There is one leaf, as every group is a coalition by itself.
    root = Block(
        script.prefix_ud[None].astype(audio_bad.dtype), path_1u, path_1u, jnp.zeros_like(path_1u),
        (path_1u < n_prefix).astype(jnp.int32), before_root,
    )  # fmt: skip
    groups = Block(
        x_btd, positions, n_prefix + token_bt, jnp.zeros_like(token_bt), runs_bt.astype(jnp.int32), before
    )  # fmt: skip
    paths = jnp.broadcast_to(jnp.where(path_1u < n_prefix, path_1u, -1), (size, n_path))
    if readout is not None and readout.positions == "audio":
        x_btd = block_residuals(decoder, root, groups, paths, after_layer=readout.after_layer)[1]
        return readout(x_btd, _is_audio(script, n_audio_b, token_bt)[:, None])[:, 0]
    # Token r is predicted one position before it stands.
    wanted = jnp.minimum(end_b1 - script.n_targets + jnp.arange(len(script.targets_r))[None], n_tokens - 1)
    hidden = run_blocks(decoder, root, groups, paths, wanted, after_layer=readout and readout.after_layer)
    if readout is not None:
        is_real = jnp.broadcast_to(jnp.arange(wanted.shape[1])[None] < script.n_targets, wanted.shape)
        return readout(hidden, is_real[:, None])[:, 0]
    targets = jnp.broadcast_to(script.targets_r[None], wanted.shape).reshape(-1)
    return target_log_probs(hidden.reshape(-1, hidden.shape[2]), decoder.table_vd, targets).reshape(size, -1)


def _behind(
    script: Script,
    audio_bad: Float[Array, "B A D"],
    n_audio_b: Int[Array, " B"],
    there_bk: Bool[Array, "B K"],
    token_bt: Int[Array, "B T"],
) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
    """Embeddings behind the prefix, where text closes up behind the audio's end, and which of them are there."""
    n_room, n_text, dtype = audio_bad.shape[1], len(script.text_kd), audio_bad.dtype
    text_bkd = jnp.where(there_bk[:, :, None], script.text_kd[None], script.instead_kd[None]).astype(dtype)
    place_bt, is_audio_bt = token_bt - script.n_between, _is_audio(script, n_audio_b, token_bt)
    text_bt = jnp.clip(jnp.where(place_bt < 0, token_bt, token_bt - n_audio_b[:, None]), 0, n_text - 1)
    index_bt = jnp.where(is_audio_bt, jnp.clip(place_bt, 0, n_room - 1), n_room + text_bt)
    x_btd = jnp.take_along_axis(jnp.concatenate([audio_bad, text_bkd], axis=1), index_bt[:, :, None], axis=1)
    return x_btd, is_audio_bt | jnp.take_along_axis(there_bk, text_bt, axis=1)


def _is_audio(script: Script, n_audio_b: Int[Array, " B"], token_bt: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    return (token_bt >= script.n_between) & (token_bt < script.n_between + n_audio_b[:, None])


def _before(
    runs_bt: Bool[Array, "B T"], skipped_bt: Bool[Array, "B T"], n_prefix: Int[Array, ""], n_path: int, n_before: int
) -> Int[Array, "B T K"]:
    """Pointers of convolutions, which may reach into the prefix: its last tokens stand before each row for that."""
    reach = ((0, 0), (n_before, 0))
    last_1n = n_prefix - n_before + jnp.arange(n_before)[None]
    runs = jnp.pad(runs_bt, reach).at[:, :n_before].set(last_1n >= 0)
    pointers = earlier_of(runs, jnp.pad(skipped_bt, reach), n_before)[:, n_before:]
    in_prefix = (pointers >= 0) & (pointers < n_before)
    return jnp.where(
        in_prefix, n_prefix - n_before + pointers, jnp.where(pointers < 0, -1, n_path + pointers - n_before)
    )
