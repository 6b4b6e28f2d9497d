"""Coalitions as rows of booleans. Axes: `C` coalitions, `P` players."""

import numpy as np
from jaxtyping import Bool


def all_coalitions(n_players: int) -> Bool[np.ndarray, "C P"]:
    """Return every coalition, bool[2^P, P]: player `i` takes part in row `r` when bit `i` of `r` is set.

    Row 0 is the empty coalition, the last row that of all players: the order that `exact_shapley` reads.
    """
    rows_c1 = np.arange(2**n_players, dtype=np.int64)[:, None]
    return (rows_c1 >> np.arange(n_players)[None, :]) % 2 == 1
