"""The pocket aligner: a small convolutional network that hears which phone and which letter is spoken when.

A log-mel spectrogram (80 bands, 10 ms) is normalised over the utterance, stacked in pairs to 20 ms, and passed through
residual dilated convolutions. Two heads read the trunk: letters for CTC, one distribution every 20 ms (the path of the
paper, section 3.1), and phones, one distribution every 10 ms, trained on the exact times of synthesised speech.
Frame `t` of either covers `[t, t + 1) * frame_s`, measured from the start of the clip. English only.
"""

import functools
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sgpa_checkpoints
from flax import nnx
from jaxtyping import Array, Float, Int

from sgpa_jax.audio import SAMPLES_STEP_S, Clip, round_up
from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.config import strict
from sgpa_jax.models.emissions import Emissions

RATE_HZ = 16000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
N_MELS = 80
FRAME_S = HOP_SAMPLES / RATE_HZ
# Anything this far below the loudest band of the clip (natural log of power, about 65 dB) is inaudible next to it;
# clipping there keeps digital silence from becoming an outlier of the normalisation.
_DYNAMIC_RANGE = 15.0
_FFT_SAMPLES = 512
# Far below the range kept of even a faint clip; only digital silence meets it.
_POWER_FLOOR = 1e-15
_LONGEST_LEXICON = 2**28


@dataclass(frozen=True)
class AlignerConfig:
    """Sizes and labels of the network; `prior_weight` and `log_prior` correct phone posteriors (see `emissions`)."""

    width: int
    taps: int
    dilations: tuple[int, ...]
    phones: tuple[str, ...]
    characters: tuple[str, ...]
    log_prior: tuple[float, ...]
    prior_weight: float


