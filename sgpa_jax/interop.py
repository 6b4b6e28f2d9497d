"""To and from other people's libraries: shapiq's interaction values and games, and shap's explanations.

Both belong to the extra `interop` and are loaded when they are called for. Axes: `C` coalitions, `P` players,
`K` outputs, `I` subsets of players.
"""

import importlib
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import Estimate, Interactions
from sgpa_jax.explain import Explanation
from sgpa_jax.games import Game

if TYPE_CHECKING:
    import shap
    import shapiq

_INDEX_OF_ESTIMAND = {"shapley": "SV", "banzhaf": "BV"}


def to_shapiq(found: Explanation | Estimate | Interactions, output: int = 0) -> "shapiq.InteractionValues":
    """Return what was found about one output as shapiq's `InteractionValues`.

    Interactions become what shapiq's ExactComputer gives, the empty set included: shapiq itself puts v(∅) there for
    most indices (`estimators.interactions` tells where that differs from ours). Shapley's and Banzhaf's values get
    v(∅), and so does `baseline_value` throughout; `estimated` and `estimation_budget` tell of sampling. Standard errors
    have no place there.

    Raises:
        UsageError: shapiq is not installed, there is no such output, or shapiq has no name for the estimand.
    """
    shapiq = _library("shapiq")
    if isinstance(found, Interactions):
        _check_output(output, found.values_ik.shape[1])
        return shapiq.InteractionValues(
            dict(zip(found.subsets, found.values_ik[:, output].tolist(), strict=True)),
            index=found.index,
            max_order=found.order,
            min_order=0,
            n_players=found.n_players,
            estimated=False,
            baseline_value=float(found.empty_value_k[output]),
        )
    values_pk, empty_value_k = _values(found)
    _check_output(output, values_pk.shape[1])
    if found.estimand not in _INDEX_OF_ESTIMAND:
        raise UsageError(
            f"shapiq has no index for {found.estimand} values: expected one of {', '.join(_INDEX_OF_ESTIMAND)}; "
            "use to_shap, which names none"
        )
    scores = {(player,): value for player, value in enumerate(values_pk[:, output].tolist())}
    is_exact = _estimator(found) == "exact"
    return shapiq.InteractionValues(
        {(): float(empty_value_k[output])} | scores,
        index=_INDEX_OF_ESTIMAND[found.estimand],
        max_order=1,
        min_order=0,
        n_players=len(values_pk),
        estimated=not is_exact,
        estimation_budget=None if is_exact else _requested(found),
        baseline_value=float(empty_value_k[output]),
    )


def from_shapiq_values(values: "shapiq.InteractionValues") -> Interactions:
    """Return shapiq's values as ours, of one output and with the subsets that it holds.

    `index` is what shapiq calls it, which may be "SV" or "BV" as well.
    """
    subsets = tuple(sorted(values.interactions, key=lambda subset: (len(subset), subset)))
    values_i1 = np.array([[values.interactions[subset]] for subset in subsets], np.float64)
    empty_value_k = np.array([values.baseline_value], np.float64)
    return Interactions(str(values.index), values.max_order, values.n_players, subsets, values_i1, empty_value_k)


def to_shap(found: Explanation | Estimate, output: int | None = None) -> "shap.Explanation":
    """Return what was found as shap's `Explanation` of one recording: P features, named and shown by their labels.

    Args:
        found: an explanation, or an estimate, whose players and outputs have numbers for names.
        output: the output to take: values [P] and one base value. None takes all, with their names: [P, K] and [K]; of
            one output the same as 0.

    Raises:
        UsageError: shap is not installed, or there is no such output.
    """
    shap = _library("shap")
    values_pk, base_k = _values(found)
    if isinstance(found, Explanation):
        errors_pk, labels = found.standard_errors, [player.label for player in found.players]
        names = [output["name"] for output in found.outputs]
    else:
        errors_pk, labels = found.standard_errors_pk, [f"player {player}" for player in range(len(values_pk))]
        names = [f"output {k}" for k in range(values_pk.shape[1])]
    described = {"data": np.array(labels), "feature_names": labels}
    if output is None and len(names) > 1:
        return shap.Explanation(values_pk, base_values=base_k, output_names=names, error_std=errors_pk, **described)
    output = output or 0
    _check_output(output, len(names))
    # Shap cannot take the name of a single output.
    return shap.Explanation(
        values_pk[:, output], base_values=float(base_k[output]), error_std=errors_pk[:, output], **described
    )


def as_shapiq_game(game: Game, output: int = 0) -> "shapiq.Game":
    """Return one output of a game as a `shapiq.Game`, for shapiq's approximators and its ExactComputer.

    Coalitions still go through our game, which evaluates in batches and each coalition once. The values are not
    centred: v(∅) stays what it is.

    Raises:
        UsageError: shapiq is not installed, or there is no such output.
    """
    shapiq = _library("shapiq")
    _check_output(output, game.n_outputs)

    class OneOutput(shapiq.Game):
        """An output of one of our games."""

        def value_function(self, coalitions: Any) -> Float[np.ndarray, " C"]:
            """Return what each coalition is worth, float64[C]."""
            return game.values(np.asarray(coalitions, bool))[:, output].astype(np.float64)

    return OneOutput(n_players=game.n_players, normalize=False)


def from_shapiq_game(game: "shapiq.Game", **settings: Any) -> Game:
    """Return a `shapiq.Game` as a `Game` of one output, centred if shapiq's is; `settings` are those of `Game`."""
    return Game(partial(_called, game), game.n_players, jit=False, **settings)


def _called(game: Any, masks_cp: Bool[np.ndarray, "C P"]) -> np.ndarray:
    return np.asarray(game(np.asarray(masks_cp)))


def _values(found: Explanation | Estimate) -> tuple[Float[np.ndarray, "P K"], Float[np.ndarray, " K"]]:
    if isinstance(found, Explanation):
        return found.values, found.empty_value
    return found.values_pk, found.empty_value_k


def _estimator(found: Explanation | Estimate) -> str:
    return found.estimator["name"] if isinstance(found, Explanation) else found.estimator


def _requested(found: Explanation | Estimate) -> int:
    return found.evaluations["requested"] if isinstance(found, Explanation) else found.evaluations.requested


def _check_output(output: int, n_outputs: int) -> None:
    if not 0 <= output < n_outputs:
        raise UsageError(f"there is no output {output}: expected 0 to {n_outputs - 1}")


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"{name} is not installed: expected it for this; pip install sgpa-jax[interop]") from error
