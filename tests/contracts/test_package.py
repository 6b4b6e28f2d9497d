"""What `import sgpa_jax` promises: it is light, it changes nothing, and every public name is there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sgpa_jax

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "librosa", "matplotlib", "soundfile", "num2words")

PROBE = f"""
import sys
import jax
from jax._src import xla_bridge

before = dict(jax.config.values)
import sgpa_jax
{{statements}}
loaded = sorted(set({HEAVY}) & set(sys.modules))
assert not loaded, f"loaded {{{{loaded}}}}"
assert dict(jax.config.values) == before, "changed the configuration of jax"
assert not xla_bridge.backends_are_initialized(), "touched a device"
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)


def test_importing_everything_touches_nothing():
    names = "\n".join(f"sgpa_jax.{name}" for name in sgpa_jax.__all__)
    result = run(PROBE.format(statements=f"{names}\nimport sgpa_jax.api, sgpa_jax.cli, sgpa_jax.report"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("import soundfile", "loaded ['soundfile']"),
        ("jax.config.update('jax_enable_x64', True)", "changed the configuration of jax"),
        ("jax.devices()", "touched a device"),
    ],
)
def test_the_probe_notices(statement: str, complaint: str):
    result = run(PROBE.format(statements=statement))
    assert result.returncode == 1
    assert complaint in result.stderr


def test_the_package_itself_loads_no_library():
    result = run("import sgpa_jax, sys; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)")
    assert result.returncode == 0, result.stderr


def test_every_public_name_is_there():
    for name in sgpa_jax.__all__:
        assert getattr(sgpa_jax, name) is not None
    assert sorted(sgpa_jax.__all__) == sgpa_jax.__all__
    assert set(sgpa_jax.__all__) <= set(dir(sgpa_jax))


def test_names_for_type_checkers_are_the_public_names():
    tree = ast.parse(Path(sgpa_jax.__file__).read_text(encoding="utf-8"))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    homes = {
        alias.name: node.module
        for node in ast.walk(checking)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == sgpa_jax._HOMES
    assert set(homes) == set(sgpa_jax.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'explane'"):
        sgpa_jax.__getattr__("explane")


def test_functions_stay_functions_when_rooms_of_the_same_name_are_imported():
    code = (
        "import sgpa_jax, sgpa_jax.align, sgpa_jax.explain\n"
        "from sgpa_jax.explain import Explanation\n"
        "from sgpa_jax import align, explain\n"
        "assert callable(align) and callable(explain) and callable(sgpa_jax.explain)\n"
        "assert sgpa_jax.Explanation is Explanation\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_public_names_are_documented_on_one_page():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in sgpa_jax.__all__ if name not in page] == []
