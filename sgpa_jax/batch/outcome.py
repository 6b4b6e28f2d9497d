"""What became of one item of a data set, and the coalitions that were evaluated for it.

Axes: `C` coalitions, `P` players, `K` outputs, `S` rows of the sample that an estimate rests on.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sgpa_jax.explain import Explanation


@dataclass(frozen=True, eq=False)
class Coalitions:
    """One game's coalitions and what the model made of them.

    Attributes:
        game_key: of the game, from `archive.game_key`.
        masks_cp: bool[C, P].
        outputs: float32[C, K], or the token ids of C responses.
        sample_s: int32[S], rows of `masks_cp`, in the estimator's order, that the estimate rests on.
        values_sk: float64[S, K], what these are worth.
    """

    game_key: str
    masks_cp: Bool[np.ndarray, "C P"]
    outputs: Float[np.ndarray, "C K"] | tuple[tuple[int, ...], ...]
    sample_s: Int[np.ndarray, " S"]
    values_sk: Float[np.ndarray, "S K"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one item.

    Attributes:
        id: the item's.
        name: how the manifest calls its recording.
        explanation: None where it failed.
        coalitions: what was evaluated for it, if anything.
        error: why it failed, in one sentence; None where it did not.
        seconds: what it took, its share of what was computed together with others.
    """

    id: str
    name: str
    explanation: Explanation | None
    coalitions: Coalitions | None
    error: str | None
    seconds: float
