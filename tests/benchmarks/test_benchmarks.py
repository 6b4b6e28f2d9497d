"""Every benchmark parses its arguments, and what they share times fairly and writes the layout that readers expect."""

import importlib
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark as it is when it runs as a script."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def harness(load):
    return load("_harness")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_tells_the_common_arguments(script, load, monkeypatch, capsys):
    main = load(script).main
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(option in shown for option in ("--json FILE", "--quick", "--seed SEED"))


def test_report_writes_the_layout(harness, tmp_path, capsys):
    path = tmp_path / "new" / "result.json"
    arguments = harness.parser("What?").parse_args(["--json", str(path), "--seed", "3"])
    harness.report("example", [{"case": "a", "median_ms": 1.25}, {"case": "b", "rate": float("nan")}], arguments)
    written = json.loads(path.read_text())
    assert list(written) == ["benchmark", "hardware", "versions", "seed", "rows"]
    assert (written["benchmark"], written["seed"]) == ("example", 3)
    assert written["rows"] == [{"case": "a", "median_ms": 1.25}, {"case": "b", "rate": None}]
    assert written["hardware"]["cores"] >= 1
    assert {"sgpa_jax", "jax", "torch"} <= set(written["versions"])
    shown = capsys.readouterr().out
    assert all(column in shown for column in ("case", "median_ms", "1.25", "rate"))


def test_notes_are_written_where_there_are_some(harness, tmp_path):
    arguments = harness.parser("What?").parse_args(["--json", str(tmp_path / "result.json")])
    harness.report("example", [{"case": "a"}], arguments, notes={"aligner": "pocket"})
    assert json.loads((tmp_path / "result.json").read_text())["notes"] == {"aligner": "pocket"}


def test_both_sides_take_turns_after_compiling(harness):
    called = []

    def side(name):
        called.append(name)
        return jnp.full(3, len(called))

    timings = harness.alternate({"ours": lambda: side("ours"), "peer": lambda: side("peer")}, 3)
    assert called == ["ours", "peer"] * 4
    np.testing.assert_array_equal(timings["peer"].returned, [8, 8, 8])
    row = harness.comparison("case", "peer", timings["ours"], timings["peer"], 0.5)
    assert row["ratio"] == pytest.approx(row["peer_s"] / row["ours_s"])
    assert row["max_abs_diff"] == 0.5


def test_errors_know_joined_edges_from_pauses(load):
    true_w2 = np.array([(0.1, 0.2), (0.2, 0.3), (0.5, 0.6)])
    found_w2 = np.array([(0.1, 0.21), (0.21, 0.4), (0.4, 0.6)])
    errors = load("alignment").Errors()
    errors.add(found_w2, true_w2)
    assert errors.kinds == ["outer", "joined", "joined", "pause", "pause", "outer"]
    np.testing.assert_allclose(errors.edges_ms, [0, 10, 10, 100, 100, 0], atol=1e-9)
    assert errors.row()["within_20ms"] == pytest.approx(4 / 6)
    assert errors.row()["pause_ms"] == pytest.approx(100)


def test_quiet_edges_find_the_pauses_that_uniform_ones_miss(load):
    alignment = load("alignment")
    wave_s = np.zeros(16000, np.float32)
    for start, end in ((1600, 4800), (5600, 8000), (8800, 14400)):
        wave_s[start:end] = 0.5 * np.sin(np.arange(end - start))
    clip = alignment.Clip(wave_s, 16000)
    level_f = alignment._level_db(clip)
    uniform_e = alignment._uniform_edges(level_f, 3)
    quiet_e = alignment._quiet_edges(level_f, uniform_e)
    np.testing.assert_allclose(uniform_e[[0, -1]], (0.1, 0.9), atol=0.02)
    assert 0.3 <= quiet_e[1] <= 0.35
    assert 0.5 <= quiet_e[2] <= 0.55


def test_real_speech_says_why_it_does_nothing(load, monkeypatch, capsys):
    monkeypatch.delenv("SGPA_SPEECH_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["real_speech"])
    load("real_speech").main()
    assert capsys.readouterr().out.startswith("skipped: SGPA_SPEECH_DATA is unset")
