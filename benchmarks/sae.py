"""How fast does an autoencoder encode, decode and train, against plain torch on the same machine, weights and inputs?

d = 1024, M = 32,768, K = 32 (`--quick`: a quarter of both, one round). `encode` is the matrix product with the k
largest picked; `decode` the k latents' sum, once against torch and once against our own dense product
(`ours_dense`: scatter into B × M, then multiply), which is what the sparse one has to beat; `train` a whole step of
Adam with unit rows. Torch is tuned before it is compared: decoding by scatter and product or by `embedding_bag`, one
thread or all, fused Adam or not; `peer` tells what was best, and rows of both decoders are shown. `max_abs_diff` is
between reconstructions (`encode`: between the latents in the order of their places; `train`: between losses of the last
step). `tokens_per_s` is ours. Where SAELens is installed, it is a peer as well, with dense or sparse latents, one
thread or all, whichever is faster; its step renormalises no rows, so that losses part.

`planted` rows are no comparison: dictionaries with known directions (P1: 128 in 48 dimensions, four at a time; P2: 96
in 32, five on average), and how much of them was found with k right and doubled; directions are drawn from `--seed`.
"""

import argparse
import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _harness import alternate, comparison, parser, report
from _torch_sae import TorchSAE, TorchSettings

from sgpa_jax.sae import (
    Paths,
    Recipe,
    SAEConfig,
    TrainConfig,
    choose_paths,
    decode,
    decode_sparse,
    encode,
    encode_sparse,
    planted,
    recovery,
    start_training,
    train_step,
)

Rows = list[dict[str, object]]
COLUMNS = (
    "case", "peer", "ours_s", "peer_s", "ratio", "ours_cpu_s", "peer_cpu_s", "max_abs_diff", "tokens_per_s", "settings",
    "fvu", "mmcs", "mcc", "recovered", "f1",
)  # fmt: skip


def main() -> None:
    """Time everything and print the table."""
    options = parser(__doc__)
    options.add_argument("--cores", type=int, help="keep to so many cores (default: all that there are)")
    options.add_argument("--batch", type=int, default=1024, help="tokens at once (default: 1024)")
    options.add_argument("--k", type=int, default=32, help="latents a token (default: 32)")
    arguments = options.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    report("sae", [*_speed(arguments), *_planted(arguments)], arguments, columns=COLUMNS)


