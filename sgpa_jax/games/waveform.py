"""The waveform engine: games whose absent players change what the encoder hears, and so all that follows it.

The audio of every coalition is encoded by itself, many at a time. What comes before it in the prompt is the same for
all and run once, what comes behind it is short, and the last layer computes only the rows that predict the response
(`blocks.py`). Recording and tokens are arguments of the two compiled programs, one for the encoder and one for the
decoder, so that another recording of the same bucket compiles nothing.
Axes: `B` coalitions at once, `C` coalitions, `P` players, `R` tokens of the response, `F` mel frames, `A` audio
positions, `T` tokens behind the prefix, `U` tokens of the prefix, `K` tokens behind the audio.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int
from sgpa_kernels import target_log_probs

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.games.blocks import Block, run_blocks
from sgpa_jax.games.hearing import Picked, Rendered, hearing_of
from sgpa_jax.models import AudioLM, Decoder, Layout, Model, ModelInputs, layout_row, only_clip
from sgpa_jax.players import Players

CACHE_BYTES, MEMORY_BYTES = 2**24, 2**32
"""What the activations of coalitions computed at once may take: a CPU is quickest where they stay in its cache."""

_TOKEN_STEP, _RESPONSE_STEP = 8, 4


class Script(NamedTuple):
    """The text around the audio and the response, in buckets.

    Attributes:
        prefix_ud: embeddings of what stands before the audio, of which `n_prefix` are real.
        suffix_kd: embeddings of what stands behind it, without the response's last token; `n_suffix` are real.
        targets_r: the response's tokens, of which `n_targets` are real.
    """

    prefix_ud: Float[Array, "U D"]
    suffix_kd: Float[Array, "K D"]
    targets_r: Int[Array, " R"]
    n_prefix: Int[Array, ""]
    n_suffix: Int[Array, ""]
    n_targets: Int[Array, ""]


class WaveformEngine:
    """Log-probabilities of a response under coalitions of the players of its prompt's one recording.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response.
        players: spans of the clip, at the clip's own rate.
        absence: one of `HEARD_ABSENCES`.

    Raises:
        UsageError: an unknown absence, one that the model does not offer, or a conversation of more than one recording.
    """

    def __init__(self, model: Model, inputs: ModelInputs, players: Players, *, absence: str) -> None:
        network: AudioLM = nnx.merge(model.graphdef, model.state)
        self._model, self._hearing = model, hearing_of(model, only_clip(inputs), players, absence)
        self._n_targets = len(inputs.ids_t) - inputs.response_start
        self._script = _script(model, inputs)
        self._decoder = model.decoder
        self._encoder = _Encoder.of(network)

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """Which players are heard at all: coalitions that differ in the others alone are one and the same."""
        return self._hearing.is_audible_p

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Mel frames of each coalition; those of similar length are best computed together."""
        return self._hearing.n_frames(masks_cp)

    def microbatch(self, n_bytes: int | None = None) -> int:
        """How many coalitions to compute at once, so that their activations take about `n_bytes` on a device.

        Without a number: what the devices are quickest with. A power of two for each along the mesh's axis `data`.
        """
        if n_bytes is None:
            n_bytes = CACHE_BYTES if self._model.platform == "cpu" else MEMORY_BYTES
        everybody_1p = np.ones((1, len(self.is_audible_p)), bool)
        most = n_bytes // self._coalition_bytes(self._hearing.bucket(int(self.n_frames(everybody_1p)[0])))
        n_devices = 1 if self._model.mesh is None else self._model.mesh.shape["data"]
        return n_devices << (max(most, 1).bit_length() - 1)

    def log_probs(self, masks_bp: Bool[np.ndarray, "B P"]) -> Float[Array, "B R"]:
        """Log-probability of every token of the response under every coalition, float32, all at once."""
        hearing, encoder, mesh = self._hearing, self._model.config.encoder, self._model.mesh
        n_frames_b = hearing.n_frames(masks_bp).astype(np.int32)
        n_frames = hearing.bucket(int(n_frames_b.max()))
        heard, n_tokens = hearing.hear(masks_bp, n_frames), self._n_tokens(n_frames)
        audio_bad = _hear(self._encoder, heard, n_frames_b, is_settled=hearing.is_settled, mesh=mesh)
        n_audio_b = encoder.n_tokens(jnp.asarray(n_frames_b))
        found_br = _read(self._decoder, self._script, audio_bad, n_audio_b, n_tokens=n_tokens, mesh=mesh)
        return found_br[:, : self._n_targets]

    def cost(self, masks_cp: Bool[np.ndarray, "C P"]) -> dict[str, Any]:
        """Return what different coalitions would run; see `speech_cost`."""
        n_frames_c, size = np.sort(self.n_frames(masks_cp)), self.microbatch()
        buckets = [self._hearing.bucket(int(n_frames_c[i : i + size].max())) for i in range(0, len(n_frames_c), size)]
        n_prefix, n_suffix = int(self._script.n_prefix), int(self._script.n_suffix)
        n_audio_c = np.asarray(self._model.config.encoder.n_tokens(jnp.asarray(n_frames_c)))
        return {
            "decoder_tokens": n_prefix * len(buckets) + int(n_audio_c.sum()) + n_suffix * len(n_frames_c),
            "tokens_one_by_one": (n_prefix + n_suffix) * len(n_frames_c) + int(n_audio_c.sum()),
            "bytes_at_once": size * self._coalition_bytes(max(buckets)),
            "runs": len(buckets),
            "shapes": [
                f"{size} coalitions of {n} frames, {self._n_tokens(n)} tokens behind {n_prefix}"
                for n in sorted({*buckets})
            ],
        }

    def _n_tokens(self, n_frames: int) -> int:
        """T of a bucket of frames."""
        config, n_suffix = self._model.config, int(self._script.n_suffix)
        return round_up(config.encoder.n_tokens(n_frames - config.front_end.room_frames) + n_suffix, _TOKEN_STEP)

    def _coalition_bytes(self, n_frames: int) -> int:
        """About the activations of a coalition where they take most: in a layer, or in the head."""
        config, decoder = self._model.config, self._model.config.decoder
        n_tokens, n_keys = self._n_tokens(n_frames), self._n_tokens(n_frames) + len(self._script.prefix_ud)
        in_layer = n_tokens * (2 * decoder.ffn_width + 6 * decoder.width + decoder.n_heads * n_keys)
        return 4 * max(config.n_activations(n_frames), in_layer, len(self._script.targets_r) * decoder.vocab_size)


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