class Block(nnx.Module):
    """Residual block: LayerNorm, dilated convolution over time (shifted copies, one matmul), GELU, linear."""

    def __init__(self, width: int, taps: int, dilation: int, *, rngs: nnx.Rngs) -> None:
        """Make the layers; `taps` is odd and centred."""
        self.shifts = tuple((tap - taps // 2) * dilation for tap in range(taps))
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.mix = nnx.Linear(taps * width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x_btd: Float[Array, "B T D"], mask_bt1: Float[Array, "B T 1"]) -> Float[Array, "B T D"]:
        """Add the block's output; frames where the mask is 0 are silent to every other frame."""
        hidden_btd = self.norm(x_btd) * mask_bt1
        near = jnp.concatenate([_shifted(hidden_btd, shift) for shift in self.shifts], axis=-1)
        return x_btd + self.out(jax.nn.gelu(self.mix(near), approximate=False))


class AlignerNetwork(nnx.Module):
    """Normalised log-mel frames in, phone logits every 10 ms and character logits every 20 ms out."""

    def __init__(self, config: AlignerConfig, *, rngs: nnx.Rngs) -> None:
        """Make the layers with random parameters."""
        self.stem = nnx.Linear(2 * N_MELS, config.width, rngs=rngs)
        self.blocks = nnx.List([Block(config.width, config.taps, dilation, rngs=rngs) for dilation in config.dilations])
        self.norm = nnx.LayerNorm(config.width, epsilon=1e-5, rngs=rngs)
        self.phone_head = nnx.Linear(config.width, 2 * len(config.phones), rngs=rngs)
        self.character_head = nnx.Linear(config.width, len(config.characters), rngs=rngs)

    def __call__(
        self, mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, "B"]
    ) -> tuple[Float[Array, "B F V"], Float[Array, "B T W"]]:
        """Return logits of phones `[B, F, V]` and characters `[B, F / 2, W]`; F is even, n_frames of it count."""
        n_batch, n_frames, _ = mel_bfm.shape
        mask_bt1 = (jnp.arange(0, n_frames, 2)[None, :] < n_frames_b[:, None]).astype(mel_bfm.dtype)[:, :, None]
        x_btd = self.stem(mel_bfm.reshape(n_batch, n_frames // 2, -1))
        for block in self.blocks:
            x_btd = block(x_btd, mask_bt1)
        x_btd = self.norm(x_btd)
        return self.phone_head(x_btd).reshape(n_batch, n_frames, -1), self.character_head(x_btd)


def log_mel(wave_bs: Float[Array, "B S"]) -> Float[Array, "B F M"]:
    """Return the log power in 80 mel bands (natural log, Slaney's scale, 0 to 8 kHz), one frame every 10 ms.

    `wave_bs` is float32 at 16 kHz, S a multiple of 160, zero past the end of each clip. Frame f is centred on the
    middle of `[f, f + 1) * 10 ms`, so that a label of that interval is a label of the frame.
    """
    n_frames = wave_bs.shape[1] // HOP_SAMPLES
    before = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
    padded_bs = jnp.pad(wave_bs, ((0, 0), (before, WINDOW_SAMPLES)))
    samples_fw = np.arange(n_frames)[:, None] * HOP_SAMPLES + np.arange(WINDOW_SAMPLES)[None, :]
    window_w = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)).astype(np.float32)
    spectrum = jnp.fft.rfft(padded_bs[:, samples_fw] * window_w[None, None, :], n=_FFT_SAMPLES)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.log(power @ _mel_filters() + _POWER_FLOOR)


def normalise(mel_bfm: Float[Array, "B F M"], n_frames_b: Int[Array, "B"]) -> Float[Array, "B F M"]:
    """Make log-mel independent of level and channel: every band to mean 0, all together to deviation 1.

    Statistics are taken over the first `n_frames_b` frames only, the others become 0: padding changes nothing.
    """
    valid_bf1 = (jnp.arange(mel_bfm.shape[1])[None, :] < n_frames_b[:, None])[:, :, None]
    count_b11 = n_frames_b.astype(mel_bfm.dtype)[:, None, None]
    loudest_b11 = jnp.max(jnp.where(valid_bf1, mel_bfm, -jnp.inf), axis=(1, 2), keepdims=True)
    x_bfm = jnp.maximum(mel_bfm, loudest_b11 - _DYNAMIC_RANGE)
    mean_b1m = jnp.sum(jnp.where(valid_bf1, x_bfm, 0.0), axis=1, keepdims=True) / count_b11
    x_bfm = jnp.where(valid_bf1, x_bfm - mean_b1m, 0.0)
    variance_b11 = jnp.sum(jnp.square(x_bfm), axis=(1, 2), keepdims=True) / (count_b11 * mel_bfm.shape[2])
    return x_bfm * jax.lax.rsqrt(variance_b11 + 1e-3)


def count_frames(n_samples: int) -> int:
    """Return how many 10 ms frames cover `n_samples` at 16 kHz, the last one possibly in part."""
    return -(-n_samples // HOP_SAMPLES)


class PocketAligner:
    """The trained network with its lexicon, as an acoustic model for `sgpa_jax.align`."""

    rate_hz = RATE_HZ
    transcribes = False

    def __init__(
        self,
        network: AlignerNetwork,
        config: AlignerConfig,
        *,
        lexicon: Mapping[str, tuple[tuple[str, ...], ...]],
        name: str,
        digest: str,
    ) -> None:
        """Hold a network whose parameters are set; `digest` names everything that its emissions depend on."""
        self.config = config
        self.lexicon = lexicon
        self.name = name
        self.digest = digest
        self._graph, self._state = nnx.split(network)

    @classmethod
    def from_folder(cls, folder: Path, *, name: str = "pocket") -> "PocketAligner":
        """Read `config.json`, `model.safetensors` and `lexicon.txt.gz`.

        Raises:
            sgpa_checkpoints.FormatError: a file is missing or damaged, or the tensors are not the configuration's.
        """
        try:
            config = _config(sgpa_checkpoints.read_json(folder / "config.json"))
            lexicon = parse_lexicon((folder / "lexicon.txt.gz").read_bytes())
        except (OSError, EOFError, KeyError, UnicodeDecodeError, zlib.error, CheckpointError) as error:
            raise sgpa_checkpoints.FormatError(
                f"{folder} is no pocket aligner ({error}): expected config.json and lexicon.txt.gz; give its folder"
            ) from error
        network = nnx.eval_shape(lambda: AlignerNetwork(config, rngs=nnx.Rngs(0)))
        slots = parameters(network)
        rules = [sgpa_checkpoints.Rule(path, path) for path in slots]
        shapes = {path: slot.shape for path, slot in slots.items()}
        for path, array in sgpa_checkpoints.convert(sgpa_checkpoints.read_tensors(folder), rules, shapes):
            slots[path].set_value(jnp.asarray(array, jnp.float32))
        digest = sgpa_checkpoints.folder_digest(folder)
        return cls(network, config, lexicon=lexicon, name=name, digest=digest)

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        """Return, per clip, log-probabilities of characters ("character", CTC, 20 ms) and phones ("phone", 10 ms).

        The phones' are log-posteriors less `prior_weight` times the log of how often each occurred in training: a
        Viterbi search over them would otherwise favour long silences and frequent phones (hybrid HMMs do the same).
        """
        return [self._emissions(clip.at_rate(RATE_HZ)) for clip in clips]

    def _emissions(self, clip: Clip) -> dict[str, Emissions]:
        n_samples = len(clip.wave_s)
        n_frames = count_frames(n_samples)
        padded = np.zeros(round_up(n_samples, round(SAMPLES_STEP_S * RATE_HZ)), np.float32)
        padded[:n_samples] = clip.wave_s
        n_frames_b = np.array([n_frames], np.int32)
        phones_bfv, characters_btv = _log_probs(self._graph, self._state, padded[None, :], n_frames_b)
        prior_v = self.config.prior_weight * np.array(self.config.log_prior, np.float32)
        phones_fv = np.asarray(phones_bfv)[0, :n_frames] - prior_v[None, :]
        characters_tv = np.asarray(characters_btv)[0, : -(-n_frames // 2)]
        return {
            "character": Emissions(characters_tv, 2 * FRAME_S, 0.0, self.config.characters, 0),
            "phone": Emissions(phones_fv, FRAME_S, 0.0, self.config.phones, None),
        }


@strict
def _config(content: dict[str, Any]) -> AlignerConfig:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["network"].items()
    }
    return AlignerConfig(**fields)


def parse_lexicon(data: bytes) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Read a gzipped lexicon, lines `word<TAB>p h o n e s|o th er`, into word -> pronunciations.

    Raises:
        OSError, EOFError, zlib.error, UnicodeDecodeError: the data are not gzip of UTF-8, or cut short.
        KeyError: a line without a tab.
    """
    lexicon = {}
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        text = file.read(_LONGEST_LEXICON + 1)
    if len(text) > _LONGEST_LEXICON:
        raise OSError(f"the lexicon unpacks to more than {_LONGEST_LEXICON} bytes")
    for line in text.decode("utf-8").splitlines():
        word, tab, spoken = line.partition("\t")
        if not tab:
            raise KeyError(f"lexicon line {line!r} has no pronunciation")
        lexicon[word] = tuple(tuple(phones.split()) for phones in spoken.split("|"))
    return lexicon


def parameters(network: AlignerNetwork) -> dict[str, nnx.Param]:
    """Return the network's parameters under dotted names such as `blocks.0.mix.kernel`."""
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param))}


