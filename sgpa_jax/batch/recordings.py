"""A recording as a row of a manifest holds it, a path, an encoded file, or samples; and what its header tells."""

import io
import math
import os
import stat
from collections.abc import Sized
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.batch.places import locate
from sgpa_jax.errors import UsageError

_LONGEST_S = 1e7


class Header(NamedTuple):
    """Size in bytes, −1 where that is not known; and seconds, NaN where those are not."""

    size: int
    duration_s: float


UNKNOWN = Header(-1, math.nan)


class HeaderReader:
    """Reads headers of recordings and nothing else of them; those that lie outside of the folder are not opened.

    Rows often share a recording, and nearly always a folder: both are looked at once.
    """

    def __init__(self, folder: Path, *, allow_outside: bool):
        self._folder = folder
        self._allow_outside = allow_outside
        self._is_inside = lru_cache(2**12)(self._may_be_read)
        self._of_file = lru_cache(2**12)(self._read_file)

    def read(self, audio: Any, *, duration: bool) -> Header:
        """Return what the header tells; unknown where there is none, for whoever decodes it to say why.

        Args:
            audio: as a row holds it; its `bytes` may be any buffer.
            duration: whether the seconds are wanted; they are NaN otherwise.
        """
        parts: dict[str, Any] = audio if isinstance(audio, dict) else {"path": audio}
        if parts.get("bytes") is not None:
            try:
                data = memoryview(parts["bytes"])
            except TypeError:
                return UNKNOWN
            return Header(len(data), _duration_s(_File(data)) if duration else math.nan)
        if isinstance(parts.get("array"), Sized):
            n_samples, rate_hz = len(parts["array"]), parts.get("sampling_rate")
            if not isinstance(rate_hz, (int, float)) or rate_hz <= 0:
                return Header(4 * n_samples, math.nan)
            return Header(4 * n_samples, n_samples / rate_hz)
        path = parts.get("path")
        return self._of_file(path, duration) if isinstance(path, str) else UNKNOWN

    def _read_file(self, name: str, duration: bool) -> Header:
        path = os.path.join(self._folder, name)
        try:
            if not self._is_inside(os.path.dirname(name)):
                return UNKNOWN
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                if not self._may_be_read(name):
                    return UNKNOWN
                found = os.stat(path)
        except (OSError, ValueError):
            return UNKNOWN
        if not stat.S_ISREG(found.st_mode):
            return UNKNOWN
        return Header(found.st_size, _duration_s(path) if duration else math.nan)

    def _may_be_read(self, name: str) -> bool:
        try:
            locate(name, self._folder, allow_outside=self._allow_outside)
        except UsageError:
            return False
        return True


def recording_of(audio: Any) -> str | bytes | Clip:
    """Return a recording as it can be read: its path, the encoded file, or its samples.

    Raises:
        ValueError: it is none of them.
        AudioError: its samples are not those of a recording.
    """
    if isinstance(audio, str):
        return audio
    if isinstance(audio, dict):
        if isinstance(audio.get("bytes"), bytes):
            return audio["bytes"]
        if audio.get("array") is not None:
            return read_clip(np.asarray(audio["array"]), rate_hz=audio.get("sampling_rate"))
        if isinstance(audio.get("path"), str):
            return audio["path"]
    if audio is None:
        raise ValueError("'audio' is missing; give the path of a recording")
    raise ValueError(
        f"'audio' is {str(audio)[:40]!r}; expected a path, or an object with 'path' or with 'array' and 'sampling_rate'"
    )


class _File(io.RawIOBase):
    """A buffer as a file that can be sought in, without copying it."""

    def __init__(self, data: memoryview):
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = (0, self._at, len(self._data))[whence]
        self._at = min(max(start + offset, 0), len(self._data))
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _duration_s(file: Any) -> float:
    import soundfile

    try:
        with soundfile.SoundFile(file) as opened:
            duration_s = opened.frames / opened.samplerate
    # A file called .raw is taken for one without a header.
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError, ZeroDivisionError):
        return math.nan
    return duration_s if 0 < duration_s < _LONGEST_S else math.nan
