"""Edges against the truth: errors by place, the tables made of them, and the naive methods."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.align import Emissions
from sgpa_jax.audio import Clip
from sgpa_jax.errors import AlignmentError
from sgpa_jax.study.alignment_quality import alignment_record, alignment_tables, edge_errors_ms
from sgpa_jax.study.corpus import Item, Span
from sgpa_jax.study.cuts import cuts_table
from sgpa_jax.study.heard import Heard, HeardOnce
from sgpa_jax.study.naive_edges import energy_edges, uniform_edges
from sgpa_jax.study.records import ALIGNMENT, Record

RATE_HZ = 16_000
WORDS = (Span("see", 0.3, 0.5), Span("a", 0.5, 0.7))


class Speller:
    """Hears the letters of "see a" where WORDS are, in frames of 20 ms, and nothing else."""

    name, digest, rate_hz, transcribes, lexicon = "speller", "0" * 64, RATE_HZ, True, None
    calls = 0

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        self.calls += 1
        labels = ("<blank>", "|", *"abcdefghijklmnopqrstuvwxyz")
        log_probs_tv = np.full((50, len(labels)), np.log(0.001), np.float32)
        said: dict[int, str] = {16: "s", 19: "e", 22: "e", 25: "|", 29: "a"}
        for frame, row_v in enumerate(log_probs_tv):
            row_v[labels.index(said.get(frame, "<blank>"))] = np.log(0.97)
        return [{"character": Emissions(log_probs_tv, 0.02, 0.0, labels, 0)} for _ in clips]


def speech() -> Clip:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    wave_s = 1e-3 * np.random.default_rng(0).standard_normal(RATE_HZ)
    for (_, start_s, end_s), tone_hz in zip(WORDS, (3000, 400), strict=True):
        wave_s += 0.3 * np.sin(2 * np.pi * tone_hz * time_s) * ((time_s >= start_s) & (time_s < end_s))
    return Clip(wave_s.astype(np.float32), RATE_HZ)


def item(number: int = 0, **changed: object) -> Item:
    told = {"words": WORDS, "phones": WORDS, "condition": "clean", "voice": "tones"} | changed
    return Item(f"item {number}", Path("none.wav"), "see a", **told)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def record() -> Record:
    return alignment_record(Heard(item(), speech(), HeardOnce(Speller())), "key")


def test_errors_are_late_minus_true_by_place():
    true_w2 = np.array([(0.1, 0.2), (0.2, 0.3), (0.5, 0.6)])
    late_w2 = np.array([(0.001, 0.002), (0.003, 0.004), (-0.005, -0.006)])
    found = edge_errors_ms(true_w2 + late_w2, true_w2)
    assert {place: errors.round(6).tolist() for place, errors in found.items()} == {
        "joined": [2, 3],
        "pause": [4, -5],
        "first": [1],
        "last": [-6],
    }
    assert set(edge_errors_ms(true_w2[:1], true_w2[:1])) == {"first", "last"}


def test_a_record_holds_every_method_and_the_model_is_asked_once(record: Record):
    model = Speller()
    again = alignment_record(Heard(item(), speech(), HeardOnce(model)), "key")
    assert model.calls == 1
    assert again.curves == record.curves and again.measures == record.measures
    assert record.subject == ALIGNMENT
    for stage in ("none", "authors", "sgpa"):
        assert len(record.curves[f"error character {stage} joined"]) == 2
    assert "error none uniform first" in record.curves and "outwards character authors last" in record.curves


def test_the_authors_outer_edges_run_to_the_windows_end_and_ours_do_not(record: Record):
    outer = alignment_tables([record], 0)[3]
    found = {(row["stage 3"], row["edge"]): row for row in outer.rows}
    assert found["authors", "first"]["to the window's end"] == 1
    assert found["sgpa", "first"]["to the window's end"] == 0
    median_ms = {stage: float(found[stage, "first"]["median_ms"] or 0) for stage in ("sgpa", "authors")}
    assert median_ms["sgpa"] < 6 and median_ms["authors"] > 40


def test_tables_count_every_edge_and_compare_on_the_same_ones():
    def made(number: int, condition: str, ours_ms: float) -> Record:
        curves = {
            f"error phone {stage} {place}": (error_ms,) * 2
            for stage, error_ms in (("none", 12.0), ("authors", -30.0), ("sgpa", ours_ms))
            for place in ("joined", "first")
        }
        return Record(f"item {number}", ALIGNMENT, "k", condition, voice="v", curves=curves)

    records = [made(n, "clean" if n % 2 else "noise", 25.0 if n == 0 else -4.0) for n in range(12)]
    by_condition, by_voice, stages, outer = alignment_tables([*records, Record("other", "pocket", "k")], 0)
    cells = {(row["condition"], row["stage 3"]): row for row in by_condition.rows}
    assert cells["clean", "sgpa"]["n"] == 24 and cells["all", "sgpa"]["n"] == 48
    assert cells["clean", "sgpa"]["median_ms"] == 4 and cells["clean", "sgpa"]["late_ms"] == -4
    assert cells["noise", "sgpa"]["within 20 ms"] == pytest.approx(5 / 6)
    assert cells["clean", "none"]["within 10 ms"] == 0 and cells["clean", "none"]["within 20 ms"] == 1
    assert {row["voice"] for row in by_voice.rows} == {"v"}
    compared = {(row["condition"], row["other"]): row for row in stages.rows}
    assert compared["clean", "authors"]["both better"] is True and compared["clean", "authors"]["n"] == 6
    assert compared["noise", "none"]["both better"] is False
    assert compared["clean", "authors"]["difference"] == 1
    assert outer.rows == ()


def test_times_of_another_number_of_words_are_refused():
    with pytest.raises(AlignmentError, match="1 words for a transcript of 2"):
        alignment_record(Heard(item(words=WORDS[:1]), speech(), HeardOnce(Speller())), "key")


def test_without_true_times_there_are_cuts_alone():
    record = alignment_record(Heard(item(words=(), phones=()), speech(), HeardOnce(Speller())), "key")
    assert not record.curves
    table = cuts_table([record], 0)
    assert {"character sgpa", "random", "every 80 ms"} <= {row["players"] for row in table.rows}
    assert not any("phone" in column for column in table.columns)


def test_naive_edges_lie_around_the_speech_and_energy_finds_a_pause():
    wave_s = np.zeros(RATE_HZ, np.float32)
    for first, last in ((3200, 6400), (8000, 12800)):
        wave_s[first:last] = 0.3 * np.random.default_rng(0).standard_normal(last - first)
    clip = Clip(wave_s, RATE_HZ)
    assert uniform_edges(clip, 2) == pytest.approx([0.2, 0.5, 0.8], abs=0.02)
    found_s = energy_edges(clip, 2)
    assert found_s[[0, 2]] == pytest.approx(uniform_edges(clip, 2)[[0, 2]]) and 0.4 <= found_s[1] <= 0.5
    assert np.isfinite(uniform_edges(Clip(np.zeros(RATE_HZ, np.float32), RATE_HZ), 3)).all()
