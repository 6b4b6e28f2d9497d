"""The world as corpora on disk: recordings with a manifest, and the layout of FSD50k.

`clips.jsonl` has a line for each recording: `audio`, `id` and `labels`, a question and its right answer (`prompt`,
`response`), the `caption`, `events` with their times, and the `voice`. FSD50k's layout is that of its release: 44.1 kHz
waves in `FSD50K.dev_audio` and `FSD50K.eval_audio`, and in `FSD50K.ground_truth` the files `dev.csv` (fname, labels,
mids, split), `eval.csv` (fname, labels, mids) and `vocabulary.csv` (number, label, mid, without a header).
"""

import csv
import io
import json
import os
import wave
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sgpa_checkpoints.sound_world.clips import SoundClip, sound_clip
from sgpa_checkpoints.sound_world.ontology import GROUPS, LEAVES
from sgpa_checkpoints.sound_world.questions import questions

_FSD50K_RATE_HZ = 44100


def write_corpus(folder: str | Path, n: int, *, seed: int, held_out: bool = False) -> None:
    """Write `n` clips as `wavs/<id>.wav` and `clips.jsonl`; questions go round over what each clip can be asked."""
    folder, rows = Path(folder), []
    for index in range(n):
        clip = sound_clip(seed, index, held_out=held_out)
        _write_wav(folder / "wavs" / f"{clip.id}.wav", clip.wave_s, clip.rate_hz)
        asked = questions(clip)
        prompt, answer = asked[index % len(asked)]
        rows.append(
            {
                "audio": f"wavs/{clip.id}.wav",
                "id": clip.id,
                "labels": list(clip.labels),
                "prompt": prompt,
                "response": answer,
                "caption": clip.caption,
                "events": [asdict(event) for event in clip.events],
                "voice": clip.voice,
            }
        )
    _write(folder / "clips.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_fsd50k(folder: str | Path, n_dev: int, n_eval: int, *, seed: int) -> None:
    """Write development clips, a tenth of them for validation, and evaluation clips, whose parameters are held out."""
    folder, labels = Path(folder), [*LEAVES, *GROUPS]
    mids = {label: f"/m/world{number:02d}" for number, label in enumerate(labels)}
    for part, n, first in (("dev", n_dev, 0), ("eval", n_eval, n_dev)):
        rows = [["fname", "labels", "mids", "split"][: 4 if part == "dev" else 3]]
        for index in range(first, first + n):
            clip = sound_clip(seed, index, held_out=part == "eval")
            _write_wav(folder / f"FSD50K.{part}_audio" / f"{index}.wav", _faster(clip), _FSD50K_RATE_HZ)
            row = [str(index), ",".join(clip.labels), ",".join(mids[label] for label in clip.labels)]
            rows.append(row + [["train", "val"][index % 10 == 9]] * (part == "dev"))
        _write_csv(folder / "FSD50K.ground_truth" / f"{part}.csv", rows)
    numbered = [[str(number), label, mids[label]] for number, label in enumerate(labels)]
    _write_csv(folder / "FSD50K.ground_truth" / "vocabulary.csv", numbered)


def _faster(clip: SoundClip) -> np.ndarray:
    """The wave at 44.1 kHz, by zeros behind its spectrum."""
    n_samples = len(clip.wave_s) * _FSD50K_RATE_HZ // clip.rate_hz
    return np.fft.irfft(np.fft.rfft(clip.wave_s), n_samples) * (n_samples / len(clip.wave_s))


def _write_wav(path: Path, wave_s: np.ndarray, rate_hz: int) -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(np.clip(wave_s, -1.0, 1.0) * 32767).astype("<i2").tobytes())
    _write(path, buffer.getvalue())


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    _write(path, buffer.getvalue().encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