def _script(model: Model, inputs: ModelInputs) -> Script:
    audio_t = np.flatnonzero(inputs.clip_t >= 0)
    n_audio = model.config.n_audio(len(inputs.clips[0].wave_s))
    layout = layout_row(inputs, round_up(len(inputs.ids_t), TOKEN_STEP))
    rows = np.asarray(_embedded(model.graphdef, model.state, layout, n_audio))
    prefix, suffix = rows[: audio_t[0]], rows[audio_t[-1] + 1 : len(inputs.ids_t) - 1]
    targets = inputs.ids_t[inputs.response_start :]
    padded = (_padded(prefix, _TOKEN_STEP), _padded(suffix, _TOKEN_STEP), _padded(targets, _RESPONSE_STEP))
    return Script(*map(jnp.asarray, padded), *(np.int32(len(part)) for part in (prefix, suffix, targets)))


def _padded(rows: np.ndarray, step: int) -> np.ndarray:
    return np.pad(rows, ((0, round_up(len(rows), step) - len(rows)), *((0, 0),) * (rows.ndim - 1)))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _embedded(graphdef: nnx.GraphDef, state: nnx.State, layout: Layout, n_audio: int) -> Float[Array, "T D"]:
    """Embeddings of a row's text; zeros where audio stands."""
    model: AudioLM = nnx.merge(graphdef, state)
    table = model.decoder.embedding.table[...]
    silent = jnp.zeros((1, 1, n_audio, table.shape[1]), table.dtype)
    return model.place(layout, silent, jnp.array([[n_audio]])).x[0]


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


