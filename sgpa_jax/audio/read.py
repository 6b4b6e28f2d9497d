"""Reading recordings: whatever libsndfile knows (WAV, FLAC, MP3, Ogg …), arrays, or a `Clip` that is one already.

Every way in which a file can be unusable ends in one `AudioError`. Axes: `S` samples.
"""

import io
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio.clip import Clip
from sgpa_jax.errors import AudioError

if TYPE_CHECKING:
    import soundfile

MOST_SAMPLES = 2**30
"""Samples of all channels that a file may hold: compressed, a few megabytes can be hundreds of hours of silence."""

_BLOCK = 2**22
_MP3_FRAME = 1152
"""Samples in the longest MP3 frame: decoders may drop one at the end of a whole file."""


def read_clip(
    source: "str | os.PathLike[str] | bytes | np.ndarray | Clip", *, rate_hz: int | None = None, channel: str = "mix"
) -> Clip:
    """Return a mono `Clip`.

    Args:
        source: path of an audio file; the bytes of one; an array [S] or [S, channels], floating point or 8 to 32-bit
            integers (scaled to [-1, 1] by their full scale); or a `Clip`.
        rate_hz: of an array, the rate that it was sampled at (required); of a file or a `Clip`, the rate to resample to
            (default: leave as it is).
        channel: "mix" averages the channels; "0", "1" … picks one.

    Raises:
        AudioError: the file is missing, a folder, truncated, empty, endless or not audio; a sample is not finite; there
            is no such channel; or an array comes without a usable rate.
    """
    if isinstance(source, Clip):
        _one_channel(source.wave_s[:, None], channel, source.path or "the clip")
        return source if rate_hz is None else source.at_rate(rate_hz)
    if isinstance(source, (str, os.PathLike, bytes)):
        path = None if isinstance(source, bytes) else str(source)
        name = path or "the recording"
        samples, file_rate_hz = _read(source if isinstance(source, bytes) else _bytes_of(Path(source)), name)
        clip = Clip(_one_channel(samples, channel, name), file_rate_hz, path)
        return clip if rate_hz is None else clip.at_rate(rate_hz)
    if rate_hz is None:
        raise AudioError("an array of samples came without its rate: pass rate_hz, the rate that it was sampled at")
    return Clip(_one_channel(_scaled(source), channel, "the array"), rate_hz)


def _bytes_of(path: Path) -> bytes:
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not a file" if path.exists() else "not there"
            raise AudioError(f"{path} is {what}: expected an audio file; check the path")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise AudioError(f"cannot open {str(path)!r} ({error}): expected an audio file; check the path") from error


def _read(data: bytes, name: str) -> tuple[Float[np.ndarray, "S channels"], int]:
    import soundfile

    if not data:
        raise AudioError(f"{name} is empty (0 bytes): expected an audio file; record or download it again")
    try:
        # Through memory, not by name: the content decides what the file is, never its extension.
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            expected, rate_hz, kind = file.frames, file.samplerate, file.format
            samples = _decoded(file, name)
    except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError) as error:
        # libsndfile's own words, without soundfile's mention of the buffer that we read from.
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise AudioError(
            f"{name} cannot be read as audio ({reason}): expected WAV, FLAC, MP3 or Ogg; "
            "convert it or check that it is whole"
        ) from error
    if _promises_more(data, kind, expected - len(samples)):
        raise AudioError(f"{name} is truncated: its header promises more than the file holds; copy or export it again")
    return samples, rate_hz


def _decoded(file: "soundfile.SoundFile", name: str) -> Float[np.ndarray, "S channels"]:
    """All samples, by blocks: memory is taken for what a file holds, never for what its header promises."""
    blocks, n_samples = [], 0
    while len(block := file.read(max(1, _BLOCK // file.channels), dtype="float32", always_2d=True)):
        blocks.append(block)
        n_samples += block.size
        if n_samples > MOST_SAMPLES:
            raise AudioError(
                f"{name} holds more than {MOST_SAMPLES} samples: expected a recording of hours at most; cut it into "
                "parts"
            )
    return np.concatenate(blocks) if blocks else np.zeros((0, file.channels), np.float32)


def _promises_more(data: bytes, kind: str, missing: int) -> bool:
    """Whether the header tells of more than there is; Ogg, and MP3 without a length tag, tell nothing."""
    if data[:4] in (b"RIFF", b"FORM"):
        (promised,) = struct.unpack_from("<I" if data[:4] == b"RIFF" else ">I", data, 4)
        # Streamed WAVs carry a huge placeholder; some writers forget the byte that pads an odd chunk.
        return promised < 0x7FFF0000 and promised + 8 > len(data) + 1
    if kind == "MP3":
        return missing > _MP3_FRAME and (b"Xing" in data or b"Info" in data)
    return missing > 0


def _scaled(samples: Any) -> np.ndarray:
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise AudioError(
            "the samples are not an array: expected [samples] or [samples, channels] of numbers"
        ) from error
    if array.ndim not in (1, 2):
        raise AudioError(f"the array has shape {array.shape}: expected [samples] or [samples, channels]")
    if array.ndim == 2 and array.shape[1] > max(array.shape[0], 1):
        raise AudioError(f"the array has shape {array.shape}: expected [samples, channels]; transpose it")
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 4:
        full_scale = 2.0 ** (8 * array.dtype.itemsize - 1)
        middle = full_scale if array.dtype.kind == "u" else 0.0
        array = (array.astype(np.float64) - middle) / full_scale
    if array.dtype.kind != "f":
        raise AudioError(
            f"the array has samples of type {array.dtype}: expected floating point or 8 to 32-bit integers; convert it"
        )
    return array if array.ndim == 2 else array[:, None]


def _one_channel(samples: Float[np.ndarray, "S channels"], channel: str, name: str) -> Float[np.ndarray, "S"]:
    n_channels = samples.shape[1]
    if channel == "mix":
        # A mean of infinities warns; the caller refuses them with a sentence of its own.
        with np.errstate(invalid="ignore", over="ignore"):
            return samples.mean(axis=1) if n_channels > 0 else samples.reshape(0)
    if not (str(channel).isascii() and str(channel).isdecimal()) or int(channel) >= n_channels:
        raise AudioError(f'{name} has {n_channels} channel(s), no {channel!r}: expected "mix" or 0 to {n_channels - 1}')
    return samples[:, int(channel)]
