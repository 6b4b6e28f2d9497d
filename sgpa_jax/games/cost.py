"""What a game will cost, told before it is run: the engine, its tokens, memory and shapes."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.games.answers_together import batches_of_answers
from sgpa_jax.games.hearing import HEARD_ABSENCES
from sgpa_jax.games.passage import Passage
from sgpa_jax.games.prompts import prompts_of
from sgpa_jax.games.speech import engine_of, waveform_engine
from sgpa_jax.games.tokens import absences_of, token_owners
from sgpa_jax.games.trie import scene_of, sizes_on
from sgpa_jax.games.trie_plan import TriePlan, plan_trie
from sgpa_jax.games.tries_together import planned
from sgpa_jax.models import Model, ModelInputs
from sgpa_jax.players import Players


def speech_cost(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    masks_cp: Bool[np.ndarray, "C P"],
    *,
    absence: str,
    text_absence: str = "attention",
) -> dict[str, Any]:
    """Return what `speech_game` would run for these coalitions, as plain values that JSON can hold.

    `decoder_tokens` are those that the decoder's layers compute, padding left out, and `tokens_one_by_one` those of the
    same coalitions each by itself; `bytes_at_once` are the activations of what is computed together, roughly; `shapes`
    are those that are compiled, one program for each.
    """
    if engine_of(absence, players) == "trie":
        return {"engine": "trie"} | _trie_cost(model, inputs, players, masks_cp, absence, text_absence)
    engine = waveform_engine(model, inputs, players, absence=absence, text_absence=text_absence)
    heard = np.unique(masks_cp & engine.is_audible_p[None], axis=0)
    return {"engine": "waveform"} | engine.cost(heard)


def response_cost(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    masks_cp: Bool[np.ndarray, "C P"],
    *,
    absence: str,
    text_absence: str = "attention",
    max_new_tokens: int,
) -> dict[str, Any]:
    """Return what `response_game` would run for these coalitions, as `speech_cost` does; responses may end earlier.

    Raises:
        UsageError: as `response_game`.
    """
    n_tokens = inputs.response_start
    if absence in HEARD_ABSENCES and players.heard:
        # What is heard is put in nobody's place: any baseline will do.
        prompts = prompts_of(model, inputs, players, absence=absence, baseline="mean", text_absence=text_absence)
        assert prompts.matters_p is not None
        lengths_c = prompts.n_tokens(np.unique(masks_cp & prompts.matters_p[None], axis=0))
    else:
        lengths_c = np.full(len(np.unique(masks_cp, axis=0)), n_tokens)
    told = answers_cost(model, [lengths_c], max_new_tokens=max_new_tokens)
    return {
        "engine": "generation",
        "decoder_tokens": int(lengths_c.sum()) + len(lengths_c) * max_new_tokens,
        "tokens_one_by_one": len(masks_cp) * (n_tokens + max_new_tokens),
        "bytes_at_once": max(n_bytes for _, n_bytes in told),
        "runs": len(told),
        "shapes": sorted({shape for shape, _ in told}),
    }


def _trie_cost(
    model: Model,
    inputs: ModelInputs,
    players: Players,
    masks_cp: Bool[np.ndarray, "C P"],
    absence: str,
    text_absence: str,
) -> dict[str, Any]:
    config = model.config.decoder
    owner_t, n_targets = token_owners(model, inputs, players), len(inputs.ids_t) - inputs.response_start
    nothing = jnp.zeros((len(owner_t), 1))
    absences = absences_of(players, absence, text_absence)
    passage = Passage(nothing, np.zeros(n_targets, int), owner_t, absences, nothing)
    n_devices = 1 if model.mesh is None else model.mesh.shape["data"]
    group_tokens, chunk_leaves = sizes_on(model.platform)
    plan = plan_trie(
        passage,
        masks_cp,
        n_before=config.n_before,
        group_tokens=group_tokens,
        chunk_leaves=chunk_leaves,
        n_devices=n_devices,
    )
    return {
        "decoder_tokens": plan.tokens_run,
        "tokens_one_by_one": len(masks_cp) * len(owner_t),
        "bytes_at_once": _bytes_at_once(config, plan),
        "runs": -(-len(plan.chunks.path) // n_devices),
        "shapes": [_shape(plan)],
    }


def tries_cost(
    model: Model, passages: Sequence[Passage], masks: Sequence[Bool[np.ndarray, "C P"]]
) -> list[tuple[str, int]]:
    """Return what `evaluate_together` would run of coalitions of passages: a program and its bytes for every plan.

    The passages' embeddings are of no account.
    """
    told = []
    for queue, plan in planned(model, passages, masks):
        n_rows = len(scene_of(*(passages[number] for number, _ in queue)).rows_sd)
        n_leaves, n_wanted = plan.chunks.coalition.shape[2], plan.chunks.wanted.shape[2]
        program = f"{n_rows} rows, {_shape(plan)}, {n_leaves} coalitions, {n_wanted // n_leaves} scored"
        told.append((program, _bytes_at_once(model.config.decoder, plan)))
    return told


def answers_cost(
    model: Model, lengths: Sequence[Int[np.ndarray, " C"]], *, max_new_tokens: int
) -> list[tuple[str, int]]:
    """Return what `evaluate_together` would answer: the shape of every batch and its bytes.

    Args:
        model: the audio language model.
        lengths: of each game, tokens of the prompts of its coalitions.
        max_new_tokens: the longest response.
    """
    config, n_tokens_c = model.config.decoder, np.concatenate(lengths)
    game_c = np.repeat(np.arange(len(lengths)), [len(own) for own in lengths])
    size, batches = batches_of_answers(model, n_tokens_c, game_c)
    told = []
    for rows in batches:
        n_tokens = round_up(int(n_tokens_c[rows].max()), TOKEN_STEP)
        kept = 2 * config.n_layers * config.width * (n_tokens + max_new_tokens)
        read = n_tokens * (2 * config.ffn_width + 6 * config.width + config.n_heads * n_tokens)
        told.append((f"{size} prompts of {n_tokens} tokens", 4 * size * (kept + read + config.vocab_size)))
    return told


def _shape(plan: TriePlan) -> str:
    (_, n_groups, n_tokens), n_root = plan.chunks.groups.token.shape, plan.chunks.root.token.shape[2]
    return f"root {n_root}, {n_groups} groups of {n_tokens} tokens behind {plan.chunks.path.shape[2]}"


def _bytes_at_once(config: Any, plan: TriePlan) -> int:
    """About the activations of a chunk where they take most: in a layer, or in the head."""
    (_, n_groups, n_tokens), n_root = plan.chunks.groups.token.shape, plan.chunks.root.token.shape[2]
    n_seen = n_tokens + plan.chunks.path.shape[2]
    per_token = 2 * config.ffn_width + 6 * config.width + config.n_heads * n_seen
    return 4 * max((n_root + n_groups * n_tokens) * per_token, plan.chunks.wanted[0].size * config.vocab_size)