@functools.partial(jax.jit, static_argnames=("n_tokens", "mesh"))
def _read(
    decoder: Decoder,
    script: Script,
    audio_bad: Float[Array, "B A D"],
    n_audio_b: Int[Array, " B"],
    *,
    n_tokens: int,
    mesh: Mesh | None,
) -> Float[Array, "B R"]:
    """Log-probabilities of the response, rubbish behind its last token."""
    run = functools.partial(_read_rows, n_tokens=n_tokens)
    everywhere, shared = PartitionSpec(), PartitionSpec("data")
    return _over(mesh, run, (everywhere, everywhere, shared, shared))(decoder, script, audio_bad, n_audio_b)


def _over(mesh: Mesh | None, run: Callable[..., Array], parts: tuple[Any, ...]) -> Callable[..., Array]:
    """Share a function's rows along a mesh's axis `data`, and leave the weights' axis to the compiler."""
    if mesh is None:
        return run
    return jax.shard_map(
        run, mesh=mesh, in_specs=parts, out_specs=PartitionSpec("data"), axis_names={"data"}, check_vma=False
    )


def _read_rows(
    decoder: Decoder, script: Script, audio_bad: Float[Array, "B A D"], n_audio_b: Int[Array, " B"], *, n_tokens: int
) -> Float[Array, "B R"]:
    size, n_path, n_before = len(audio_bad), len(script.prefix_ud), decoder.n_before
    n_prefix, end_b1 = script.n_prefix, (n_audio_b + script.n_suffix)[:, None]
    path_1u, token_bt = jnp.arange(n_path)[None], jnp.broadcast_to(jnp.arange(n_tokens), (size, n_tokens))
    before_root = before = None
    if n_before:
        before_root, earlier = _before(path_1u, n_before), _before(n_prefix + token_bt, n_before)
        before = jnp.where(earlier < n_prefix, earlier, n_path + earlier - n_prefix)
    # There is one leaf, as every group is a coalition by itself.
    root = Block(
        script.prefix_ud[None].astype(audio_bad.dtype), path_1u, path_1u, jnp.zeros_like(path_1u),
        (path_1u < n_prefix).astype(jnp.int32), before_root,
    )  # fmt: skip
    groups = Block(
        _behind(script, audio_bad, n_audio_b, token_bt), n_prefix + token_bt, n_prefix + token_bt,
        jnp.zeros_like(token_bt), (token_bt < end_b1).astype(jnp.int32), before,
    )  # fmt: skip
    paths = jnp.broadcast_to(jnp.where(path_1u < n_prefix, path_1u, -1), (size, n_path))
    # Token r is predicted one position before it stands.
    wanted = jnp.minimum(end_b1 - script.n_targets + jnp.arange(len(script.targets_r))[None], n_tokens - 1)
    hidden = run_blocks(decoder, root, groups, paths, wanted)
    targets = jnp.broadcast_to(script.targets_r[None], wanted.shape).reshape(-1)
    return target_log_probs(hidden.reshape(-1, hidden.shape[2]), decoder.table_vd, targets).reshape(size, -1)


def _behind(
    script: Script, audio_bad: Float[Array, "B A D"], n_audio_b: Int[Array, " B"], token_bt: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Embeddings from the audio on: where it ends, the text closes up."""
    (size, n_room), n_text = audio_bad.shape[:2], len(script.suffix_kd)
    text = jnp.broadcast_to(script.suffix_kd[None].astype(audio_bad.dtype), (size, *script.suffix_kd.shape))
    text_bt = n_room + jnp.clip(token_bt - n_audio_b[:, None], 0, n_text - 1)
    index_bt = jnp.where(token_bt < n_audio_b[:, None], jnp.minimum(token_bt, n_room - 1), text_bt)
    return jnp.take_along_axis(jnp.concatenate([audio_bad, text], axis=1), index_bt[:, :, None], axis=1)


def _before(place_bt: Int[Array, "B T"], n_before: int) -> Int[Array, "B T K"]:
    """Places before each, -1 for none."""
    return jnp.maximum(place_bt[:, :, None] - 1 - jnp.arange(n_before)[None, None], -1)
