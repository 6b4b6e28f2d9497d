from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.sae import ActivationStore, SAEConfig, SAEState, open_store
from sgpa_jax.sae.store import HEADER, INDEX, SCHEMA, finish, json_lines, write_shard


@pytest.fixture
def random_sae() -> Callable[..., SAEState]:
    """Weights that are all random, of any kind."""

    def make(kind: str = "topk", *, pre_bias: bool = True) -> SAEState:
        rng, (m, d) = np.random.default_rng(3), (40, 12)
        shapes = [(m, d), (m,), (m, d), (d,), (m,)]
        arrays = [jnp.asarray(0.3 * rng.standard_normal(shape), jnp.float32) for shape in shapes]
        return SAEState(*arrays, config=SAEConfig(width=d, n_latents=m, k=5, kind=kind, pre_bias=pre_bias))

    return make


@pytest.fixture
def write_store(tmp_path: Path) -> Callable[..., ActivationStore]:
    """A harvest of random rows, of layers 1 and 3, with as many rows a shard as asked for."""

    def write(rows_in_shard: tuple[int, ...] = (50, 30, 41), *, dtype: str = "float32") -> ActivationStore:
        folder, rng, width = tmp_path / "activations", np.random.default_rng(5), 8
        folder.mkdir()
        header = {
            "schema": SCHEMA, "model": {"name": "toy", "digest": "00", "dtype": dtype}, "layers": [1, 3],
            "width": width, "prompt": "what?", "system": None, "corpus": {"clips": 0, "sha256": "00"}, "seed": 0,
            "n_shards": len(rows_in_shard),
        }  # fmt: skip
        (folder / HEADER).write_text(json_lines([header]))
        directions = rng.standard_normal((16, width))
        for shard, n_rows in enumerate(rows_in_shard):
            z = rng.uniform(1, 2, (2, n_rows, 16)) * (rng.uniform(size=(2, n_rows, 16)) < 0.15)
            rows = (z @ directions + 3).astype(dtype)
            line = {"clip": f"clip {shard}", "offset": 0, "tokens": n_rows, "seconds": 1.0, "labels": []}
            write_shard(folder, shard, {1: rows[0], 3: rows[1]}, [line])
        finish(folder, len(rows_in_shard))
        assert (folder / INDEX).is_file()
        return open_store(folder)

    return write
