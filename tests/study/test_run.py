"""Running: nothing is done twice, what fails is told, and what was stopped goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.errors import PlayerError, UsageError
from sgpa_jax.study.corpus import Item, read_corpus
from sgpa_jax.study.heard import Heard
from sgpa_jax.study.notes import Notes
from sgpa_jax.study.records import Record, RecordFolder
from sgpa_jax.study.run import Part, run_parts
from sgpa_jax.study.settings import Settings


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    rows = []
    for number in range(4):
        if number != 2:
            write_wav(tmp_path / f"{number}.wav", Clip(np.full(800, 0.1 + number / 10, np.float32), 16_000))
        rows.append({"id": f"item {number}", "audio": f"{number}.wav", "transcript": "a"})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return read_corpus(tmp_path / "m.jsonl")


def part(done: list[str], stop: Callable[[str], None] = lambda item: None, digest: str = "d") -> Part:
    def study(heard: Heard, key: str) -> Record:
        stop(heard.item.id)
        done.append(heard.item.id)
        return Record(heard.item.id, "model", key, facts={"samples": len(heard.clip.wave_s)})

    return Part("model", digest, study)


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path: Path, items: tuple[Item, ...]):
    def refuse(item: str) -> None:
        if item == "item 1":
            raise PlayerError("there is no word")

    seen: list[tuple[int, int]] = []
    folder = RecordFolder(tmp_path / "records")
    records = run_parts(items, [part([], refuse)], None, folder, lambda *at: seen.append(at))  # pyright: ignore
    assert [record.item for record in records] == [item.id for item in items]
    assert [record.error and record.error[:10] for record in records] == [
        None,
        "there is n",
        str(items[2].path)[:10],
        None,
    ]
    assert seen == [(n, 4) for n in range(1, 5)]


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path, items: tuple[Item, ...]):
    def stop(item: str) -> None:
        if item == "item 3":
            raise KeyboardInterrupt

    done: list[str] = []
    folder = RecordFolder(tmp_path / "records")
    with pytest.raises(KeyboardInterrupt):
        run_parts(items, [part(done, stop)], None, folder)  # pyright: ignore
    assert done == ["item 0", "item 1"]
    resumed = run_parts(items, [part(done)], None, folder)  # pyright: ignore
    assert done == ["item 0", "item 1", "item 3"]
    assert resumed == run_parts(items, [part([])], None, RecordFolder(tmp_path / "others"))  # pyright: ignore


def test_records_of_something_else_are_made_again(tmp_path: Path, items: tuple[Item, ...]):
    done: list[str] = []
    folder = RecordFolder(tmp_path / "records")
    run_parts(items[:1], [part(done)], None, folder)  # pyright: ignore
    run_parts(items[:1], [part(done, digest="other weights")], None, folder)  # pyright: ignore
    write_wav(items[0].path, Clip(np.full(900, 0.3, np.float32), 16_000))
    (record,) = run_parts(items[:1], [part(done, digest="other weights")], None, folder)  # pyright: ignore
    assert done == ["item 0"] * 3
    assert record.facts == {"samples": 900}


def test_two_models_of_one_name_are_refused(tmp_path: Path, items: tuple[Item, ...]):
    with pytest.raises(UsageError, match="expected different names"):
        run_parts(items, [part([]), part([])], None, RecordFolder(tmp_path))  # pyright: ignore


def test_the_share_looked_at_closely_is_drawn_item_by_item():
    names = [f"item {number}" for number in range(2000)]
    chosen = [name for name in names if Settings(close_share=0.25).looks_closely(name)]
    assert 430 < len(chosen) < 570
    assert set(chosen) < {name for name in names if Settings(close_share=0.5).looks_closely(name)}
    assert chosen != [name for name in names if Settings(close_share=0.25, seed=1).looks_closely(name)]
    assert not any(Settings(close_share=0).looks_closely(name) for name in names)
    assert all(Settings(close_share=1).looks_closely(name) for name in names)


def test_notes_keep_no_number_that_is_none():
    notes = Notes()
    notes.add("t", "a", np.float64("nan"))
    notes.add("t", "b", np.bool_(True))
    with notes.attempt("something"):
        raise PlayerError("too short")
    assert [measure.number for measure in notes.measures] == [None, 1.0]
    assert notes.facts == {"without something": "too short"}
