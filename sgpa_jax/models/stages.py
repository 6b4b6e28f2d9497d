"""The stages of our networks one by one, each a function of what the stage before it gave, for comparisons."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sgpa_jax.audio import Clip
from sgpa_jax.models.audio_lm import AudioLM, Layout
from sgpa_jax.models.fastconformer import FastConformer, FastConformerLayer, relative_positions
from sgpa_jax.models.inputs import ModelInputs, layout_row
from sgpa_jax.models.lfm2 import Lfm2Layer
from sgpa_jax.models.model import Model
from sgpa_jax.models.order import Order, causal_order
from sgpa_jax.models.qwen2 import Qwen2Layer
from sgpa_jax.models.wav2vec2 import Wav2Vec2, Wav2Vec2Conv, Wav2Vec2Layer, normalised
from sgpa_jax.models.whisper_encoder import WhisperEncoder, WhisperLayer


class Step(NamedTuple):
    """A stage: its name, what it makes of `[1, T, D]` (the first of them of None), and how many positions are real."""

    name: str
    run: Callable[[Any], Array]
    n: int | None = None


def audio_lm_stages(model: Model, inputs: ModelInputs) -> Iterator[Step]:
    """Yield the stages of an audio language model on a prompt of one clip, up to the norm behind the last layer."""
    (clip,), sizes = inputs.clips, model.config
    network: AudioLM = nnx.merge(model.graphdef, model.state)
    encoder, decoder = network.encoder, network.decoder
    dtype = network.projector.first.kernel.dtype
    n_samples, n_tokens = len(clip.wave_s), len(inputs.ids_t)
    n_frames, n_audio = sizes.front_end.n_frames(n_samples), sizes.n_audio(n_samples)
    n_frames_b, layout = jnp.array([n_frames]), layout_row(inputs, n_tokens)
    order = causal_order(jnp.ones((1, n_tokens), bool))

    def features(_: None) -> Array:
        wave_s = np.pad(clip.wave_s, (0, model.padded_samples(n_samples) - n_samples))
        return _features(sizes.front_end, jnp.asarray(wave_s)[None], jnp.array([n_samples]))

    def step(name: str, module: nnx.Module, run: Callable[..., Array], n: int, *rest: Any) -> Step:
        graphdef, state = nnx.split(module)
        return Step(name, lambda x: _run(run, graphdef, state, jnp.asarray(x, dtype), *rest), n)

    yield Step("features", features, n_frames)
    if isinstance(encoder, WhisperEncoder):
        hears_all = encoder.config.pool == "norm_stack4"
        n_encoded, through = encoder.config.max_positions if hears_all else (n_frames - 1) // 2 + 1, _whisper_layer
    else:
        n_encoded, through = n_audio, _fastconformer_layer
    yield step("encoder.inputs", _without_layers(encoder), _frames, n_encoded, n_frames_b)
    for i, layer in enumerate(encoder.layers):
        yield step(f"encoder.layers.{i}", layer, through, n_encoded, jnp.array([n_encoded]))
    if isinstance(encoder, WhisperEncoder):
        yield step("encoder.pool", encoder, _pool, n_audio)
    yield step("projector", network.projector, _call, n_audio)
    yield step("decoder.inputs", network, _placed, n_tokens, layout, jnp.array([[n_audio]]))
    for i, layer in enumerate(decoder.layers):
        yield step(f"decoder.layers.{i}", layer, _decoder_layer, n_tokens, order)
    yield step("decoder.norm", decoder.norm, _call, n_tokens)


def audio_codes_logits(model: Model, hidden: Float[np.ndarray, "1 D"], codes: tuple[int, ...]) -> np.ndarray:
    """Logits of every code of a frame after the codes before it in the frame: float32[K, V]."""
    audio_out = nnx.merge(model.graphdef, model.state).audio_out
    dtype = audio_out.depth_input.kernel.dtype
    return np.asarray(audio_out.logits(jnp.asarray(hidden, dtype), jnp.array([codes], jnp.int32)))[0]


def wav2vec2_stages(network: Wav2Vec2, clip: Clip, *, normalise: bool) -> Iterator[Step]:
    """Yield the stages of a wav2vec2 on one recording, up to the last layer."""
    n_samples = len(clip.wave_s)
    dtype = network.projection.kernel.dtype

    def features(_: None) -> Array:
        wave_bs = jnp.asarray(clip.wave_s)[None]
        return (normalised(wave_bs, jnp.array([n_samples])) if normalise else wave_bs)[:, :, None]

    def step(name: str, module: nnx.Module, run: Callable[..., Array]) -> Step:
        graphdef, state = nnx.split(module)
        return Step(name, lambda x: _run(run, graphdef, state, jnp.asarray(x, dtype)))

    yield Step("features", features)
    for i, convolution in enumerate(network.convolutions):
        yield step(f"convolutions.{i}", convolution, _convolution)
    yield step("projection", _Projection(network), _call)
    yield step("encoder.inputs", _Positions(network), _call)
    for i, layer in enumerate(network.layers):
        yield step(f"encoder.layers.{i}", layer, _wav2vec2_layer)


class _Projection(nnx.Module):
    def __init__(self, network: Wav2Vec2):
        self.norm, self.projection = network.feature_norm, network.projection

    def __call__(self, x: Array) -> Array:
        return self.projection(self.norm(x))


class _Positions(nnx.Module):
    def __init__(self, network: Wav2Vec2):
        self.positions, self.norm = network.positions, None if network.config.norm_first else network.norm

    def __call__(self, x: Array) -> Array:
        x = x + self.positions(x)
        return x if self.norm is None else self.norm(x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(run: Callable[..., Array], graphdef: nnx.GraphDef, state: nnx.State, x: Array, *rest: Any) -> Array:
    # Compiled once for all layers of a kind.
    return run(nnx.merge(graphdef, state), x, *rest)


@functools.partial(jax.jit, static_argnums=0)
def _features(front_end: Any, wave_bs: Array, n_samples_b: Array) -> Array:
    return front_end.features(wave_bs, n_samples_b)


def _without_layers(encoder: WhisperEncoder | FastConformer) -> WhisperEncoder | FastConformer:
    """Return an encoder of the same parameters that only gets as far as its first layer."""
    encoder = nnx.merge(*nnx.split(encoder))
    encoder.layers = nnx.List([])
    return encoder


def _call(module: Callable[[Array], Array], x: Array) -> Array:
    return module(x)


def _frames(encoder: WhisperEncoder | FastConformer, mel: Array, n_frames_b: Array) -> Array:
    if isinstance(encoder, WhisperEncoder):
        mel = mel[:, : 2 * encoder.config.max_positions]  # a bucket may be longer than the window
    return encoder.frames(mel, n_frames_b)


def _pool(encoder: WhisperEncoder, x: Array) -> Array:
    return encoder.pool(x)


def _whisper_layer(layer: WhisperLayer, x: Array, n_b: Array) -> Array:
    return layer(x, _exists(x, n_b))


def _fastconformer_layer(layer: FastConformerLayer, x: Array, n_b: Array) -> Array:
    return layer(x, relative_positions(x.shape[1], x.shape[2]).astype(x.dtype), _exists(x, n_b))


def _exists(x: Array, n_b: Array) -> Array:
    return jnp.arange(x.shape[1])[None, :] < n_b[:, None]


def _placed(network: AudioLM, audio: Array, layout: Layout, n_audio_bn: Array) -> Array:
    return network.place(layout, audio[:, None], n_audio_bn).x


def _decoder_layer(layer: Qwen2Layer | Lfm2Layer, x: Array, order: Order) -> Array:
    return layer(x, order)[0]


def _convolution(convolution: Wav2Vec2Conv, x: Array) -> Array:
    return convolution(x, jnp.array([x.shape[1]]))[0]


def _wav2vec2_layer(layer: Wav2Vec2Layer, x: Array) -> Array:
    return layer(x, jnp.ones(x.shape[:2], bool))
