"""Hostile texts, ids and file names through every output format: they stay texts, and files stay where they belong."""

import csv
import io
import os
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sgpa_jax.align import Alignment, Word, format_alignment, read_alignment, write_alignment
from sgpa_jax.audio import Clip, read_clip, write_wav
from sgpa_jax.batch import Manifest, open_manifest, write_page, write_part
from sgpa_jax.batch.outcome import Outcome
from sgpa_jax.batch.tables import bundle_key
from sgpa_jax.cli import app
from sgpa_jax.concepts import ConceptBank
from sgpa_jax.concepts.bank import Concept, Representative
from sgpa_jax.concepts.human import write_sheet
from sgpa_jax.errors import AlignmentError, SgpaError
from sgpa_jax.explain import Explanation
from sgpa_jax.report import page, write_concept_pages
from sgpa_jax.study.page import page as study_page
from sgpa_jax.study.table import Table

DURATION_S = 1.0
TEXTS = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--<script>", "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>', "' onmouseover='alert(1)", "]]>", "&lt;b&gt;&amp;", "${title} $data $$",
    "\u202eevil\u202c",
    "a\u2028b\u2029c", "a\nb\tc\rd", "\x1b[2J\x07", "x" * 20_000, '""', "`code` | cell |", "../../etc/passwd",
    "é\u0301👩‍👩‍👧",
    "{{ 7 * 7 }}", "javascript:alert(1)", "\ufeff\u200b", "%n%s%x", "[bold]x[/bold]",
)  # fmt: skip
FORMULAS = ("=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''+1", "-", "'tis", "'")


