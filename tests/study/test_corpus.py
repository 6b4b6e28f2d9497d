"""Manifests: what a row may hold, and one sentence for what it must not."""

import json
from pathlib import Path
from typing import Any

import pytest

from sgpa_jax.errors import UsageError
from sgpa_jax.study.corpus import Item, Span, read_corpus
from sgpa_jax.study.study import shipped_corpus

ROW = {
    "id": "one",
    "audio": "clips/one.flac",
    "transcript": " make  the lamp red ",
    "prompt": "what colour ?",
    "response": "red",
    "evidence": [3],
    "condition": "clean",
    "category": "plain",
    "voice": "flite/rms",
    "words": [["make", 0.1, 0.3], ["the", 0.3, 0.4], ["lamp", 0.4, 0.8], ["red", 0.9, 1.2]],
    "phones": [["m", 0.1, 0.2]],
}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def test_a_row_becomes_an_item(tmp_path: Path):
    (item,) = read_corpus(written(tmp_path, ROW))
    assert item == Item(
        id="one", path=tmp_path / "clips/one.flac", transcript="make the lamp red", prompt="what colour ?",
        response="red", evidence=(3,), condition="clean", category="plain", voice="flite/rms",
        words=(Span("make", 0.1, 0.3), Span("the", 0.3, 0.4), Span("lamp", 0.4, 0.8), Span("red", 0.9, 1.2)),
        phones=(Span("m", 0.1, 0.2),),
    )  # fmt: skip


def test_only_audio_and_transcript_are_needed(tmp_path: Path):
    (item,) = read_corpus(written(tmp_path, {"audio": "a.wav", "transcript": "hello"}))
    assert (item.id, item.prompt, item.evidence, item.words) == ("a.wav", None, (), ())


def test_csv_says_the_same(tmp_path: Path):
    path = tmp_path / "manifest.csv"
    path.write_text('audio,transcript,evidence,words\na.wav,hello you,0;1,"[[""hello"", 0, 0.5], [""you"", 0.5, 1]]"\n')
    (item,) = read_corpus(path)
    assert (item.evidence, item.words) == ((0, 1), (Span("hello", 0, 0.5), Span("you", 0.5, 1)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"audio": ""}, "'audio' is missing"),
        ({"transcript": None}, "'transcript' is missing"),
        ({"prompt": ["what?"]}, "'prompt' is"),
        ({"evidence": [4]}, "expected their indices"),
        ({"evidence": "three"}, "three"),
        ({"words": [["make", 0.5, 0.2]]}, "ends after starts"),
        ({"words": [["a", 0, 0.5], ["b", 0.3, 0.6]]}, "times in order"),
        ({"words": [["make", 0.5]]}, "expected \\[label, start, end\\]"),
        ({"words": [["make", 0, "nan"]]}, "ends after starts"),
        ({"id": "x" * 300}, "too long"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, Any], complaint: str):
    with pytest.raises(UsageError, match=f"row 2 of the manifest .*{complaint}"):
        read_corpus(written(tmp_path, {"audio": "a.wav", "transcript": "hello"}, ROW | change))


def test_a_wrong_file_is_named(tmp_path: Path):
    for text, complaint in (("", "no rows"), ("{", "no JSON lines"), ("3", "expected an object")):
        (tmp_path / "m.jsonl").write_text(text)
        with pytest.raises(UsageError, match=complaint):
            read_corpus(tmp_path / "m.jsonl")
    with pytest.raises(UsageError, match="cannot read the manifest"):
        read_corpus(tmp_path / "nowhere.jsonl")
    with pytest.raises(UsageError, match="'one' more than once"):
        read_corpus(written(tmp_path, ROW, ROW))


def test_the_corpus_that_ships_is_whole():
    items = read_corpus(shipped_corpus())
    assert len(items) == 16
    assert {item.condition for item in items} == {"mixed", "clean", "noise", "reverb"}
    assert {item.category for item in items} == {"plain", "negation", "correction", "binding", "sound"}
    for item in items:
        assert item.path.is_file()
        assert [word.label for word in item.words] == item.transcript.split()
        assert item.evidence and item.prompt and item.response and item.phones
        assert bool(item.sounds) == (item.category == "sound")
        assert item.phones[0].start_s == 0
    assert sum(path.stat().st_size for path in shipped_corpus().parent.iterdir()) <= 2**20
