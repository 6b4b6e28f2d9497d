"""Which word fires which concept of a model, and how much of the answer each of these concepts carries.

Both are Shapley values: of the latents of a sparse autoencoder, with the words as players, and of the answer's
log-probability, with the concepts that the words fire most as players (`games.py`). Axes: `P` players, `K` latents.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from sgpa_jax.concepts.bank import BANK, ConceptBank
from sgpa_jax.concepts.games import NUMBERS_AT_ONCE, Positions, ablation_game, concept_values, latent_readout
from sgpa_jax.errors import UsageError
from sgpa_jax.estimators import choose_estimator, estimate
from sgpa_jax.games import TOKEN_ABSENCES, engine_of, speech_game
from sgpa_jax.models import Model, ModelInputs
from sgpa_jax.players import Players
from sgpa_jax.sae import SAEState, TrainedSAE, load_sae
from sgpa_jax.typing import PRNGKeyArray

MOST_LATENTS = 4096
"""Latents that are shared out; of more, those that differ most between all players and none."""

_ESTIMATOR = "permutation"


def fired_concepts(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    trained: TrainedSAE,
    *,
    top: int = 10,
    absence: str = "silence",
    text_absence: str = "attention",
    baseline: str = "mean",
    positions: Positions = "audio",
    budget: int = 4096,
    names: dict[int, str] | None = None,
    key: PRNGKeyArray,
) -> dict[str, Any]:
    """Share the concepts out among the players, and the answer among the `top` concepts that are shared out most.

    A concept's effect is the largest share of a player, times the norm of the concept's direction: how far the player
    moves the residual stream that way, summed over positions. Concepts that all players together fire less than nobody
    does, those of silence, are left out. All 2^P coalitions are taken where the budget allows them, else permutations;
    likewise of the concepts.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response.
        players: as of `speech_game`.
        trained: the autoencoder.
        top: how many concepts are told.
        absence, text_absence, baseline: as of `speech_game`.
        positions: `audio` or `response`.
        budget: coalitions of players, and again of concepts.
        names: of latents.
        key: draws the permutations.

    Returns:
        Plain data, as `Explanation.concepts` keeps it.

    Raises:
        UsageError, BudgetError: what `speech_game` and `check_firing` refuse.
    """
    sae, layer = trained.folded, trained.layer
    asked: dict[str, Any] = {"absence": absence, "text_absence": text_absence, "baseline": baseline}
    latents_k = _candidates(model, inputs, players, sae, layer, positions, asked)
    readout = latent_readout(sae, layer, latents=latents_k, positions=positions)
    if absence in TOKEN_ABSENCES:
        asked["microbatch"] = max(1, NUMBERS_AT_ONCE // len(latents_k))
    game = speech_game(model, inputs, players, readout=readout, **asked)
    exact = 2 ** len(players) <= budget
    words_key, concepts_key = jax.random.split(key)
    if exact:
        found = concept_values(game)
        errors_pk = np.zeros_like(found.values_pk)
    else:
        found = estimate(game, _ESTIMATOR, budget=budget, key=words_key)
        errors_pk = found.standard_errors_pk
    norm_k = np.linalg.norm(np.asarray(sae.w_dec_md), axis=1)[latents_k]
    effect_k = np.abs(found.values_pk).max(axis=0) * norm_k * (found.full_value_k > found.empty_value_k)
    order = [k for k in np.argsort(-effect_k, kind="stable")[:top] if effect_k[k] > 0]
    carried = _carried(model, inputs, sae, layer, latents_k[order], positions, budget, key=concepts_key)
    told = [
        {
            "latent": int(latents_k[k]),
            "name": (names or {}).get(int(latents_k[k])),
            "effect": float(effect_k[k]),
            "empty_value": float(found.empty_value_k[k]),
            "full_value": float(found.full_value_k[k]),
            "values": found.values_pk[:, k].tolist(),
            "standard_errors": errors_pk[:, k].tolist(),
            "carries": None if carried is None else carried["values"][n],
            "carries_error": None if carried is None else carried["standard_errors"][n],
        }
        for n, k in enumerate(order)
    ]
    return {
        "after_layer": layer,
        "positions": positions,
        "reduce": readout.reduce,
        "estimator": "exact" if exact else _ESTIMATOR,
        "latents": sae.config.n_latents,
        "considered": len(latents_k),
        "evaluations": vars(found.evaluations),
        "answer": None if carried is None else {name: carried[name] for name in ("empty_value", "full_value")},
        "concepts": told,
    }


def autoencoder_of(model: Model, folder: str | Path, top: int = 1) -> TrainedSAE:
    """Load the autoencoder from whose folder `top` concepts of a model are asked for.

    Raises:
        UsageError: the folder holds none, or one of another model, or `top` is below one.
    """
    trained = load_sae(folder)
    if trained.model["digest"] != model.digest:
        raise UsageError(
            f"the autoencoder was trained on {trained.model['name']}, whose weights are not those of {model.name}; "
            "give one that was trained on this one"
        )
    if top < 1:
        raise UsageError(f"the {top} concepts that are fired most were asked for: expected at least one")
    return trained


def check_firing(inputs: ModelInputs, players: Players, *, absence: str, budget: int) -> None:
    """Refuse, before anything is evaluated, what `fired_concepts` would refuse.

    Raises:
        UsageError: the recording is cut into windows, and its players are absent from what is heard.
        BudgetError: the budget allows neither all coalitions nor permutations.
    """
    if inputs.starts_s and engine_of(absence, players) == "waveform":
        raise UsageError(
            f"concepts in a recording in windows cannot be read under the absence {absence!r}: choose one of "
            f"{', '.join(TOKEN_ABSENCES)}"
        )
    if 2 ** len(players) > budget:
        choose_estimator(_ESTIMATOR, len(players), budget)


def names_in(folder: str | Path, trained: TrainedSAE) -> dict[int, str]:
    """Return the names of latents in the bank of concepts that a folder holds; none where it holds no bank.

    Raises:
        UsageError: the bank is damaged, or of another autoencoder.
    """
    if not (Path(folder) / BANK).is_file():
        return {}
    bank = ConceptBank.load(folder)
    bank.check(trained)
    return {concept.latent: concept.name for concept in bank.concepts if concept.name}


def _candidates(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    sae: SAEState,
    layer: int,
    positions: Positions,
    asked: dict[str, Any],
) -> np.ndarray:
    """All latents, or of too many those that differ most between everybody and nobody."""
    if sae.config.n_latents <= MOST_LATENTS:
        return np.arange(sae.config.n_latents)
    everything = latent_readout(sae, layer, positions=positions)
    game = speech_game(model, inputs, players, readout=everything, microbatch=2, **asked)
    empty_m, full_m = game.values(np.array([[False] * len(players), [True] * len(players)]))
    return np.sort(np.argsort(-np.abs(full_m - empty_m), kind="stable")[:MOST_LATENTS])


def _carried(
    model: Model,
    inputs: ModelInputs,
    sae: SAEState,
    layer: int,
    latents: np.ndarray,
    positions: Positions,
    budget: int,
    *,
    key: PRNGKeyArray,
) -> dict[str, Any] | None:
    """Shares of the answer's log-probability; None where no layer looks at what would be ablated, or nothing fires."""
    if not len(latents) or layer + (positions == "audio") >= model.config.decoder.n_layers:
        return None
    game = ablation_game(model, inputs, sae, layer, latents, positions=positions)
    found = estimate(game, "exact" if 2 ** len(latents) <= budget else _ESTIMATOR, budget=budget, key=key)
    return {
        "values": found.values_pk[:, 0].tolist(),
        "standard_errors": found.standard_errors_pk[:, 0].tolist(),
        "empty_value": float(found.empty_value_k[0]),
        "full_value": float(found.full_value_k[0]),
    }
