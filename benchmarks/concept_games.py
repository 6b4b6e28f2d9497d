"""What do concepts cost? The game of 4096 latents against the log-probability game, on the same 1024 coalitions.

Both are one pass of the same engine; ours reads a TopK autoencoder behind a layer, the peer goes on to the response's
log-probability. `ratio` is the peer's seconds over ours: 0.87 is 15 % more. Cases: the trie engine on a random Qwen2
decoder of the coalition benchmark (four layers, ten players), read behind its third layer, at the response's and at
audio positions; and the waveform engine on *pocket* and its demo. `max_abs_diff` is from the flat engine, relative to
the largest latent, on some of the coalitions; for the waveform engine there is no other. `exact_s` is the whole matrix
of exact Shapley values, players by latents, which adds batches up and forgets them. `encode_s` is the product that no
engine can avoid: encoding as many tokens as are read, once, without anything else.
"""

import argparse
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _harness import Timing, alternate, comparison, parser, report
from _toys import Toy, qwen2_toy

import sgpa_jax
from sgpa_jax.concepts import concept_values, latent_readout
from sgpa_jax.games import Game, evaluate_coalitions, evaluate_flat, plan_for, speech_game
from sgpa_jax.models import decoder_of, load_model
from sgpa_jax.players import all_coalitions, window_players
from sgpa_jax.sae import SAEConfig, SAEState, encode, init_sae

Rows = list[dict[str, object]]
N_PLAYERS, N_LATENTS, K = 10, 4096, 32
AFTER_LAYER = 2
_SOME = 16


def main() -> None:
    """Time both games in turns and print the table."""
    options = parser(__doc__)
    options.add_argument("--cores", type=int, help="keep to so many cores (default: all that there are)")
    arguments = options.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    report("concept_games", [*trie_rows(arguments), *waveform_rows(arguments)], arguments)


def trie_rows(arguments: argparse.Namespace) -> Rows:
    """Return a row for each kind of positions: the trie engine with and without a readout."""
    toy = qwen2_toy(N_PLAYERS, seed=arguments.seed)
    decoder, passage, masks_cp = decoder_of(toy.ours), toy.passage("attention"), all_coalitions(N_PLAYERS)
    sae = random_sae(toy.x_td.shape[1], arguments.seed)
    rows = []
    for positions in ("response", "audio"):
        readout = latent_readout(sae, AFTER_LAYER, positions=positions)
        game = Game(
            partial(evaluate_coalitions, decoder, passage, readout=readout), N_PLAYERS, jit=False, microbatch=1024
        )
        calls = {
            "ours": partial(evaluate_coalitions, decoder, passage, masks_cp, readout=readout),
            "peer": partial(evaluate_coalitions, decoder, passage, masks_cp),
            "exact": partial(_values, game),
            "encode": partial(_encoded, sae, n_read(toy, decoder, passage, masks_cp, positions)),
        }
        timed = alternate(calls, 3 if arguments.quick else 9)
        some = np.linspace(0, len(masks_cp) - 1, _SOME).astype(int)
        flat = jax.jit(partial(evaluate_flat, decoder, passage, readout=readout))(jnp.asarray(masks_cp[some]))
        apart = np.abs(np.asarray(flat) - timed["ours"].returned[some]).max() / np.abs(np.asarray(flat)).max()
        rows.append(_row(f"trie, {positions}", timed, float(apart)))
    return rows


def waveform_rows(arguments: argparse.Namespace) -> Rows:
    """Return a row for each kind of positions: the waveform engine with and without a readout."""
    from sgpa_jax.cli.inputs import shipped_demo

    model, (path, _, prompt) = load_model("pocket"), shipped_demo()
    clip = sgpa_jax.read_clip(path)
    inputs = model.prepare(clip, prompt, response="lamp blue")
    players = window_players(clip, clip.duration_s / N_PLAYERS)
    masks_cp = all_coalitions(len(players))[-1024:]
    sae, rows = random_sae(model.config.decoder.width, arguments.seed), []
    for positions in ("response", "audio"):
        readout = latent_readout(sae, 1, positions=positions)
        games = {
            "ours": speech_game(model, inputs, players, readout=readout),
            "peer": speech_game(model, inputs, players),
        }
        calls = {name: partial(_forgotten, game, masks_cp) for name, game in games.items()}
        rows.append(_row(f"waveform, {positions}", alternate(calls, 1 if arguments.quick else 5), float("nan")))
    return rows


def random_sae(width: int, seed: int) -> SAEState:
    """Return a TopK autoencoder as it is before training."""
    x_bd = jnp.asarray(np.random.default_rng(seed).standard_normal((64, width)), jnp.float32)
    return init_sae(SAEConfig(width=width, n_latents=N_LATENTS, k=K), x_bd, key=jax.random.key(seed))


def n_read(toy: Toy, decoder: Any, passage: Any, masks_cp: np.ndarray, positions: str) -> int:
    """Return how many tokens a readout has to read at least: different ones of the plan."""
    if positions == "response":
        return len(masks_cp) * len(toy.targets_r)
    plan = plan_for(decoder, passage, masks_cp)
    return sum(int((block.last > block.first).sum()) for block in (plan.chunks.root, plan.chunks.groups))


def _encoded(sae: SAEState, n_tokens: int) -> Any:
    return _encode(sae, jnp.ones((n_tokens, sae.config.width)))


_encode = jax.jit(lambda sae, x_bd: jax.lax.map(lambda x: encode(sae, x[None]).sum(), x_bd, batch_size=512))


def _values(game: Game) -> np.ndarray:
    game.forget()
    return concept_values(game).values_pk


def _forgotten(game: Game, masks_cp: np.ndarray) -> np.ndarray:
    game.forget()
    return game.values(masks_cp)


def _row(case: str, timed: dict[str, Timing], apart: float) -> dict[str, object]:
    row = comparison(case, "log-probability game", timed["ours"], timed["peer"], apart)
    row["cpu_ratio"] = timed["peer"].cpu_s / timed["ours"].cpu_s
    for name in ("exact", "encode"):
        if name in timed:
            row[f"{name}_s"] = timed[name].wall_s
    return row


if __name__ == "__main__":
    main()
