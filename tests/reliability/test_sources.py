"""Nothing of ours unpickles, evaluates text as code, or lets a repository of the hub run its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("sgpa_jax", "kernels/sgpa_kernels", "checkpoints/sgpa_checkpoints")
MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
CALLS = {"eval", "exec", "compile", "np.load", "numpy.load", "torch.load", "jnp.load", "jax.numpy.load", "os.system"}
KEYWORDS = {"allow_pickle", "trust_remote_code", "shell"}


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Give every import, call and keyword that is not allowed, with its line."""
    for node in ast.walk(tree):
        names = []
        if not isinstance(node, ast.stmt | ast.expr):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        if MODULES & {*names}:
            yield f"line {node.lineno} imports {names}"
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in CALLS:
                yield f"line {node.lineno} calls {ast.unparse(node.func)}"
            yield from (f"line {node.lineno} gives {word.arg}" for word in node.keywords if word.arg in KEYWORDS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_source_unpickles_or_runs_text(folder: str):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    found = {path.relative_to(ROOT): [*forbidden(ast.parse(path.read_text("utf-8")))] for path in paths}
    assert not {path: told for path, told in found.items() if told}


def test_what_is_looked_for_is_found():
    allowed = "model.eval()\nre.compile('x')\nfrom safetensors.numpy import load"
    refused = "import pickle\nfrom joblib import load\nnp.load(x, allow_pickle=True)\neval('1')"
    assert not [*forbidden(ast.parse(allowed))]
    assert len([*forbidden(ast.parse(refused))]) == 5
