"""Running a method on the host, in float64: no accelerator computes in it, or only slowly."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sgpa_jax.errors import UsageError
from sgpa_jax.estimators.base import Attribution
from sgpa_jax.estimators.exact import Exact
from sgpa_jax.estimators.permutation import Permutation
from sgpa_jax.typing import MaskCP, PRNGKeyArray, ValueCK

Told = tuple[Bool[np.ndarray, "C P"], Float[np.ndarray, "C K"]]
"""Coalitions of one proposal, and what they are worth."""


def proposed(method: Any, key: PRNGKeyArray) -> Bool[np.ndarray, "C P"]:
    """Return the coalitions that a method asks for first."""
    return np.asarray(_propose(method, method.init(key)))


def asking(method: Any, key: PRNGKeyArray) -> Generator[MaskCP, ValueCK, tuple[Any, list[Told]]]:
    """Yield the coalitions that a method asks for, proposal by proposal, and take what they are worth.

    Returns the method for as many outputs as there turned out to be, and all that it was told, in float64.
    """
    masks_cp = proposed(method, key)
    told = [(masks_cp, np.asarray((yield masks_cp), np.float64))]
    method = replace(method, n_outputs=told[0][1].shape[1])
    state = method.init(key)
    while len(told) < method.n_proposals:
        masks_cp, values_ck = told[-1]
        # Only what to ask next comes from this state: in float32, as draws are made outside of float64.
        state = _update(method, state, masks_cp, values_ck.astype(np.float32))
        masks_cp = np.asarray(_propose(method, state))
        told.append((masks_cp, np.asarray((yield masks_cp), np.float64)))
    return method, told


def solved_on_host(method: Any, key: PRNGKeyArray, told: Sequence[tuple[np.ndarray, np.ndarray]]) -> Attribution:
    """Return what a method makes of coalitions and their values, proposal by proposal."""
    # These two compute with NumPy where they are given its arrays, and nothing has to be compiled.
    solve = _solve if isinstance(method, Exact | Permutation) else _solve_compiled
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return solve(method, key, told)


def _solve(method: Any, key: PRNGKeyArray, told: Any) -> Attribution:
    state = method.init(key)
    for masks_cp, values_ck in told:
        state = method.update(state, masks_cp, values_ck)
    return method.estimate(state)


_solve_compiled = jax.jit(_solve, static_argnums=0)


def arrays_of(found: Attribution) -> dict[str, Any]:
    """Return the fields that an `Estimate` takes over from an attribution, float64 on the host."""
    arrays = {name: np.asarray(array, np.float64) for name, array in found._asdict().items()}
    return arrays | {"degrees_of_freedom": float(found.degrees_of_freedom)}


def seed_of(key: Any) -> int:
    """Return a typed key as a number.

    Raises:
        UsageError: it is no single typed key.
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise UsageError(
            "the key is no single typed key: expected one from jax.random.key; make it with an integer seed"
        )
    seed = 0
    for word in np.asarray(jax.random.key_data(key)).ravel().tolist():
        seed = (seed << 32) | word
    return seed


@partial(jax.jit, static_argnums=0)
def _propose(method: Any, state: Any) -> Any:
    return method.propose(state)


@partial(jax.jit, static_argnums=0)
def _update(method: Any, state: Any, masks_cp: Any, values_ck: Any) -> Any:
    return method.update(state, masks_cp, values_ck)
