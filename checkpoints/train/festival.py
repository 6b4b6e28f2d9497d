"""Festival as a source of speech with exact phone times: an engine and a speaker that no trainer hears.

A short Scheme script goes to the `festival` program, which writes the wave and lists the phones with their end times
and the number of their token. Pitch is changed by playing the wave faster or slower, after a compensating change of
duration, as for Flite.
"""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from .phones import Segment, from_radio, split

_SCRIPT = """
(voice_{voice})
(Parameter.set 'Duration_Stretch {stretch})
(set! utterance (utt.synth (eval (list 'Utterance 'Text "{text}"))))
(set! count 0)
(set! token (utt.relation.first utterance 'Token))
(while token
  (set! count (+ count 1))
  (item.set_feat token "index" count)
  (set! token (item.next token)))
(utt.save.wave utterance "{path}" 'riff)
(format t "tokens %d\\n" count)
(mapcar
  (lambda (segment)
    (format t "%s %f %d\\n" (item.name segment) (item.feat segment "end")
      (item.feat segment "R:SylStructure.parent.parent.R:Token.parent.index")))
  (utt.relation.items utterance 'Segment))
"""


def synthesise(words: list[str], name: str, rate: float, pitch: float) -> tuple[np.ndarray, int, list[Segment]]:
    """Speak `words` with the voice `name`, for example "ked_diphone".

    Returns the float32 wave, its rate in Hz, and the phones in order of time with the index of their word (no phones
    when Festival cut the text into other words). Raises FileNotFoundError when the program is missing and RuntimeError
    when it fails.
    """
    text = " ".join(words).replace("\\", "\\\\").replace('"', '\\"')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        script = _SCRIPT.format(voice=name, stretch=pitch / rate, text=text, path=path)
        done = subprocess.run(["festival", "--pipe"], input=script, text=True, capture_output=True, check=False)
        if done.returncode != 0 or not path.is_file():
            raise RuntimeError(f"festival could not speak {text!r} with {name}: {done.stderr.strip()}")
        with wave.open(str(path)) as file:
            wave_s = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
            rate_hz = file.getframerate()
    count, *lines = done.stdout.splitlines()
    segments = _segments(lines, pitch) if count == f"tokens {len(words)}" else []
    return wave_s, round(rate_hz * pitch), segments


def _segments(lines: list[str], pitch: float) -> list[Segment]:
    segments: list[Segment] = []
    start_s, word = 0.0, None
    for line in lines:
        label, end, index = line.split()
        end_s, phones = float(end) / pitch, from_radio(label)
        # The voice inserts r's that hang from no syllable (index 0): they sound as the end of the word before.
        word = None if phones == ("sil",) else int(index) - 1 if index != "0" else word
        segments += split(phones, start_s, end_s, word)
        start_s = end_s
    return segments
