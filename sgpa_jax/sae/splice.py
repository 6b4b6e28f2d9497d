"""What the model makes of its answer when an autoencoder stands in for the residual stream at audio positions.

`ce_recovered` is (CE_ablated − CE_spliced) / (CE_ablated − CE_clean), with the cross-entropy on the answer's tokens,
and with the mean of the residual stream (or zeros) in its place as the ablation: 1 if the reconstruction does as well
as what it stands for, 0 if it does no better than nothing at all. Axes: `B` = 1, `T` tokens, `D` width, `M` latents.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.errors import UsageError
from sgpa_jax.models import NO_CLIP, AudioLM, Model, ModelInputs, Placed
from sgpa_jax.sae.decode import reconstruct
from sgpa_jax.sae.state import SAEState


@dataclass(frozen=True)
class Spliced:
    """Mean cross-entropies of the answers' tokens, in nats, and what they come to.

    Attributes:
        n_answer_tokens: tokens of the answers.
        clean, spliced, mean_ablated, zero_ablated: cross-entropies with the residual stream as it is, rebuilt, replaced
            by its mean, and by zeros.
        kl: mean KL divergence of the spliced model's next-token distribution from the clean one's.
    """

    n_answer_tokens: int
    clean: float
    spliced: float
    mean_ablated: float
    zero_ablated: float
    kl: float

    @property
    def ce_recovered(self) -> float:
        """Against the mean's ablation; not a number where that changes nothing."""
        return _share(self.mean_ablated, self.spliced, self.clean)

    @property
    def ce_recovered_zero(self) -> float:
        """Against the ablation by zeros."""
        return _share(self.zero_ablated, self.spliced, self.clean)

    def to_dict(self) -> dict[str, float]:
        """All figures."""
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return figures | {"ce_recovered": self.ce_recovered, "ce_recovered_zero": self.ce_recovered_zero}


def splice(
    model: Model,
    sae: SAEState,
    layer: int,
    answered: Iterable[ModelInputs],
    *,
    mean_d: Float[np.ndarray, " D"] | Array,
) -> Spliced:
    """Splice an autoencoder into the model after a layer, at the audio positions of prepared, answered conversations.

    Args:
        model: whose answers they are.
        sae: takes the residual stream's own numbers (`TrainedSAE.folded`).
        layer: counted from 0.
        answered: conversations with a response.
        mean_d: mean of the residual stream there.

    Raises:
        UsageError: a conversation has no response, or there are none.
    """
    sums, n_tokens = np.zeros(5), 0
    for inputs in answered:
        n = len(inputs.ids_t) - inputs.response_start
        if n == 0:
            raise UsageError("a conversation has no response, whose tokens are to be predicted; give one to each")
        placed = model.place(inputs)
        room = placed.x.shape[1] - len(inputs.ids_t)
        is_audio_t, ids_t = np.pad(inputs.clip_t != NO_CLIP, (0, room)), np.pad(inputs.ids_t, (0, room))
        place_t = np.arange(len(ids_t))
        is_answer_t = (place_t >= inputs.response_start) & (place_t < len(inputs.ids_t))
        found = _sums(
            model.graphdef, model.state, sae, layer, placed, is_audio_t, ids_t, is_answer_t,
            jnp.asarray(mean_d, jnp.float32),
        )  # fmt: skip
        sums += np.asarray(found, np.float64)
        n_tokens += n
    if n_tokens == 0:
        raise UsageError("there are no conversations to splice the autoencoder into; give at least one")
    return Spliced(n_tokens, *(float(value) for value in sums / n_tokens))


def _share(ablated: float, spliced: float, clean: float) -> float:
    return float("nan") if ablated == clean else (ablated - spliced) / (ablated - clean)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _sums(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    sae: SAEState,
    layer: int,
    placed: Placed,
    is_audio_t: Bool[Array, " T"],
    ids_t: Int[Array, " T"],
    is_answer_t: Bool[Array, " T"],
    mean_d: Float[Array, " D"],
) -> Float[Array, " 5"]:
    """Summed over the answer's tokens: four cross-entropies and the divergence."""
    model: AudioLM = nnx.merge(graphdef, state)

    def log_probs(instead: Callable[[Array], Array] | None) -> Array:
        def edit(i: int, residual_btd: Array) -> Array:
            if i != layer or instead is None:
                return residual_btd
            there = jnp.broadcast_to(is_audio_t[None, :, None], residual_btd.shape)
            return jnp.where(there, instead(residual_btd).astype(residual_btd.dtype), residual_btd)

        return jax.nn.log_softmax(model.decoder.logits(model.hidden(placed, edit=edit))[0].astype(jnp.float32))

    def whole(row_d: Array) -> Callable[[Array], Array]:
        return lambda residual_btd: jnp.broadcast_to(row_d[None, None], residual_btd.shape)

    def entropy(log_probs_tv: Array) -> Array:
        # A token is predicted at the position before it.
        said_t = jnp.take_along_axis(log_probs_tv[:-1], ids_t[1:, None], axis=1)[:, 0]
        return -jnp.where(is_answer_t[1:], said_t, 0.0).sum()

    clean_tv, spliced_tv = log_probs(None), log_probs(lambda residual_btd: reconstruct(sae, residual_btd))
    apart_t = (jnp.exp(clean_tv) * (clean_tv - spliced_tv)).sum(axis=1)[:-1]
    ablated = [entropy(log_probs(whole(row_d))) for row_d in (mean_d, jnp.zeros_like(mean_d))]
    divergence = jnp.where(is_answer_t[1:], apart_t, 0.0).sum()
    return jnp.stack([entropy(clean_tv), entropy(spliced_tv), *ablated, divergence])
