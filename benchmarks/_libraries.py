"""captum, shapiq and mllm-shap on the game that the coalition benchmarks play, their model being our tuned torch peer.

The first two are given a function of masks, in batches as large as they make them. shapiq enumerates all coalitions;
captum has samplers, which are given about as many evaluations. mllm-shap, the SGPA authors' package, wants Python 3.12
and asks a backend for one coalition at a time: its exact estimator draws them and adds up what they are worth.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _harness import alternate, comparison
from _ours import Ours
from _peers import Settings, batched_dropped
from _toys import Toy
from sgpa_kernels import exact_shapley

from sgpa_jax.players import all_coalitions


def library_rows(toy: Toy, settings: Settings, repeats: int) -> list[dict[str, object]]:
    """Return a row for each library that is installed: seconds for all Shapley values, and by how much they differ."""
    n_players = toy.n_players
    masks_cp, ours = all_coalitions(n_players), Ours(toy, "attention")
    evaluated: dict[str, int] = {}

    def values(name: str, masks_bp: np.ndarray) -> np.ndarray:
        evaluated[name] = evaluated.get(name, 0) + len(masks_bp)
        return batched_dropped(toy, masks_bp, "attention", settings).log_probs_cr.sum(axis=1, dtype=np.float64)

    calls: dict[str, Callable[[], Any]] = {"ours": lambda: exact_shapley(ours(masks_cp).sum(axis=1))}
    if importlib.util.find_spec("shapiq"):
        calls["shapiq_exact"] = lambda: _shapiq(n_players, lambda masks: values("shapiq_exact", masks))
    if importlib.util.find_spec("mllm_shap"):
        calls["mllm_shap_exact"] = lambda: _mllm_shap(n_players, lambda masks: values("mllm_shap_exact", masks))
    if importlib.util.find_spec("captum"):
        for name, kind, options in (
            ("captum_sampling", "ShapleyValueSampling", {"n_samples": max(1, 2**n_players // n_players)}),
            ("captum_kernel_shap", "KernelShap", {"n_samples": 2**n_players}),
        ):
            calls[name] = lambda name=name, kind=kind, options=options: _captum(
                kind, n_players, lambda masks: values(name, masks), settings.batch, options
            )
    timings = alternate(calls, repeats)
    rows = []
    for name in list(calls)[1:]:
        difference = np.abs(np.asarray(timings["ours"].returned) - timings[name].returned).max()
        row = comparison(
            f"qwen2, d=256, n={n_players}, Shapley values", name, timings["ours"], timings[name], difference
        )
        row["cpu_ratio"] = timings[name].cpu_s / timings["ours"].cpu_s
        row |= {"coalitions": len(masks_cp), "timed": evaluated[name] // (repeats + 1), "engine": "trie"}
        rows.append(row | {"absence": "attention", "settings": str(settings)})
    return rows


def _shapiq(n_players: int, game: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    shapiq = importlib.import_module("shapiq")
    computer = shapiq.ExactComputer(game=lambda masks: game(np.asarray(masks, bool)), n_players=n_players)
    return computer(index="SV", order=1).get_n_order_values(1)


def _mllm_shap(n_players: int, game: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    library = importlib.import_module("mllm_shap")
    players = library.PlayerSet(tuple(f"player {player}" for player in range(n_players)))
    estimator = library.ExactEstimator()
    masks = list(estimator.sample_masks(players, 1.0, include_minimal_masks=False, seed=0))
    payoffs = [float(game(np.asarray([mask.present]))[0]) for mask in masks]
    return np.array(estimator.estimate_attributions(masks, payoffs, library.ShapleyAggregator()))


def _captum(
    kind: str, n_players: int, game: Callable[[np.ndarray], np.ndarray], batch: int, options: dict[str, int]
) -> np.ndarray:
    attribution = getattr(importlib.import_module("captum.attr"), kind)

    def forward(there_bp: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(game(there_bp.numpy() > 0.5))

    # Sampling takes its permutations one after another, so a batch cannot hold more than the players.
    return (
        attribution(forward)
        .attribute(
            torch.ones(1, n_players),
            baselines=torch.zeros(1, n_players),
            feature_mask=torch.arange(n_players)[None],
            perturbations_per_eval=min(batch, n_players) if kind == "ShapleyValueSampling" else batch,
            **options,
        )[0]
        .numpy()
    )
