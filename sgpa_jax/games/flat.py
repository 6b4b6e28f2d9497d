"""The flat engine: every coalition is a row of its own, with nothing shared. What the other engines must equal.

Pure and differentiable; for the absence `embedding` a mask may be soft, a number in [0, 1] for each player.
Axes: `C` coalitions, `P` players, `T` tokens, `R` tokens of the response.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.games.passage import Passage
from sgpa_jax.games.readout import Readout
from sgpa_jax.models import Decoder, Order, fold_layers


def flat_hidden(
    decoder: Decoder,
    passage: Passage,
    masks_cp: Bool[Array, "C P"] | Float[Array, "C P"],
    *,
    after_layer: int | None = None,
) -> Float[Array, "C T D"]:
    """Return the normed final hidden state of every token, or the residual stream after a layer.

    Rows of absent tokens hold values that nobody may read. Masks that are not boolean are soft.
    """
    there_ct = _there(passage, masks_cp)
    x_ctd = jnp.broadcast_to(passage.x_td[None], (len(masks_cp), *passage.x_td.shape))
    replaced_t = passage.absent_t("embedding")
    if replaced_t.any():
        assert passage.baseline_td is not None
        weight = jnp.where(replaced_t[None], there_ct.astype(x_ctd.dtype), 1)[:, :, None]
        x_ctd = weight * x_ctd + (1 - weight) * passage.baseline_td[None].astype(x_ctd.dtype)
    order = order_of(passage, there_ct.astype(bool) | replaced_t[None], decoder.n_before)
    n_layers = None if after_layer is None else after_layer + 1
    x_ctd = fold_layers(decoder, lambda layer, params, x: layer(params, x, order)[0], x_ctd, n_layers=n_layers)
    return x_ctd if after_layer is not None else decoder.norm(decoder.norm_params, x_ctd)


def evaluate_flat(
    decoder: Decoder,
    passage: Passage,
    masks_cp: Bool[Array, "C P"] | Float[Array, "C P"],
    *,
    readout: Readout | None = None,
) -> Float[Array, "C K"]:
    """Return the log-probability of every token of the response under every coalition, or what a readout reads.

    Raises:
        UsageError: a readout of a layer that is not there.
    """
    if readout is not None:
        readout.check(decoder)
    n_targets = len(passage.targets_r)
    hidden_ctd = flat_hidden(decoder, passage, masks_cp, after_layer=None if readout is None else readout.after_layer)
    if readout is not None:
        scored_t = np.arange(len(passage.owner_t)) >= len(passage.owner_t) - n_targets
        runs_ct = _there(passage, masks_cp).astype(bool)
        runs_ct = (runs_ct | passage.absent_t("embedding")[None]) & passage.is_audio_t[None]
        there_ct = runs_ct if readout.positions == "audio" else jnp.broadcast_to(scored_t[None], runs_ct.shape)
        return readout(hidden_ctd, there_ct[:, None])[:, 0]
    logits = jnp.einsum("crd,vd->crv", hidden_ctd[:, -n_targets:], decoder.table_vd, preferred_element_type=jnp.float32)
    targets = jnp.broadcast_to(jnp.asarray(passage.targets_r)[None, :, None], (len(masks_cp), n_targets, 1))
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), targets, axis=-1)[:, :, 0]


def _there(passage: Passage, masks_cp: Array) -> Array:
    """The masks by token; who owns none is always there."""
    always_c1 = jnp.ones((len(masks_cp), 1), masks_cp.dtype)
    return jnp.concatenate([masks_cp, always_c1], axis=1)[:, passage.owner_t]


def order_of(passage: Passage, runs_ct: Bool[Array, "C T"], n_before: int) -> Order:
    """Return how the tokens of a passage follow one another where only some of them run."""
    closes_t, skipped_t = passage.absent_t("drop"), passage.absent_t("drop") | passage.absent_t("drop_keep")
    return order_without(runs_ct, ~runs_ct & skipped_t[None], ~runs_ct & closes_t[None], n_before)


def order_without(
    runs_ct: Bool[Array, "C T"], skipped_ct: Bool[Array, "C T"], closes_ct: Bool[Array, "C T"], n_before: int
) -> Order:
    """Return how tokens follow one another, of which some do not run.

    Of these, convolutions hear those as zeros that are not `skipped_ct`, and positions close up over `closes_ct`.
    """
    n_tokens = runs_ct.shape[1]
    mask = jnp.tril(jnp.ones((n_tokens, n_tokens), bool))[None] & runs_ct[:, None, :]
    before = earlier_of(runs_ct, skipped_ct, n_before) if n_before else None
    return Order(positions_of(closes_ct), mask, before)


def positions_of(closes_ct: Bool[Array, "C T"]) -> Int[Array, "C T"]:
    """Positions of tokens that close up over some of them."""
    return jnp.arange(closes_ct.shape[1])[None] - jnp.cumsum(closes_ct, axis=1) + closes_ct.astype(jnp.int32)


def earlier_of(runs_ct: Bool[Array, "C T"], skipped_ct: Bool[Array, "C T"], n_before: int) -> Int[Array, "C T K"]:
    """Pointers of a convolution to the tokens that are not skipped; those which do not run are heard as zeros."""
    n_tokens = runs_ct.shape[1]
    places = jnp.arange(n_tokens)[None]
    latest, pointers = jnp.broadcast_to(places, runs_ct.shape), []
    # The latest token that is not skipped, at or before each place; -1 where there is none.
    unskipped = jax.lax.cummax(jnp.where(skipped_ct, -1, places), axis=1)
    for _ in range(n_before):
        earlier = jnp.take_along_axis(unskipped, jnp.maximum(latest - 1, 0), axis=1)
        latest = jnp.where(latest >= 1, earlier, -1)
        pointers.append(jnp.where(jnp.take_along_axis(runs_ct, jnp.maximum(latest, 0), axis=1), latest, -1))
    return jnp.stack(pointers, axis=-1)
