"""`sgpa study` from a manifest to its files, with the model and the corpus that ship."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sgpa_jax.cli.app import SentenceGroup
from sgpa_jax.cli.study import study
from sgpa_jax.study.corpus import read_corpus
from sgpa_jax.study.study import shipped_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shortest command that ships, and a recording that is not there."""
    folder = tmp_path_factory.mktemp("corpus")
    shortest = min(read_corpus(shipped_corpus()), key=lambda item: (len(item.words) + len(item.sounds), item.id))
    lines = shipped_corpus().read_text("utf-8").splitlines()
    (row,) = [row for row in map(json.loads, lines) if row["id"] == shortest.id]
    rows = [row | {"audio": str(shortest.path)}, {"id": "gone", "audio": "gone.wav", "transcript": "hello"}]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def out(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        # Every absence is some programs to compile; that all of them work is the games' test.
        patch.setattr("sgpa_jax.study.item.PRESETS", ("paper",))
        patch.setattr("sgpa_jax.study.item.ABSENCES", ("silence", "noise", "attention"))
        result = run(manifest, folder)
    assert result.exit_code == 3, result.output
    assert "failed: gone (pocket)" in result.stderr and "gone.wav" in result.stderr
    return folder


def run(*arguments: str | Path):
    import typer

    app = typer.Typer(cls=SentenceGroup)
    app.command()(study)
    app.callback()(lambda: None)
    manifest, folder, *more = arguments
    options = ["--model", "pocket", "--budget", "128", "--share", "1", *more]
    return CliRunner().invoke(app, ["study", str(manifest), "--out", str(folder), *map(str, options)])


def test_everything_is_written(out: Path):
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"index.html", "tables.md", "tables.json", "tables/evidence.csv", "figures/evidence.png"} <= names
    told = json.loads((out / "tables.json").read_text("utf-8"))
    assert [model["name"] for model in told["models"]] == ["pocket"]
    rows = {table["name"]: table["rows"] for table in told["tables"]}
    (items,) = rows["items"]
    assert (items["items"], items["failed"], items["right"]) == (2, 1, 1)
    assert "preset paper/silence" in {row["game"] for row in rows["evidence"]}
    cuts = {row["players"] for row in rows["evidence"]}
    assert cuts >= {"words", "true", "authors", "ctc"}
    assert {row["hit_rate"] for row in rows["evidence"] if row["players"] == "true"} == {1}
    changed = {row["changed"] for row in rows["sensitivity"]}
    assert changed >= {f"absence {name}" for name in ("noise", "attention")}
    assert changed >= {"jitter 20 0", "jitter 50 1", "edges true", "edges ctc", "edges authors"}
    edges = {(row["emissions"], row["stage 3"]): row for row in rows["edges_by_condition"]}
    assert edges["phone", "sgpa"]["median_ms"] < edges["none", "uniform"]["median_ms"]
    assert {row["players"] for row in rows["cuts"]} >= {"phone sgpa", "true", "random"}
    assert {row["judged by"] for row in rows["judges"]} >= {"logprob/attention", "response_embedding/silence"}


def test_a_finished_study_is_read_and_not_made_again(manifest: Path, out: Path):
    kept = {path: path.stat().st_mtime_ns for path in (out / "records").rglob("*.json")}
    tables = (out / "tables" / "evidence.csv").read_bytes()
    (out / "tables" / "evidence.csv").unlink()
    assert run(manifest, out).exit_code == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (out / "tables" / "evidence.csv").read_bytes() == tables


def test_values_add_up_in_every_record(out: Path):
    (path,) = (path for path in (out / "records" / "pocket").iterdir() if path.name != "gone.json")
    record = json.loads(path.read_text("utf-8"))
    assert {row["players"] for row in record["attributions"]} == {
        "words", "true", "random", "uniform", "authors", "ctc", "native",
    }  # fmt: skip
    assert not [name for name in record["facts"] if name.startswith("without")]
    for row in record["attributions"]:
        if row["estimator"] in ("exact", "permutation"):
            assert sum(row["values"]) == pytest.approx(row["full_value"] - row["empty_value"], abs=2e-3)
        assert row["full_value"] == pytest.approx(1, abs=1e-4) or row["value"] == "logprob"


def test_a_manifest_or_the_demo(tmp_path: Path):
    assert run(tmp_path / "nowhere.jsonl", tmp_path).exit_code == 2
    assert "expected either" in run(shipped_corpus(), tmp_path, "--demo").stderr
