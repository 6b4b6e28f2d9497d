"""How the project's own files look: short, in place, and of no particular machine."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = {".py", ".md", ".toml", ".html", ".css", ".js", ".json", ".cfg", ""}
FOLDERS = ("sgpa_jax", "kernels", "checkpoints", "tests", "benchmarks", "examples", "docs", ".ci")
WORKPLACE = (str(ROOT), "/root/", "/home/")
LONGEST = 600


def project_files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files = [path for path in [*inside, *ROOT.iterdir()] if path.is_file() and path.suffix in SUFFIXES]
    return [path for path in files if "__pycache__" not in path.parts and path.stat().st_size < 2**20]


def test_files_are_found():
    assert {"pyproject.toml", "README.md", "Makefile", "run", "__init__.py"} <= {path.name for path in project_files()}


def test_no_file_names_the_place_where_it_was_written():
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in project_files()
        for word in WORKPLACE
        if path != Path(__file__) and word in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_a_file_is_one_idea():
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in project_files() if path.suffix == ".py"
    }
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST} == {}


def test_kernels_and_checkpoints_are_plain_folders():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "checkpoints" / "__init__.py").exists()
