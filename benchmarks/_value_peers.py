"""Shapley values by shapiq's approximators, at settings that do best, and by the paper's estimator.

Pairs help wherever a sampler offers them. What estimates interactions up to order 2 is asked for them, and gives the
Shapley values that they imply. Left out are KernelSHAP-IQ, inconsistent or not, and SVARM-IQ, whose values of order 1
are KernelSHAP's and SVARM's. SPEX takes what it can of the budget and may need more than there is. ProxySPEX chooses
among trees by cross-validation itself; it needs LightGBM. These two take seconds a game.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from _paper_neyman import paper_neyman
from jaxtyping import Float

Peer = Callable[[Callable[[np.ndarray], np.ndarray], int, int, int], Float[np.ndarray, " P"]]
"""The game, its number of players, the budget and a seed → Shapley values."""


def quick_peers() -> dict[str, Peer]:
    """Return those that take less than a second a game, by name."""
    return {
        "KernelSHAP": _shapiq("KernelSHAP", pairing_trick=True),
        "UnbiasedKernelSHAP": _shapiq("UnbiasedKernelSHAP", pairing_trick=True),
        "PermutationSamplingSV": _shapiq("PermutationSamplingSV"),
        "SVARM": _shapiq("SVARM", pairing_trick=True),
        "StratifiedSamplingSV": _shapiq("StratifiedSamplingSV"),
        "OwenSamplingSV": _shapiq("OwenSamplingSV"),
        "kADD-SHAP": _shapiq("kADDSHAP", max_order=2, pairing_trick=True),
        "RegressionFSII": _shapiq("RegressionFSII", max_order=2, pairing_trick=True),
        "paper_neyman": paper_neyman,
    }


def slow_peers() -> dict[str, Peer]:
    """Return the others that can run here, by name."""
    found = {"SPEX": _shapiq("SPEX", index="SV", max_order=1, decoder_type="soft")}
    if find_spec("lightgbm") is not None:
        found["ProxySPEX"] = _shapiq("ProxySPEX", index="SV", max_order=1)
    return found


def _shapiq(name: str, **options: Any) -> Peer:
    import shapiq.approximator

    kind = getattr(shapiq.approximator, name)

    def solve(values: Callable[[np.ndarray], np.ndarray], n_players: int, budget: int, seed: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind(n=n_players, random_state=seed, **options).approximate(budget, values)
        return _shares(found, n_players)

    return solve


def _shares(found: Any, n_players: int) -> Float[np.ndarray, " P"]:
    """Return the Shapley values that interactions imply."""
    share_p = np.zeros(n_players)
    for players, place in found.interaction_lookup.items():
        if found.index == "FSII" and players:
            # What belongs to several is shared out equally, as the dividends of a game of that order are.
            share_p[list(players)] += found.values[place] / len(players)
        elif len(players) == 1:
            share_p[players[0]] = found.values[place]
    return share_p
