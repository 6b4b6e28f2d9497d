"""TIMIT, Buckeye and TextGrids become a corpus: times, what is left out, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.align.textgrid import format_textgrid
from sgpa_jax.audio import Clip, read_clip, write_wav
from sgpa_jax.errors import UsageError
from sgpa_jax.study.corpus import read_corpus
from sgpa_jax.study.references import reference_corpus

RATE_HZ = 16_000


def record(path: Path, duration_s: float) -> None:
    wave_s = np.linspace(-0.5, 0.5, round(duration_s * RATE_HZ)).astype(np.float32)
    write_wav(path, Clip(wave_s, RATE_HZ))


def test_timit(tmp_path: Path):
    speaker = tmp_path / "test" / "dr1" / "faks0"
    record(speaker / "sa1.wav", 2.0)
    (speaker / "sa1.wrd").write_text("8000 12800 she\n12800 16000 had\n")
    (speaker / "sa1.phn").write_text("0 8000 h#\n8000 9600 sh\n9600 12000 iy\n12000 12800 hv\n12800 14400 tcl\n"
                                     "14400 15200 t\n15200 16000 epi\n16000 32000 h#\n")  # fmt: skip
    (item,) = read_corpus(reference_corpus(tmp_path / "test", tmp_path / "out"))
    assert (item.transcript, item.voice, item.condition) == ("she had", "faks0", "test")
    assert [word.label for word in item.words] == ["she", "had"]
    assert [(word.start_s, word.end_s) for word in item.words] == [
        pytest.approx((0.15, 0.45)),
        pytest.approx((0.45, 0.65)),
    ]
    assert [phone.label for phone in item.phones] == ["sh", "iy", "hv", "t", "sil"]
    assert item.phones[3].start_s == pytest.approx(0.45)
    clip = read_clip(item.path)
    assert clip.duration_s == pytest.approx(0.8)
    assert clip.wave_s[0] == pytest.approx(-0.5 + 0.35 / 2, abs=1e-3)


def test_buckeye_leaves_out_what_is_no_word_and_cuts_at_pauses(tmp_path: Path):
    record(tmp_path / "s0101a.wav", 40.0)
    lines = ["signal s0101a", "nfields 1", "#", "1.0  121 <SIL>; S; S; null", "1.5  121 okay; ow k ey; k ey; UH",
             "2.0  121 <IVER>", "2.4  121 yes; y eh s; y eh s; UH", "2.6  121 <SIL>; S"]  # fmt: skip
    lines += [f"{3 + n}  121 word; w er d; w er d; NN" for n in range(12)]
    lines += ["18.0  121 <SIL>; S", *(f"{19 + n}  121 more; m; m; NN" for n in range(9))]
    (tmp_path / "s0101a.words").write_text("\n".join(lines))
    (tmp_path / "s0101a.phones").write_text("header\n#\n1.0 121 SIL\n1.2 121 ow\n1.3 121 k\n1.5 121 ey\n2.0 121 IVER\n")
    first, second, third = read_corpus(reference_corpus(tmp_path, tmp_path / "out"))
    assert first.transcript == "okay" and [phone.label for phone in first.phones] == ["ow", "k", "ey"]
    assert second.transcript.split() == ["yes", *["word"] * 12] and third.transcript.split() == ["more"] * 9
    assert third.words[0].start_s == pytest.approx(0.15) and third.words[-1].end_s == pytest.approx(9.15)


def test_textgrids_of_a_speaker(tmp_path: Path):
    record(tmp_path / "a.wav", 1.0)
    words = format_textgrid("speaker 1 - words", [(0.2, 0.5, "Zwölf"), (0.5, 0.7, "<unk>"), (0.7, 0.9, "o'clock")], 1.0)
    (tmp_path / "a.TextGrid").write_text(words, "utf-8")
    items = read_corpus(reference_corpus(tmp_path, tmp_path / "out"))
    assert [item.transcript for item in items] == ["zwölf", "o'clock"]
    assert items[0].phones == ()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.wrd", "0 x she\n", "two sample counts"),
        ("a.words", "1.0 121 okay\n", "single '#'"),
        ("a.words", "#\nsoon 121 okay\n", "time at which a label ends"),
        ("a.TextGrid", "no TextGrid", "a.TextGrid"),
        ("a.TextGrid", format_textgrid("notes", [(0.1, 0.2, "hm")], 1.0), "called 'words'"),
        ("b.wrd", "0 1600 she\n", "no recording beside"),
        ("a.txt", "she", "no recordings with times"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, text: str, message: str):
    record(tmp_path / "a.wav", 1.0)
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        reference_corpus(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(UsageError, match="is no folder"):
        reference_corpus(tmp_path / "none", tmp_path / "out")
