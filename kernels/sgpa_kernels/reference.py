"""The definition of correct: what the kernels compute, written down as in a textbook and in no hurry.

Axes: `N` = 2^P coalitions (bit `i` of the row's index = player `i`), `P` players, `K` outputs; of networks `N` or
`B` rows, `T` tokens, `U` tokens that are looked at, `H` query heads, `G` key heads, `D` width, `V` vocabulary.
"""

from collections.abc import Callable
from math import factorial

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int


def exact_shapley_reference(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "P *K"]:
    """Return the Shapley values of a game given by all of its values, float64[P] or float64[P, K].

    φ_i = Σ over coalitions S without i of |S|! (P - |S| - 1)! / P! · (v(S ∪ i) - v(S)).
    """
    values = np.asarray(values, np.float64)
    n_players = len(values).bit_length() - 1
    shapley = np.zeros((n_players, *values.shape[1:]))
    for player in range(n_players):
        for coalition in range(len(values)):
            if coalition >> player & 1:
                continue
            size = coalition.bit_count()
            weight = factorial(size) * factorial(n_players - size - 1) / factorial(n_players)
            shapley[player] += weight * (values[coalition | 1 << player] - values[coalition])
    return shapley


def exact_banzhaf_reference(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "P *K"]:
    """Return the Banzhaf values, float64[P] or float64[P, K]: the mean of v(S ∪ i) - v(S) over the S without i."""
    values = np.asarray(values, np.float64)
    rows_n = np.arange(len(values))
    lacking = [rows_n[rows_n >> player & 1 == 0] for player in range(len(values).bit_length() - 1)]
    return np.stack([(values[rows | 1 << i] - values[rows]).mean(axis=0) for i, rows in enumerate(lacking)])


def moebius_reference(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]:
    """Return Σ_{T⊆S} (-1)^(|S|-|T|) v(T) for each coalition S, float64."""
    return _alternating_sums(values, lambda inside, _: inside)


def co_moebius_reference(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]:
    """Return Σ_{T⊆S} (-1)^(|S|-|T|) v(N∖S ∪ T) for each coalition S, float64."""
    return _alternating_sums(values, lambda inside, coalition: inside | (len(values) - 1 - coalition))


def walsh_hadamard_reference(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]:
    """Return the mean over T of (-1)^|S∩T| v(T) for each coalition S, float64."""
    rows_n = np.arange(len(values))
    signs_nn = 1.0 - 2.0 * (np.bitwise_count(rows_n[:, None] & rows_n[None, :]) % 2)
    return signs_nn @ np.asarray(values, np.float64) / len(values)


def target_log_probs_reference(
    hidden_nd: Float[ArrayLike, "N D"], table_vd: Float[ArrayLike, "V D"], targets_n: Int[ArrayLike, " N"]
) -> Float[np.ndarray, " N"]:
    """Return log softmax(hidden @ table.T) at each row's target, float64[N]."""
    logits_nv = np.asarray(hidden_nd, np.float64) @ np.asarray(table_vd, np.float64).T
    logits_nv -= logits_nv.max(axis=1, keepdims=True)
    log_probs_nv = logits_nv - np.log(np.exp(logits_nv).sum(axis=1, keepdims=True))
    return log_probs_nv[np.arange(len(log_probs_nv)), np.asarray(targets_n)]


def tree_attention_reference(
    query: Float[ArrayLike, "B T H D"],
    key: Float[ArrayLike, "B U G D"],
    value: Float[ArrayLike, "B U G D"],
    query_first_bt: Int[ArrayLike, "B T"],
    query_place_bt: Int[ArrayLike, "B T"],
    key_first_bu: Int[ArrayLike, "B U"],
    key_last_bu: Int[ArrayLike, "B U"],
    key_place_bu: Int[ArrayLike, "B U"],
) -> Float[np.ndarray, "B T W"]:
    """Return what each query finds among the keys that it sees, float64[B, T, H * D]; zeros where it sees none.

    Query q sees key k if first_k <= first_q < last_k and place_k <= place_q.
    """
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    n_rows, n_queries, n_heads, width = query.shape
    group, found = n_heads // key.shape[2], np.zeros(query.shape)
    query_first, query_place = np.asarray(query_first_bt), np.asarray(query_place_bt)
    first, last, place = (np.asarray(array) for array in (key_first_bu, key_last_bu, key_place_bu))
    for b, t in np.ndindex(n_rows, n_queries):
        sees = (first[b] <= query_first[b, t]) & (query_first[b, t] < last[b]) & (place[b] <= query_place[b, t])
        for head in range(n_heads if sees.any() else 0):
            scores = key[b, sees, head // group] @ query[b, t, head] / np.sqrt(width)
            weights = np.exp(scores - scores.max())
            found[b, t, head] = weights / weights.sum() @ value[b, sees, head // group]
    return found.reshape(n_rows, n_queries, n_heads * width)


def gated_short_conv_reference(
    inputs_bud: Float[ArrayLike, "B U D"],
    gate_btd: Float[ArrayLike, "B T D"],
    kernel_kd: Float[ArrayLike, "K D"],
    taps_btk: Int[ArrayLike, "B T K"],
) -> Float[np.ndarray, "B T D"]:
    """Return gate[t] · Σ_k kernel[k] · inputs[taps[t, k]], float64; a tap of -1 gives zeros."""
    inputs_bud, kernel_kd, taps_btk = np.asarray(inputs_bud, np.float64), np.asarray(kernel_kd), np.asarray(taps_btk)
    mixed_btd = np.zeros(np.shape(gate_btd))
    for b, t, k in np.ndindex(taps_btk.shape):
        if taps_btk[b, t, k] >= 0:
            mixed_btd[b, t] += kernel_kd[k].astype(np.float64) * inputs_bud[b, taps_btk[b, t, k]]
    return np.asarray(gate_btd, np.float64) * mixed_btd


def _alternating_sums(values: np.ndarray, row_of: Callable[[int, int], int]) -> Float[np.ndarray, "N *K"]:
    values = np.asarray(values, np.float64)
    sums = np.zeros_like(values)
    for coalition in range(len(values)):
        for inside in range(coalition + 1):
            if inside & coalition == inside:
                sums[coalition] += (-1) ** (coalition ^ inside).bit_count() * values[row_of(inside, coalition)]
    return sums
