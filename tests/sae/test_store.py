"""Shards and the order in which they are read."""

import numpy as np
import pytest

from sgpa_jax.errors import UsageError
from sgpa_jax.sae import ShuffledRows, open_store


def test_an_epoch_has_every_row_once_in_another_order(write_store):
    store = write_store()
    assert (store.n_rows, store.rows_in_shard) == (121, (50, 30, 41))
    rows = ShuffledRows(store, 3, batch=121, seed=1, buffer_shards=2)
    first, second = rows.next(), rows.next()
    everything = np.concatenate([store.rows(shard, 3) for shard in range(3)])
    for epoch in (first, second):
        assert not np.array_equal(epoch, everything)
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(everything, axis=0))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, ShuffledRows(store, 3, batch=121, seed=2, buffer_shards=2).next())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cursor_finds_its_place(write_store, dtype):
    """Batches of 17 run over the edges of buffers and of epochs."""
    store = write_store(dtype=dtype)
    rows = ShuffledRows(store, 1, batch=17, seed=1, buffer_shards=1)
    batches = [rows.next() for _ in range(20)]
    assert batches[0].dtype.name == dtype and rows.cursor == 340
    for n in (3, 7, 12, 19):
        again = ShuffledRows(store, 1, batch=17, seed=1, buffer_shards=1)
        again.cursor = 17 * n
        np.testing.assert_array_equal(again.next(), batches[n])
    np.testing.assert_array_equal(
        np.concatenate(batches)[:121].sum(axis=0),
        ShuffledRows(store, 1, batch=121, seed=1, buffer_shards=1).next().sum(axis=0),
    )


def test_refuses(write_store, tmp_path):
    with pytest.raises(UsageError, match="holds no activations"):
        open_store(tmp_path)
    store = write_store()
    with pytest.raises(UsageError, match="layers 1, 3, but not 2"):
        ShuffledRows(store, 2, batch=4, seed=0)
    path = store.folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match="is damaged"):
        store.rows(1, 1)
    header = store.folder / "harvest.json"
    header.write_text(header.read_text().replace("activations/1", "activations/2"))
    with pytest.raises(UsageError, match="activations/2"):
        open_store(store.folder)
