"""The side of LFM2-Audio that speaks: frames of codes into the decoder, and a decoder's hidden state into a frame.

Upstream: liquid-audio 1.3.0. A frame is one code from each of K codebooks, 80 ms of sound for the Mimi codec. As input
it is the sum of its codes' embeddings; as output its codes are chosen one after another by the depthformer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.config import needed, only
from sgpa_jax.models.depthformer import N_HEADS, Depthformer, LateCastRMSNorm
from sgpa_jax.models.layers import Embedding, Linear
from sgpa_jax.models.sampling import Sampling, choose

N_CODES = 2049
"""Codes of a codebook: the codec's 2048, and the one that ends the audio."""
END_OF_AUDIO = N_CODES - 1


@dataclass(frozen=True, kw_only=True)
class AudioOutConfig:
    """Sizes: `width` is the decoder's, `depth_width` and `n_depth_layers` are the depthformer's.

    `interleave` tells how many text tokens and how many frames alternate where a model writes and speaks in turn.
    """

    width: int
    n_codebooks: int
    depth_width: int
    n_depth_layers: int
    interleave: tuple[int, int] = (6, 12)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], *, width: int) -> "AudioOutConfig":
        """Read the `config.json` of an LFM2-Audio checkpoint whose decoder is `width` wide.

        Raises:
            CheckpointError: a size is missing or impossible, or codebook heads are not tied to their embeddings.
        """
        depthformer = config.get("depthformer")
        if not isinstance(depthformer, Mapping):
            raise CheckpointError(
                f"config.json sets depthformer to {depthformer!r}, but a section was expected; fetch the file again"
            )
        only(depthformer, "depthformer.tie", "tie", (True,), default=True)
        depth_width = needed(depthformer, "depthformer.dim", "dim")
        if depth_width % (2 * N_HEADS):
            raise CheckpointError(
                f"config.json sets depthformer.dim to {depth_width}, but {N_HEADS} heads of even width were expected; "
                "fetch the file again"
            )
        counts = {"interleaved_n_text": 6, "interleaved_n_audio": 12, **config}
        return cls(
            width=width,
            n_codebooks=needed(config, "codebooks", "codebooks"),
            depth_width=depth_width,
            n_depth_layers=needed(depthformer, "depthformer.layers", "layers"),
            interleave=(
                needed(counts, "interleaved_n_text", "interleaved_n_text"),
                needed(counts, "interleaved_n_audio", "interleaved_n_audio"),
            ),
        )


class AudioOut(nnx.Module):
    """Embedding of frames, and their choice."""

    def __init__(self, config: AudioOutConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.codes = Embedding(config.n_codebooks * N_CODES, config.width, rngs=rngs)
        self.depth_input = Linear(config.width, config.n_codebooks * config.depth_width, rngs=rngs)
        self.depthformer = Depthformer(config.depth_width, config.n_depth_layers, rngs=rngs)
        self.codebooks = nnx.List([Codebook(config.depth_width, rngs=rngs) for _ in range(config.n_codebooks)])

    def embed_codes(self, codes: Int[Array, "*batch K"]) -> Float[Array, "*batch D"]:
        """Decoder inputs for frames: the sum over codebooks, accumulated in float32."""
        offsets = (N_CODES * jnp.arange(codes.shape[-1])).reshape((1,) * (codes.ndim - 1) + (-1,))
        rows = self.codes(codes + offsets)
        return rows.astype(jnp.float32).sum(axis=-2).astype(rows.dtype)

    def logits(self, hidden_bd: Float[Array, "B D"], codes_bk: Int[Array, "B K"]) -> Float[Array, "B K V"]:
        """Logits of every code of given frames, each after the codes before it in its frame, float32."""
        x_bkd = self._inputs(hidden_bd)
        before = [
            codebook.embedding(codes_bk[:, k]).astype(x_bkd.dtype) for k, codebook in enumerate(self.codebooks[:-1])
        ]
        before_bkd = jnp.stack([jnp.zeros_like(x_bkd[:, 0]), *before], axis=1)
        y_bkd, _ = self.depthformer(x_bkd + before_bkd)
        return jnp.stack([codebook.logits(y_bkd[:, k]) for k, codebook in enumerate(self.codebooks)], axis=1)

    def frame(
        self, hidden_bd: Float[Array, "B D"], *, sampling: Sampling | None = None, keys_b: PRNGKeyArray | None = None
    ) -> Int[Array, "B K"]:
        """Choose a frame a row, greedily or drawn with a key each; one that ends the audio does so throughout."""
        x_bkd = self._inputs(hidden_bd)
        before_bd, past, codes = jnp.zeros_like(x_bkd[:, 0]), None, []
        for k, codebook in enumerate(self.codebooks):
            y_b1d, past = self.depthformer((x_bkd[:, k] + before_bd)[:, None], past)
            keys = None if keys_b is None else jax.vmap(jax.random.fold_in, (0, None))(keys_b, k)
            code_b = choose(codebook.logits(y_b1d[:, 0]), sampling, keys)
            before_bd = codebook.embedding(code_b).astype(x_bkd.dtype)
            codes.append(code_b)
        codes_bk = jnp.stack(codes, axis=1)
        return jnp.where(codes_bk[:, :1] == END_OF_AUDIO, END_OF_AUDIO, codes_bk)

    def _inputs(self, hidden_bd: Float[Array, "B D"]) -> Float[Array, "B K E"]:
        return self.depth_input(hidden_bd).reshape(hidden_bd.shape[0], self.config.n_codebooks, -1)


class Codebook(nnx.Module):
    """The codes of one codebook: their embeddings, which are the head as well, and the norm before it."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.embedding = Embedding(N_CODES, width, rngs=rngs)
        self.norm = LateCastRMSNorm(width)

    def logits(self, y: Float[Array, "B D"]) -> Float[Array, "B V"]:
        """Score every code."""
        return self.embedding.logits(self.norm(y))