class Shape(HTMLParser):
    """What a page is made of: its elements with the names of their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def is_harmless(found: str, plain: str) -> None:
    """Check that a page of hostile texts has the very elements of one of plain texts, and no text that runs."""
    shape = Shape(found)
    assert shape.elements == Shape(plain).elements
    assert not any(name.startswith("on") for _, names in shape.elements for name in names)
    assert all(link.startswith(("data:", "#", "pages/", "latent", "concept", "index")) for link in shape.links)
    assert "Content-Security-Policy" in found and "default-src 'none'" in found.replace("&#x27;", "'")


@pytest.mark.parametrize("text", TEXTS)
def test_the_page_of_an_explanation(explain: Callable[..., Explanation], text: str, tmp_path: Path):
    explanation = explain(text)
    is_harmless(page(explanation), page(explain("plain")))
    explanation.save(tmp_path / "x.json")
    assert Explanation.load(tmp_path / "x.json").players == explanation.players
    assert not any(ord(c) < 32 and c != "\n" for c in explanation.summary())


@pytest.mark.parametrize("text", TEXTS)
def test_the_pages_of_concepts(text: str, tmp_path: Path):
    def pages(text: str, folder: Path) -> list[str]:
        clips = (Representative(text, Path("gone.wav"), 1.0, 0.5),)
        concept = Concept(3, text, 0.5, 0.1, 3, top=clips, bottom=clips, captions=(text,))
        sae = {"digest": "00", "layer": 1, "kind": "topk", "k": 2, "n_latents": 16, "width": 8, "step": 2}
        bank = ConceptBank({"name": text, "digest": "00", "dtype": "float32"}, sae, (concept,), {"clips": 3})
        bank.save(folder)
        paths = write_concept_pages(ConceptBank.load(folder), folder, {})
        assert all(path.parent == folder for path in paths)
        return [path.read_text("utf-8") for path in paths]

    for found, plain in zip(pages(text, tmp_path / "a"), pages("plain", tmp_path / "b"), strict=True):
        is_harmless(found, plain)


@pytest.mark.parametrize("text", TEXTS)
def test_the_page_of_a_study(text: str):
    def made(text: str) -> str:
        told = {
            "models": [{"name": text, "digest": "00", "dtype": "float32"}], "corpus": text, "items": 1, "command": text,
            "aligner": {"name": text, "digest": "00"}, "settings": {"seed": 0}, "hardware": text, "versions": {},
        }  # fmt: skip
        table = Table("table", "title", "a note", ("voice", "n"), ({"voice": text, "n": 3},))
        return study_page([table], {"figure": (text, b"png")}, told)

    is_harmless(made(text), made("plain"))


@pytest.mark.parametrize("text", TEXTS)
def test_the_page_of_a_data_set(explain: Callable[..., Explanation], text: str, tmp_path: Path):
    def made(text: str, folder: Path) -> str:
        outcomes = [
            Outcome(text, text, replace(explain(text), in_domain=False), None, None, 0.5),
            Outcome(f"{text} 2", text, None, None, text, 0.1),
        ]
        write_part(folder, 0, outcomes, key=bundle_key("00", 0))
        (folder / "run.json").write_text('{"key": "00", "bundles": 1}')
        path = write_page(folder)
        inside = [path.resolve() for path in folder.rglob("*")]
        assert all(path.is_relative_to(folder.resolve()) and len(path.name) < 120 for path in inside)
        return path.read_text("utf-8")

    is_harmless(made(text, tmp_path / "a"), made("plain", tmp_path / "b"))


def alignment(*texts: str) -> Alignment:
    """Words of these texts, one after the other."""
    edges_s = np.linspace(0.0, DURATION_S, len(texts) + 1).round(4).tolist()
    words = tuple(Word(text, start, end) for text, start, end in zip(texts, edges_s[:-1], edges_s[1:], strict=True))
    return Alignment(words, DURATION_S, " ".join(texts), "given", "", "given", "given")


@pytest.mark.parametrize("format", ["json", "textgrid", "csv"])
def test_alignments_come_back_as_they_were(format: str, tmp_path: Path):
    texts = [text.strip() for text in (*TEXTS, *FORMULAS) if text.strip()]
    write_alignment(alignment(*texts), tmp_path / "words", format=format)
    assert [word.text for word in read_alignment(tmp_path / "words", duration_s=DURATION_S).words] == texts


def test_labels_of_audacity_are_one_line_each():
    lines = format_alignment(alignment(*TEXTS, *FORMULAS), "audacity").split("\n")
    assert len(lines) == len(TEXTS) + len(FORMULAS) + 1
    assert all(line.count("\t") == 2 for line in lines[:-1])


def test_a_word_with_a_nul_is_refused(tmp_path: Path):
    write_alignment(alignment("a\0b"), tmp_path / "words")
    with pytest.raises(AlignmentError, match="without NULs"):
        read_alignment(tmp_path / "words", duration_s=DURATION_S)


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str, tmp_path: Path, key: Any):
    table = Table("table", "title", "note", ("voice", "value"), ({"voice": text, "value": -0.5},))
    concept = Concept(3, text, top=(Representative("a", None, 1.0, 0.5),))
    write_sheet({text: ConceptBank({}, {}, (concept,), {})}, tmp_path, raters=[text], n_items=1, key=key)
    sheets = [(tmp_path / name).read_text("utf-8") for name in ("ratings.csv", "items.csv")]
    for sheet in (format_alignment(alignment(text), "csv"), table.csv(), *sheets):
        cells = [cell for row in csv.reader(io.StringIO(sheet, newline="")) for cell in row]
        assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in cells)
        assert all(cell == "-0.5" for cell in cells if cell.startswith("-"))


NAMES = (
    "a\nb.wav", "-rf.wav", "--help", " ", "$(x)`x`.wav", "'\".wav", "<script>.wav", "\x1b[2J.wav", "%s%n.wav", "é" * 80,
    os.fsdecode(b"\xff\xfe.wav"),
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_recordings(explain: Callable[..., Explanation], name: str, tmp_path: Path):
    path = tmp_path / name
    write_wav(path, Clip(np.zeros(800, np.float32), 8000))
    assert read_clip(path).path == str(path)
    path.write_bytes(b"no recording")
    result = CliRunner().invoke(app, ["align", "--transcript", "lamp", "--", str(path)], prog_name="sgpa")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("sgpa: ") and all(c.isprintable() for c in line)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "a\0b.wav", "", "/dev/null/x.wav"])
def test_names_that_no_file_has(name: str, tmp_path: Path):
    with pytest.raises(SgpaError):
        read_clip(tmp_path / name)


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Manifest]:
    """A manifest of one row, in a folder beside which there is a recording that is none of its business."""
    (tmp_path / "inside").mkdir()
    write_wav(tmp_path / "secret.wav", Clip(np.zeros(800, np.float32), 8000))
    (tmp_path / "inside" / "link.wav").symlink_to(tmp_path / "secret.wav")

    def make(**row: str) -> Manifest:
        path = tmp_path / "inside" / "manifest.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([row, row.values()])
        return open_manifest(path)

    return make


@pytest.mark.parametrize("audio", ["../secret.wav", "a/../../secret.wav", "{}/secret.wav", "link.wav", "/etc/passwd"])
@pytest.mark.parametrize("column", ["audio", "alignment"])
def test_paths_that_lead_out_of_a_manifest(manifest: Callable[..., Manifest], tmp_path: Path, audio: str, column: str):
    opened = manifest(**{"audio": "a.wav", "id": "a", column: audio.format(tmp_path)})
    assert np.isnan(opened.durations_s).all()
    with pytest.raises(SgpaError, match="outside"):
        opened.row(0)


@pytest.mark.parametrize("id", ["../../x", "/etc/x", ".", "..", "-rf", "a/b", "x" * 150, "con", "a b", "<script>"])
def test_ids_name_files_in_their_folder(manifest: Callable[..., Manifest], explain: Any, tmp_path: Path, id: str):
    assert manifest(audio="a.wav", id=id).ids[0] == id
    out = tmp_path / "out"
    write_part(
        out, 0, [Outcome(id, "a.wav", replace(explain(), in_domain=False), None, None, 0.5)], key=bundle_key("00", 0)
    )
    (out / "run.json").write_text('{"key": "00", "bundles": 1}')
    write_page(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "out", "secret.wav"]
    (item,) = (out / "pages").iterdir()
    assert item.suffix == ".html" and not item.name.startswith(("-", "."))


def test_ids_that_name_no_file(manifest: Callable[..., Manifest]):
    for id in ("a\nb", "x" * 300, "\x1b", "é" * 100):
        with pytest.raises(SgpaError):
            manifest(audio="a.wav", id=id).row(0)