def _shifted(x_btd: Float[Array, "B T D"], shift: int) -> Float[Array, "B T D"]:
    """Return frame t + shift at t, zeros where there is none."""
    n_frames = x_btd.shape[1]
    if abs(shift) >= n_frames:
        return jnp.zeros_like(x_btd)
    if shift >= 0:
        return jnp.pad(x_btd[:, shift:], ((0, 0), (0, shift), (0, 0)))
    return jnp.pad(x_btd[:, :shift], ((0, 0), (-shift, 0), (0, 0)))


def _mel_filters() -> Float[np.ndarray, "N M"]:
    """Triangles of equal area, linear in hertz below 1 kHz and logarithmic above (Slaney's Auditory Toolbox)."""
    step = np.log(6.4) / 27.0
    top = 15.0 + np.log(RATE_HZ / 2 / 1000.0) / step
    mels = np.linspace(0.0, top, N_MELS + 2)
    edges_hz = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp(step * (mels - 15.0)))
    bins_hz = np.linspace(0.0, RATE_HZ / 2, _FFT_SAMPLES // 2 + 1)[:, None]
    low, centre, high = edges_hz[None, :-2], edges_hz[None, 1:-1], edges_hz[None, 2:]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return (np.maximum(triangles, 0.0) * 2.0 / (high - low)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(
    graphdef: nnx.GraphDef, state: nnx.State, wave_bs: Float[Array, "B S"], n_frames_b: Int[Array, "B"]
) -> tuple[Float[Array, "B F V"], Float[Array, "B T W"]]:
    # Compiled once for all aligners of one architecture: loading another one costs nothing.
    network = nnx.merge(graphdef, state)
    phones_bfv, characters_btv = network(normalise(log_mel(wave_bs), n_frames_b), n_frames_b)
    return jax.nn.log_softmax(phones_bfv), jax.nn.log_softmax(characters_btv)
