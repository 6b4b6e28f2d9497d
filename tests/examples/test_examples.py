"""The examples run, and print what they promise."""

import runpy
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import sgpa_jax

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


def test_a_foreign_decoder_is_explained_by_the_trie_engine(capsys, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    found = runpy.run_path(str(EXAMPLES / "foreign_decoder.py"))
    assert "[" in capsys.readouterr().out
    decoder, passage = found["decoder"], found["passage"]
    masks = sgpa_jax.all_coalitions(4)
    alone = sgpa_jax.evaluate_flat(decoder, passage, jnp.asarray(masks))
    np.testing.assert_allclose(found["game"].values(masks), alone, atol=1e-4)
    source = (EXAMPLES / "foreign_decoder.py").read_text()
    statements = [
        line for line in source.splitlines() if line.strip() and not line.lstrip().startswith(('"""', "import"))
    ]
    assert len(statements) <= 17, "the decoder itself and its explanation"


def test_the_engine_runs_inside_of_anybodys_jit_and_on_all_devices(capsys, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    found = runpy.run_path(str(EXAMPLES / "engine_inside_your_jit.py"))
    assert "[" in capsys.readouterr().out
    passage, masks = found["passage"], sgpa_jax.all_coalitions(4)
    for prompt, shapley in zip(found["prompts_btd"][:2], found["shapley_bp"], strict=False):
        values = sgpa_jax.evaluate_flat(found["decoder"], replace(passage, x_td=prompt), jnp.asarray(masks))
        np.testing.assert_allclose(shapley, sgpa_jax.exact_shapley(values.sum(axis=1)), atol=1e-3)
