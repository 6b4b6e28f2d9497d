"""The definition of correct: what the kernels compute, written down as in a textbook and in no hurry.

Axes: `N` = 2^P coalitions (bit `i` of the row's index = player `i`), `P` players, `K` outputs.
"""

from math import factorial

import numpy as np
from jaxtyping import Float


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
