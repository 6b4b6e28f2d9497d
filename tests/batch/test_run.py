"""A data set run with the shipped models: against `explain`, stopped and gone on with, asked again, and failing."""

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest

import sgpa_jax
from sgpa_jax.api import Asked
from sgpa_jax.batch import Job, plan_batch, read_items, read_players, run_batch, standing
from sgpa_jax.batch import bundles as bundles_of
from sgpa_jax.errors import SgpaError, UsageError
from sgpa_jax.models import load_model

RATE_HZ = 16000
ASKED = Asked(players="windows:0.3", max_new_tokens=4)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Noise of two or three windows each, with answers of their own to explain, or none; and a file that is broken."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number, length_s in enumerate((0.9, 0.6, 0.9, 0.6, 0.9)):
        wave = 0.1 * np.random.default_rng(number).standard_normal(int(length_s * RATE_HZ)).astype(np.float32)
        sgpa_jax.write_wav(folder / f"{number}.wav", sgpa_jax.Clip(wave, RATE_HZ))
        rows.append({"audio": f"{number}.wav", "id": f"item {number}", **({"response": "red"} if number else {})})
    (folder / "broken.wav").write_bytes(b"RIFF")
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"audio": "broken.wav", "id": "broken"}]))
    return path


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch):
    monkeypatch.setattr(bundles_of, "MOST_ITEMS", 2)


@pytest.fixture(scope="module")
def whole(manifest, tmp_path_factory):
    """The data set, run without being stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundles_of, "MOST_ITEMS", 2)
        out = tmp_path_factory.mktemp("whole") / "out"
        now = run_batch(Job(manifest=str(manifest), out=out, asked=ASKED, given_responses=True))
    assert (now.done, now.items, now.before, now.failed) == (6, 6, 0, 1)
    assert now.coalitions == 3 * 2**3 + 2 * 2**2 and now.compiles > 0
    return out


def rows_of(tables):
    return [row for table in tables for row in table.to_pylist()]


def test_every_item_is_explained_as_it_would_be_alone(manifest, whole):
    model = load_model("pocket")
    players = rows_of(read_players(whole))
    for item in rows_of(read_items(whole)):
        if item["id"] == "broken":
            assert "broken.wav" in item["error"] and item["explanation"] is None
            continue
        options = {"players": "windows:0.3", "max_new_tokens": 4, "model": model}
        response = "red" if item["id"] != "item 0" else None
        alone = sgpa_jax.explain(manifest.parent / item["audio"], response=response, **options)
        assert (item["response"], item["in_domain"]) == (alone.response, alone.in_domain)
        assert item["game_key"] == alone.game["key"] and item["requested"] == alone.evaluations["requested"]
        assert item["unique"] == alone.evaluations["unique"] <= item["model_forwards"]
        own = [row["value"] for row in players if row["id"] == item["id"]]
        np.testing.assert_allclose(own, alone.values[:, 0], atol=3e-5)


def test_a_stopped_run_goes_on_behind_what_is_finished(manifest, whole, tmp_path, tables_differ):
    job = Job(manifest=str(manifest), out=tmp_path, asked=ASKED, given_responses=True)

    def stop(now):
        if now.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(job, progress=stop)
    assert len(standing(tmp_path).missing) == 2
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.parquet")}
    assert len(kept) == 3
    now = run_batch(job)
    assert (now.before, now.done) == (2, 6)
    assert tables_differ(tmp_path, whole) == []
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert run_batch(job).coalitions == 0


def test_another_estimator_finds_every_coalition_evaluated_already(manifest, tmp_path):
    job = Job(manifest=str(manifest), out=tmp_path, asked=ASKED, given_responses=True)
    assert run_batch(job).coalitions > 0
    again = Asked(players="windows:0.3", max_new_tokens=4, estimator="permutation", seed=7)
    now = run_batch(Job(manifest=str(manifest), out=tmp_path, asked=again, given_responses=True))
    assert (now.coalitions, now.done, now.before) == (0, 6, 0)
    items = rows_of(read_items(tmp_path))
    assert {item["estimator"] for item in items if item["error"] is None} == {"permutation"}
    assert {item["model_forwards"] for item in items if item["error"] is None} == {0}


def test_values_that_compare_responses_are_kept_and_asked_again(manifest, tmp_path):
    asked = Asked(players="windows:0.3", max_new_tokens=4, value="tfidf")
    now = run_batch(Job(manifest=str(manifest), out=tmp_path, limit=1, asked=asked))
    assert now.coalitions == 8 and now.failed == 0
    other = Asked(players="windows:0.3", max_new_tokens=4, value="tfidf", estimand="banzhaf")
    assert run_batch(Job(manifest=str(manifest), out=tmp_path, limit=1, asked=other)).coalitions == 0


def test_shards_are_shares_of_one_run(manifest, whole, tmp_path, tables_differ):
    for share in range(2):
        run_batch(Job(manifest=str(manifest), out=tmp_path, asked=ASKED, given_responses=True), shard=(share, 2))
    assert tables_differ(tmp_path, whole) == []


def test_the_first_failure_ends_a_run_that_wants_it(manifest, tmp_path):
    with pytest.raises(SgpaError, match=r"^broken: .*broken\.wav"):
        run_batch(Job(manifest=str(manifest), out=tmp_path, asked=ASKED, given_responses=True), fail_fast=True)
    assert [*standing(tmp_path).missing] == [2]


def test_a_folder_is_of_one_game_and_one_writer(manifest, whole):
    other = Job(
        manifest=str(manifest), out=whole, asked=Asked(players="windows:0.3", absence="noise"), given_responses=True
    )
    with pytest.raises(UsageError, match="another absence, max_new_tokens: choose another folder"):
        run_batch(other)
    with (whole / ".lock-0-of-1").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is writing"):
            run_batch(Job(manifest=str(manifest), out=whole, asked=ASKED, given_responses=True))
    with pytest.raises(UsageError, match="unknown engine 'spark'"):
        run_batch(Job(manifest=str(manifest), out=whole, asked=ASKED, given_responses=True), engine="spark")


def test_a_folder_that_cannot_be_written_is_refused(manifest, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        run_batch(Job(manifest=str(manifest), out=Path(tmp_path / "file" / "out"), asked=ASKED, given_responses=True))


def test_a_plan_tells_the_programs_of_a_trie(spoken_manifest, tmp_path):
    job = Job(manifest=str(spoken_manifest(3, 4)), out=tmp_path / "out", asked=Asked(absence="attention"))
    plan = plan_batch(job)
    # Bundles of two and of one.
    assert (plan["bundles"], plan["coalitions"], plan["programs"]) == (2, 48, 2) and len(plan["buckets"]) == 2
    assert plan["bytes_at_once"] > 2**16 and not job.out.exists()


def test_a_plan_tells_the_shapes_of_what_is_answered(spoken_manifest, tmp_path):
    job = Job(manifest=str(spoken_manifest(3, 4)), out=tmp_path / "out", asked=Asked(absence="delete", value="tfidf"))
    plan = plan_batch(job)
    assert plan["coalitions"] == 48 and plan["programs"] == 2 * len(plan["buckets"]) > 0
    assert all(shape.startswith("16 prompts of ") for shape in plan["buckets"])
    assert plan["bytes_at_once"] > 2**16 and not job.out.exists()
