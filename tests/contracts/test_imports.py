"""Who may import whom: data flows from audio to report, and a room knows only the rooms before it."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ("audio", "models", "sae", "align", "players", "games", "estimators", "concepts", "explain", "report")
LEAVES = ("typing", "errors", "files", "versions")
# An edge may import every room, and the edges before it.
EDGES = ("interop", "archive", "api", "study", "batch", "cli")
# The methods of the result object that draw or convert import those who do when they are called.
LAZY_EXCEPTIONS = {("explain", "report"), ("explain", "interop")}
ALLOWED_BY_PACKAGE = {
    "sgpa_kernels": {"jax", "jaxtyping", "numpy"},
    "sgpa_checkpoints": {"ml_dtypes", "numpy", "safetensors"},
}
FOLDERS = {
    "sgpa_jax": ROOT / "sgpa_jax",
    "sgpa_kernels": ROOT / "kernels" / "sgpa_kernels",
    "sgpa_checkpoints": ROOT / "checkpoints" / "sgpa_checkpoints",
}


def modules(package: str) -> list[Path]:
    return sorted(FOLDERS[package].rglob("*.py"))


def imported(path: Path, *, at_run_time_only: bool = False) -> set[str]:
    """Dotted names of all modules that the file imports, wherever it does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if at_run_time_only:
        tree = _WithoutTypeChecking().visit(tree)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: name the room"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def room(path: Path) -> str:
    return path.relative_to(FOLDERS["sgpa_jax"]).with_suffix("").parts[0]


def exports(name: str) -> list[str]:
    """What the room's `__all__` lists."""
    tree = ast.parse((FOLDERS["sgpa_jax"] / name / "__init__.py").read_text(encoding="utf-8"))
    (listed,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return ast.literal_eval(listed)


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("sgpa_jax.")}


def may_import(ours: str, theirs: str) -> bool:
    if ours == theirs or (theirs in LEAVES and ours not in LEAVES) or (ours, theirs) == ("files", "errors"):
        return True
    if ours in EDGES:
        return theirs in ORDER or theirs in EDGES[: EDGES.index(ours)]
    if ours in ORDER and theirs in ORDER and ORDER.index(theirs) < ORDER.index(ours):
        return True
    return (ours, theirs) in LAZY_EXCEPTIONS


@pytest.mark.parametrize(
    ("ours", "theirs", "allowed"),
    [
        ("align", "audio", True),
        ("audio", "align", False),
        ("models", "errors", True),
        ("errors", "audio", False),
        ("games", "api", False),
        ("api", "report", True),
        ("cli", "api", True),
        ("api", "cli", False),
        ("api", "archive", True),
        ("archive", "api", False),
        ("explain", "report", True),
        ("explain", "interop", True),
        ("estimators", "interop", False),
        ("games", "report", False),
    ],
)
def test_the_rule_itself(ours: str, theirs: str, allowed: bool):
    assert may_import(ours, theirs) is allowed


def test_every_room_is_known():
    found = {room(path) for path in modules("sgpa_jax")} - {"__init__"}
    assert found == {*ORDER, *LEAVES, *EDGES}


@pytest.mark.parametrize("path", modules("sgpa_jax"), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_rooms_before_them(path: Path):
    ours, names = room(path), imported(path)
    if ours == "__init__":
        names = imported(path, at_run_time_only=True)
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
        return
    assert "sgpa_jax" not in names or ours == "cli"
    assert {name for name in rooms_of(names) - {"__version__"} if not may_import(ours, name)} == set()


@pytest.mark.parametrize("path", modules("sgpa_jax"), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_what_a_room_exports_not_its_files(path: Path):
    names = [name.split(".") for name in imported(path) if name.startswith("sgpa_jax.")]
    foreign = {".".join(name) for name in names if len(name) > 2 and name[1] in ORDER and name[1] != room(path)}
    assert foreign - {f"sgpa_jax.{name}.{export}" for name in ORDER for export in exports(name)} == set()


def test_methods_that_draw_or_convert_break_the_order_only_when_called():
    for path in modules("sgpa_jax"):
        if room(path) == "explain":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            top = {name for node in tree.body if isinstance(node, ast.ImportFrom) for name in [node.module or ""]}
            assert not any(name.startswith(("sgpa_jax.report", "sgpa_jax.interop")) for name in top), path


@pytest.mark.parametrize("package", sorted(ALLOWED_BY_PACKAGE))
def test_kernels_and_checkpoints_know_nothing_of_us(package: str):
    allowed = {*ALLOWED_BY_PACKAGE[package], package, *sys.stdlib_module_names}
    assert modules(package), f"{package} has no modules"
    for path in modules(package):
        assert {name.split(".")[0] for name in imported(path)} - allowed == set(), path


def test_every_library_that_we_import_is_a_dependency():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = declared["optional-dependencies"]
    optional = ("plot", "interop", "data", "ray")
    wanted = [*declared["dependencies"], *(library for name in optional for library in extras[name])]
    names = {requirement.split(">")[0].split("[")[0].replace("-", "_") for requirement in wanted}
    # Orbax's parts share one namespace.
    known = {*names, "orbax", *FOLDERS, *sys.stdlib_module_names}
    for package in FOLDERS:
        for path in modules(package):
            assert {name.split(".")[0] for name in imported(path)} - known == set(), path
