"""Corpora of people's speech whose word times were set by hand, as a corpus to study: TIMIT, Buckeye, TextGrids.

    corpus = reference_corpus(Path("timit/test"), Path("out/timit"))      # a manifest of `read_corpus`

What a folder is, its files say. TIMIT has `.wrd` and `.phn` with sample counts at 16 kHz, Buckeye `.words` and
`.phones` with the seconds at which labels end, anything else (the Montreal Forced Aligner's output, say) a TextGrid
with a tier of words and perhaps one of phones. Recordings lie beside them, in whatever `read_clip` reads. One longer
than `LONGEST_S` is cut where nobody speaks; where something other than a word of the corpus is said (an interviewer, a
laugh, a word cut off), it is cut out.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sgpa_jax.align import read_tiers
from sgpa_jax.audio import Clip, read_clip, write_wav
from sgpa_jax.errors import AlignmentError, UsageError
from sgpa_jax.files import atomic_write
from sgpa_jax.study.corpus import Span

LONGEST_S = 15.0
"""Longer utterances are cut at their pauses."""

MARGIN_S = 0.15
"""What is cut out keeps so much of the silence around it."""

_TIMIT_HZ = 16_000
_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".sph")
_SILENT = frozenset(("", "sil", "sp", "<sil>", "<p:>", "<eps>", "h#", "#h", "pau", "epi"))
_CLOSURES = {"bcl": ("b",), "dcl": ("d", "jh"), "gcl": ("g",), "pcl": ("p",), "tcl": ("t", "ch"), "kcl": ("k",)}
_WORD = re.compile(r"[^\W\d_][\w'’-]*$")


class Utterance(NamedTuple):
    """What is said without anything else in between: words and phones with their times in the whole recording."""

    words: tuple[Span, ...]
    phones: tuple[Span, ...]


def reference_corpus(folder: str | Path, out: str | Path) -> Path:
    """Write the utterances of a reference corpus to `out`, as wavs and a manifest; return the manifest's path.

    Recordings are searched for in all folders below. `voice` is the name of the folder they lie in (a speaker's, in
    TIMIT), `condition` the name of `folder`.

    Raises:
        UsageError: there is no recording with times, or one of its files is damaged or missing.
    """
    folder, out = Path(folder), Path(out)
    rows = []
    for times, read in _references(folder):
        audio = _audio_beside(times)
        clip, name = read_clip(audio), "-".join(audio.relative_to(folder).with_suffix("").parts)
        for number, said in enumerate(_utterances(*read(times), clip.duration_s), start=1):
            rows.append(_write(clip, said, out, f"{name}-{number}", audio.parent.name, folder.name))
    if not rows:
        raise UsageError(f"{folder} has no recordings with times: expected .wrd, .words or .TextGrid files beside them")
    manifest = out / "manifest.jsonl"
    atomic_write(manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return manifest


def read_timit(path: Path) -> tuple[list[Span], list[Span]]:
    """Return words and phones of a `.wrd` and the `.phn` beside it; closures are part of their stops.

    Raises:
        UsageError: a line is not two sample counts and a label.
    """
    words = [_timit_span(path, line) for line in _lines(path)]
    other = _beside(path, ".phn")
    phones: list[Span] = []
    for span in [_timit_span(other, line) for line in _lines(other)] if other.is_file() else []:
        before = phones[-1] if phones else Span("", 0.0, 0.0)
        if span.label in _CLOSURES.get(before.label, ()):
            phones[-1] = Span(span.label, before.start_s, span.end_s)
        else:
            phones.append(span)
    return words, phones


def read_buckeye(path: Path) -> tuple[list[Span], list[Span]]:
    """Return words and phones of a `.words` and the `.phones` beside it: lines of an end, a colour and a label.

    Raises:
        UsageError: there is no line with a `#` before the times, or a line has no time.
    """
    other = _beside(path, ".phones")
    return _buckeye_spans(path), _buckeye_spans(other) if other.is_file() else []


def read_textgrid(path: Path) -> tuple[list[Span], list[Span]]:
    """Return the tiers of words and of phones, whatever speaker they are named after.

    Raises:
        UsageError: the file is damaged, or has no tier of words.
    """
    try:
        tiers = {tier.name.lower().split(" - ")[-1].strip(): tier.intervals for tier in read_tiers(path)}
    except AlignmentError as error:
        raise UsageError(f"{path}: {error}") from error
    words = tiers.get("words", tiers.get("word"))
    if words is None:
        raise UsageError(f"{path} has the tiers {', '.join(tiers) or 'none'}: expected one that is called 'words'")
    phones = tiers.get("phones", tiers.get("phone", ()))
    found = [[Span(label.strip(), start_s, end_s) for start_s, end_s, label in tier] for tier in (words, phones)]
    return found[0], found[1]


_Read = Callable[[Path], tuple[list[Span], list[Span]]]
_READERS: dict[str, _Read] = {".wrd": read_timit, ".words": read_buckeye, ".textgrid": read_textgrid}


def _references(folder: Path) -> Iterator[tuple[Path, _Read]]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give the one that the reference corpus was unpacked to")
    for path in sorted(folder.rglob("*")):
        read = _READERS.get(path.suffix.lower())
        if read is not None and path.is_file():
            yield path, read


def _utterances(words: Sequence[Span], phones: Sequence[Span], duration_s: float) -> Iterator[Utterance]:
    """Runs of words without anything else that is said, none longer than `LONGEST_S` if they have pauses."""
    runs: list[list[Span]] = [[]]
    for span in words:
        if _WORD.match(span.label):
            end_s = min(span.end_s, duration_s)
            if runs[-1] and end_s - runs[-1][0].start_s > LONGEST_S:
                runs += _split(runs.pop())
            if span.start_s < end_s:
                runs[-1].append(
                    Span(span.label.lower(), max(span.start_s, runs[-1][-1].end_s if runs[-1] else 0), end_s)
                )
        elif span.label.lower() not in _SILENT:
            runs.append([])
    for run in runs:
        if run:
            first_s, last_s = run[0].start_s - 1e-6, run[-1].end_s + 1e-6
            own = (
                Span("sil" if p.label.lower() in _SILENT else p.label, *p[1:]) for p in phones if p.end_s > p.start_s
            )
            yield Utterance(tuple(run), tuple(p for p in own if p.start_s >= first_s and p.end_s <= last_s))


def _split(run: list[Span]) -> list[list[Span]]:
    """Cut a run at the longest pause within it, if there is one that a margin fits into."""
    gaps_s = [right.start_s - left.end_s for left, right in pairwise(run)]
    longest = max(range(len(gaps_s)), key=gaps_s.__getitem__, default=-1)
    return [run[: longest + 1], run[longest + 1 :]] if gaps_s and gaps_s[longest] > 2 * MARGIN_S else [run]


def _write(clip: Clip, said: Utterance, out: Path, name: str, voice: str, condition: str) -> dict[str, object]:
    from_s = max(0.0, said.words[0].start_s - MARGIN_S)
    first, last = (round(at_s * clip.rate_hz) for at_s in (from_s, said.words[-1].end_s + MARGIN_S))
    path = out / "audio" / f"{name}.wav"
    write_wav(path, Clip(clip.wave_s[first:last], clip.rate_hz))
    moved = [
        [(span.label, span.start_s - first / clip.rate_hz, span.end_s - first / clip.rate_hz) for span in spans]
        for spans in said
    ]
    return {
        "id": name,
        "audio": os.fspath(path.relative_to(out)),
        "transcript": " ".join(span.label for span in said.words),
        "words": moved[0],
        "phones": moved[1],
        "voice": voice,
        "condition": condition,
    }


def _audio_beside(times: Path) -> Path:
    stems = {path.suffix.lower(): path for path in times.parent.iterdir() if path.stem == times.stem}
    found = next((stems[suffix] for suffix in _AUDIO if suffix in stems), None)
    if found is None:
        raise UsageError(f"there is no recording beside {times}: expected {times.stem} with one of {', '.join(_AUDIO)}")
    return found


def _beside(path: Path, suffix: str) -> Path:
    return path.with_suffix(suffix.upper() if path.suffix.isupper() else suffix)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; check the folder") from error


def _timit_span(path: Path, line: str) -> Span:
    first, last, label = (*line.split(maxsplit=2), "", "", "")[:3]
    if not (first.isdigit() and last.isdigit() and label):
        raise UsageError(f"{path} has the line {line!r}: expected two sample counts and a label, as TIMIT has them")
    return Span(label.strip(), int(first) / _TIMIT_HZ, int(last) / _TIMIT_HZ)


def _buckeye_spans(path: Path) -> list[Span]:
    lines = _lines(path)
    header = next((number for number, line in enumerate(lines) if line.strip() == "#"), None)
    if header is None:
        raise UsageError(f"{path} has no line with a single '#': expected Buckeye's header before the times")
    spans, at_s = [], 0.0
    for line in lines[header + 1 :]:
        end, _, rest = (*line.split(maxsplit=2), "", "")[:3]
        try:
            end_s = float(end)
        except ValueError as error:
            raise UsageError(f"{path} has the line {line!r}: expected the time at which a label ends") from error
        spans.append(Span(rest.split(";")[0].strip(), at_s, end_s))
        at_s = end_s
    return spans