def _speed(arguments: argparse.Namespace) -> Rows:
    width, n_latents = (256, 8192) if arguments.quick else (1024, 32768)
    repeats, batch = 1 if arguments.quick else 3, arguments.batch
    config = SAEConfig(width=width, n_latents=n_latents, k=arguments.k)
    training = TrainConfig(n_steps=10**6, batch=batch, learning_rate=1e-4)
    x_key, key = jax.random.split(jax.random.key(arguments.seed))
    x_bd = jax.random.normal(x_key, (batch, width))
    paths = choose_paths(Recipe(config, training))
    state = jax.jit(start_training, static_argnums=0)(Recipe(config, training), x_bd, key=key)
    names = ("w_enc_md", "b_enc_m", "w_dec_md", "b_dec_d")
    weights, x = {name: np.array(getattr(state.sae, name)) for name in names}, torch.tensor(np.array(x_bd))

    def peer(settings: TorchSettings) -> TorchSAE:
        torch.set_num_threads(settings.threads)
        return TorchSAE(weights, config.k, settings, training.learning_rate)

    size = f"d={width}, M={n_latents}, K={config.k}, B={batch}"
    threads = sorted({1, len(os.sched_getaffinity(0))})
    every = [TorchSettings(decode, n) for decode in ("dense", "bag") for n in threads]
    rows: Rows = []

    def compared(
        case: str, ours: Callable[[], Any], theirs: Callable[[TorchSettings], Callable[[], Any]], settings: list[Any]
    ) -> None:
        best = min(settings, key=lambda how: alternate({"": theirs(how)}, 1)[""].wall_s)
        for how in {best.decode: best} | {how.decode: how for how in settings if how.threads == best.threads}:
            chosen = best if how == best.decode else replace(best, decode=how)
            timed = alternate({"ours": ours, "peer": theirs(chosen)}, repeats)
            apart = float(np.abs(np.asarray(timed["ours"].returned) - np.asarray(timed["peer"].returned)).max())
            row = comparison(f"{case}, {size}", f"torch {chosen}", timed["ours"], timed["peer"], apart)
            rows.append(
                {**row, "tokens_per_s": batch / timed["ours"].wall_s, "settings": f"{paths.decode}, {paths.top_k}"}
            )

    encoded = jax.jit(functools.partial(encode_sparse, impl=paths.top_k))

    def torch_encode(how: TorchSettings) -> Callable[[], Any]:
        autoencoder = peer(how)

        def call() -> np.ndarray:
            torch.set_num_threads(how.threads)
            with torch.no_grad():
                z, index = autoencoder.encode(x)
            return np.take_along_axis(z.numpy(), index.numpy().argsort(axis=1), axis=1)

        return call

    compared("encode", lambda: encoded(state.sae, x_bd)[0], torch_encode, [TorchSettings("dense", n) for n in threads])

    z_bk, index_bk = jax.block_until_ready(encoded(state.sae, x_bd))
    z, index = torch.tensor(np.array(z_bk)), torch.tensor(np.array(index_bk)).long()
    sparse = jax.jit(decode_sparse)

    def torch_decode(how: TorchSettings) -> Callable[[], Any]:
        autoencoder = peer(how)

        def call() -> np.ndarray:
            torch.set_num_threads(how.threads)
            with torch.no_grad():
                return autoencoder.decode(z, index).numpy()

        return call

    compared("decode", lambda: sparse(state.sae, z_bk, index_bk), torch_decode, every)

    @jax.jit
    def dense(sae: Any, z_bk: Any, index_bk: Any) -> Any:
        places = jnp.arange(batch)[:, None], index_bk
        return decode(sae, jnp.zeros((batch, n_latents)).at[places].set(z_bk, unique_indices=True))

    calls = {"ours": lambda: sparse(state.sae, z_bk, index_bk), "peer": lambda: dense(state.sae, z_bk, index_bk)}
    timed = alternate(calls, repeats)
    apart = float(jnp.abs(timed["ours"].returned - timed["peer"].returned).max())
    rows.append(comparison(f"decode, {size}", "ours_dense", timed["ours"], timed["peer"], apart))

    step = jax.jit(train_step, static_argnames=("training", "paths"), donate_argnums=0)

    def ours_train() -> Callable[[], float]:
        held = [jax.tree.map(jnp.copy, state)]

        def call() -> float:
            held[0], stats = step(held[0], x_bd, training=training, paths=paths)
            return float(stats.loss)

        return call

    def torch_train(how: TorchSettings) -> Callable[[], Any]:
        autoencoder = peer(how)

        def call() -> float:
            torch.set_num_threads(how.threads)
            return autoencoder.step(x)

        return call

    if not arguments.quick:
        every += [replace(how, fused=False) for how in every if how.threads == max(threads)]
    best = min(every, key=lambda how: alternate({"": torch_train(how)}, 1)[""].wall_s)
    for how in (best, replace(best, decode="dense" if best.decode == "bag" else "bag")):
        timed = alternate({"ours": ours_train(), "peer": torch_train(how)}, repeats)
        apart = abs(timed["ours"].returned - timed["peer"].returned)
        row = comparison(f"train, {size}", f"torch {how}", timed["ours"], timed["peer"], apart)
        rows.append({**row, "tokens_per_s": batch / timed["ours"].wall_s, "settings": f"{paths.decode}, {paths.top_k}"})
    if importlib.util.find_spec("sae_lens") is not None:
        ours = {
            "encode": lambda: encoded(state.sae, x_bd)[0],
            "decode": lambda: sparse(state.sae, z_bk, index_bk),
            "train": ours_train(),
        }
        rows += _saelens(ours, weights, training.learning_rate, x, np.array(index_bk), threads, repeats, size)
    return rows


