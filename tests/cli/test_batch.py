"""`sgpa batch`: tables and a page for a folder of recordings, what it would cost, and what is refused."""

import json

import numpy as np
import pytest

import sgpa_jax
from sgpa_jax.batch import read_items

RATE_HZ = 16_000


@pytest.fixture
def corpus(tmp_path):
    """Two recordings with what is said in them, and one of nothing."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, length_s in (("a", 0.7), ("b", 0.7)):
        wave = 0.1 * np.random.default_rng(ord(name)).standard_normal(int(length_s * RATE_HZ)).astype(np.float32)
        sgpa_jax.write_wav(folder / f"{name}.wav", sgpa_jax.Clip(wave, RATE_HZ))
        (folder / f"{name}.txt").write_text("lamp red")
    (folder / "c.wav").write_bytes(b"")
    (folder / "c.txt").write_text("lamp red")
    return folder


def test_a_folder_becomes_tables_and_a_page_and_failures_are_told(sgpa, corpus, tmp_path):
    out = tmp_path / "out"
    told = sgpa("batch", corpus, "--out", out, "--max-new-tokens", 3, "--json")
    assert told.exit_code == 3
    now = json.loads(told.stdout)
    assert (now["done"], now["items"], now["failed"], now["missing"]) == (3, 3, 1, [])
    assert "failed: c: " in told.stderr and "Traceback" not in told.stderr
    (table,) = read_items(out)
    assert table["players"].to_pylist() == [2, 2, None]
    assert "<html" in (out / "index.html").read_text()
    again = sgpa("batch", corpus, "--out", out, "--max-new-tokens", 3)
    assert again.exit_code == 3 and "3 of 3 items, 1 of them failed; 0 coalitions" in again.stdout


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(sgpa, corpus, tmp_path):
    told = sgpa("batch", corpus, "--out", tmp_path / "out", "--dry-run", "--json")
    assert told.exit_code == 0
    plan = json.loads(told.stdout)
    assert (plan["items"], plan["unreadable"], plan["coalitions"], plan["programs"]) == (3, 1, 12, 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--shard", "2/2"], "the shard is '2/2': expected i/N"),
        (["--shard", "first"], "the shard is 'first'"),
        (["--engine", "spark"], "unknown engine 'spark'"),
        (["--preset", "paper", "--absence", "noise"], "the preset paper has absence silence, but absence noise"),
        (["--absence", "gone"], "unknown absence 'gone'"),
        (["--model", "packet"], "packet"),
        (["--transcript", "lamp red"], "the transcript is 'lamp red': expected auto or auto:model"),
        (["--fail-fast", "--engine", "ray"], "--fail-fast"),
    ],
)
def test_bad_options_are_told_in_a_sentence(sgpa, corpus, tmp_path, options, sentence):
    told = sgpa("batch", corpus, "--out", tmp_path / "out", *options)
    assert told.exit_code == 2 and sentence in told.stderr and told.stderr.count("\n") == 1


def test_a_manifest_that_is_none_is_refused(sgpa, tmp_path):
    told = sgpa("batch", tmp_path / "nowhere.csv", "--out", tmp_path / "out")
    assert told.exit_code == 2 and "nowhere.csv" in told.stderr
