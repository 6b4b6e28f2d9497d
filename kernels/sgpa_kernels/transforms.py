"""Linear transforms of a game's table, a butterfly for each player: P · 2^P additions and no gather.

The table is looked at as [2^(P-1-i), 2, 2^i, K]: the pair in the middle are the coalitions without and with player `i`.
Möbius coefficients (dividends) and their dual: Rota 1964 and Harsanyi 1963; Walsh–Hadamard (the Fourier coefficients of
a set function): O'Donnell 2014, "Analysis of Boolean Functions", §1.2.
Axes: `N` = 2^P coalitions (bit `i` of the row's index = player `i`), `K` outputs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sgpa_kernels.shapley import players_of

_Step = Callable[[Any, Any], tuple[Any, Any]]


@overload
def moebius(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]: ...
@overload
def moebius(values: Float[Array, "N *K"]) -> Float[Array, "N *K"]: ...
def moebius(values):
    """Return the Möbius coefficients a(S) = Σ_{T⊆S} (-1)^(|S|-|T|) v(T): what S adds beyond all of its subsets.

    A NumPy array is transformed on the host in float64; a JAX array where it lives, in its own floating dtype.

    Raises:
        ValueError: the number of rows is not 2^P with P at least 1.
    """
    return _along_players(values, _moebius)


@overload
def inverse_moebius(coefficients: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]: ...
@overload
def inverse_moebius(coefficients: Float[Array, "N *K"]) -> Float[Array, "N *K"]: ...
def inverse_moebius(coefficients):
    """Return v(S) = Σ_{T⊆S} a(T), the game of given Möbius coefficients; see `moebius`."""
    return _along_players(coefficients, _inverse_moebius)


@overload
def co_moebius(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]: ...
@overload
def co_moebius(values: Float[Array, "N *K"]) -> Float[Array, "N *K"]: ...
def co_moebius(values):
    """Return the co-Möbius coefficients b(S) = Σ_{T⊆S} (-1)^(|S|-|T|) v(N∖S ∪ T): what S adds where all others are.

    b(∅) = v(N). Arguments, dtypes and errors are those of `moebius`.
    """
    return _along_players(values, _co_moebius)


@overload
def walsh_hadamard(values: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]: ...
@overload
def walsh_hadamard(values: Float[Array, "N *K"]) -> Float[Array, "N *K"]: ...
def walsh_hadamard(values):
    """Return the Fourier coefficients F(S) = 2^-P Σ_T (-1)^|S∩T| v(T), so that v(T) = Σ_S (-1)^|S∩T| F(S).

    Arguments, dtypes and errors are those of `moebius`.
    """
    return _along_players(values, _walsh_hadamard)


@overload
def inverse_walsh_hadamard(coefficients: Float[np.ndarray, "N *K"]) -> Float[np.ndarray, "N *K"]: ...
@overload
def inverse_walsh_hadamard(coefficients: Float[Array, "N *K"]) -> Float[Array, "N *K"]: ...
def inverse_walsh_hadamard(coefficients):
    """Return the game of given Fourier coefficients; see `walsh_hadamard`."""
    return _along_players(coefficients, _inverse_walsh_hadamard)


def _moebius(without: Any, there: Any) -> tuple[Any, Any]:
    return without, there - without


def _inverse_moebius(without: Any, there: Any) -> tuple[Any, Any]:
    return without, there + without


def _co_moebius(without: Any, there: Any) -> tuple[Any, Any]:
    return there, there - without


def _walsh_hadamard(without: Any, there: Any) -> tuple[Any, Any]:
    return (without + there) / 2, (without - there) / 2


def _inverse_walsh_hadamard(without: Any, there: Any) -> tuple[Any, Any]:
    return without + there, without - there


def _along_players(values: Any, step: _Step) -> Any:
    n_players = players_of(values)
    transform = _on_host if isinstance(values, np.ndarray) else _on_device
    return transform(values.reshape(values.shape[0], -1), n_players, step).reshape(values.shape)


def _on_host(values_nk: np.ndarray, n_players: int, step: _Step) -> np.ndarray:
    table_nk = np.array(values_nk, np.float64, order="C")
    for player in range(n_players):
        pairs = table_nk.reshape(2 ** (n_players - 1 - player), 2, -1)
        # Both right-hand sides are whole before either half is overwritten.
        pairs[:, 0], pairs[:, 1] = step(pairs[:, 0], pairs[:, 1])
    return table_nk


@partial(jax.jit, static_argnums=(1, 2))
def _on_device(values_nk: Float[Array, "N K"], n_players: int, step: _Step) -> Float[Array, "N K"]:
    table_nk = values_nk
    for player in range(n_players):
        pairs = table_nk.reshape(2 ** (n_players - 1 - player), 2, -1)
        table_nk = jnp.stack(step(pairs[:, 0], pairs[:, 1]), axis=1)
    return table_nk.reshape(values_nk.shape)