def _saelens(
    ours: dict[str, Callable[[], Any]], weights: dict[str, np.ndarray], learning_rate: float, x: torch.Tensor,
    index_bk: np.ndarray, threads: list[int], repeats: int, size: str,
) -> Rows:  # fmt: skip
    from _saelens_sae import SAELensSettings, as_array, saelens_call

    every, rows = [SAELensSettings(sparse, n) for sparse in (False, True) for n in threads], []
    for case, call in ours.items():
        theirs = functools.partial(saelens_call, case, weights, index_bk.shape[1], x, learning_rate)
        ways = [how for how in every if case != "train" or not how.sparse]  # its sparse step has no gradient on CPUs
        best = min(ways, key=lambda how: alternate({"": theirs(how)}, 1)[""].wall_s)
        timed = alternate({"ours": call, "peer": theirs(best)}, repeats)
        found = as_array(timed["peer"].returned)
        found = np.take_along_axis(found, index_bk, axis=1) if case == "encode" else found
        apart = float(np.abs(np.asarray(timed["ours"].returned) - found).max())
        rows.append(comparison(f"{case}, {size}", f"SAELens {best}", timed["ours"], timed["peer"], apart))
    return rows


def _planted(arguments: argparse.Namespace) -> Rows:
    keys = jax.random.split(jax.random.key(7000 + arguments.seed), 2)
    share = 3 if arguments.quick else 1
    worlds = {
        "P1": (planted(48, 128, 4, exact=True, key=keys[0]), 256, 4, 3000 // share),
        "P2": (planted(32, 96, 5, exact=False, zipf=0.0, key=keys[1]), 192, 5, 2000 // share),
    }
    return [
        _recovered(f"planted {name}", world, n_latents, k * times, n_steps, arguments.seed)
        for name, (world, n_latents, k, n_steps) in worlds.items()
        for times in ((1,) if arguments.quick else (1, 2))
    ]


def _recovered(case: str, world: Any, n_latents: int, k: int, n_steps: int, seed: int) -> dict[str, object]:
    config = SAEConfig(width=world.directions_gd.shape[1], n_latents=n_latents, k=k)
    training = TrainConfig(
        n_steps=n_steps, batch=512, learning_rate=1e-3, warmup_steps=100, decay_steps=n_steps // 3, clip_norm=1.0,
        aux_weight=1 / 32, aux_k=24, dead_after=100_000,
    )  # fmt: skip
    fit_key, init_key, steps_key, test_key = jax.random.split(jax.random.key(seed), 4)

    @jax.jit
    def run() -> Any:
        state = start_training(Recipe(config, training), world.sample(8192, key=fit_key)[0], key=init_key)

        def body(state: Any, key: Any) -> Any:
            x_bd = world.sample(training.batch, key=key)[0]
            return train_step(state, x_bd, training=training, paths=Paths("sparse"))[0], None

        sae = jax.lax.scan(body, state, jax.random.split(steps_key, n_steps))[0].sae
        x_bd, true_bg = world.sample(16384, key=test_key)
        z_bm = encode(sae, x_bd)
        left = ((x_bd - decode(sae, z_bm)) ** 2).sum()
        return left / ((x_bd - x_bd.mean(axis=0, keepdims=True)) ** 2).sum(), sae.w_dec_md, true_bg > 0, z_bm > 0

    fvu, rows_md, true_bg, fires_bm = run()
    found = recovery(world.directions_gd, rows_md, (np.asarray(true_bg), np.asarray(fires_bm)))
    return {"case": f"{case}, K={k}", "fvu": float(fvu), **vars(found)}


if __name__ == "__main__":
    main()
