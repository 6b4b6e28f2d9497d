"""The examples run, and print what they promise."""

import runpy
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_foreign_model_is_explained_in_fifteen_lines(capsys):
    found = runpy.run_path(str(EXAMPLES / "foreign_model.py"))
    assert len(capsys.readouterr().out.splitlines()) == 5
    result, fn = found["result"], found["sentiment"]
    everybody = fn(np.ones((1, 5), bool)) - fn(np.zeros((1, 5), bool))
    np.testing.assert_allclose(result.values_pk.sum(axis=0), everybody, atol=1e-5)
    source = (EXAMPLES / "foreign_model.py").read_text()
    code = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith('"""')]
    assert len(code) <= 15 and result.estimator == "exact"


def test_inside_your_jit_is_right_for_a_linear_model(capsys):
    found = runpy.run_path(str(EXAMPLES / "inside_your_jit.py"))
    assert "[" in capsys.readouterr().out
    np.testing.assert_allclose(found["shapley_bp"], found["inputs_bp"] * found["weight_p"][None, :], atol=1e-4)
