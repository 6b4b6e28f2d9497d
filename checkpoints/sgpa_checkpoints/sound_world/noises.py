"""Sounds without a pitch: water, machines and things that are struck, from filtered noise and bursts of decay.

Every function takes the drawn parameters and a number of samples, and returns a wave of any level.
"""

import numpy as np

from sgpa_checkpoints.sound_world.draw import Draw
from sgpa_checkpoints.sound_world.tones import RATE_HZ, time_s


def noise(draw: Draw, n_samples: int, *, low_hz: float, high_hz: float, slope_db: float = 0.0) -> np.ndarray:
    """Noise between two frequencies, falling by so many decibels an octave; of unit power."""
    n_fft = 1 << (n_samples - 1).bit_length()
    at_hz = np.maximum(np.fft.rfftfreq(n_fft, 1 / RATE_HZ), 20.0)
    edges_f = np.sqrt((1 + (low_hz / at_hz) ** 6) * (1 + (at_hz / high_hz) ** 6))
    gain_f = ((at_hz / 1000) ** (-slope_db / 6.02) / edges_f).astype(np.float32)
    wave_s = np.fft.irfft(np.fft.rfft(draw.rng.standard_normal(n_fft, dtype=np.float32)) * gain_f)[:n_samples]
    return wave_s / np.sqrt(np.mean(np.square(wave_s)))


def strikes(draw: Draw, n_samples: int, *, every_s: float, jitter: float, burst_s: np.ndarray) -> np.ndarray:
    """Put a burst at times that are about `every_s` apart; each a little louder or softer than the next."""
    wave_s, at_s = np.zeros(n_samples + len(burst_s), np.float32), 0.0
    while at_s < n_samples / RATE_HZ - 0.05:
        first = int(at_s * RATE_HZ)
        wave_s[first : first + len(burst_s)] += burst_s * draw.rng.uniform(0.6, 1.0)
        at_s += every_s * draw.rng.uniform(1 - jitter, 1 + jitter)
    return wave_s[:n_samples]


def _mode(tone_hz: float, decay_s: float, length_s: float) -> np.ndarray:
    now_s = time_s(int(length_s * RATE_HZ))
    return np.sin(2 * np.pi * tone_hz * now_s) * np.exp(-now_s / decay_s)


def rain(draw: Draw, n_samples: int) -> np.ndarray:
    """A bright even hiss with single drops in it."""
    drops_s = (draw.rng.random(n_samples) < 60 / RATE_HZ) * draw.rng.exponential(1.0, n_samples)
    drops_s = np.convolve(drops_s, _mode(draw.geometric(2500, 4000), 0.002, 0.01), "same")
    return noise(draw, n_samples, low_hz=1500, high_hz=7500) + draw.between(3, 6) * drops_s.astype(np.float32)


def drip(draw: Draw, n_samples: int) -> np.ndarray:
    """Single drops, each a short tone that rises."""
    now_s = time_s(int(0.09 * RATE_HZ))
    tone_hz_s = draw.geometric(900, 1700) * (1 + 9 * now_s)
    burst_s = np.sin(2 * np.pi * np.cumsum(tone_hz_s / RATE_HZ)) * np.exp(-now_s / 0.022)
    return strikes(draw, n_samples, every_s=draw.between(0.22, 0.4), jitter=0.25, burst_s=burst_s)


def stream(draw: Draw, n_samples: int) -> np.ndarray:
    """Noise in the middle of the range, full of bubbles."""
    wave_s = 0.5 * noise(draw, n_samples, low_hz=300, high_hz=1600)
    for _ in range(int(draw.between(25, 45) * n_samples / RATE_HZ)):
        burst_s = _mode(draw.rng.uniform(400, 1400), 0.02, 0.06)
        first = draw.rng.integers(max(1, n_samples - len(burst_s)))
        room = min(len(burst_s), n_samples - first)
        wave_s[first : first + room] += draw.rng.uniform(0.3, 1.5) * burst_s[:room]
    return wave_s


def waves(draw: Draw, n_samples: int) -> np.ndarray:
    """Noise that falls with frequency and swells slowly."""
    swell_s = 0.55 + 0.45 * np.sin(2 * np.pi * (draw.between(0.5, 0.9) * time_s(n_samples) + draw.rng.random()))
    return swell_s**2 * noise(draw, n_samples, low_hz=80, high_hz=4000, slope_db=4.0)


def fan(draw: Draw, n_samples: int) -> np.ndarray:
    """Even low noise that flutters with the blades."""
    flutter_s = 1 + 0.5 * np.sin(2 * np.pi * draw.between(9, 16) * time_s(n_samples))
    return flutter_s * noise(draw, n_samples, low_hz=60, high_hz=draw.geometric(500, 900))


def drum(draw: Draw, n_samples: int) -> np.ndarray:
    """Deep thuds whose pitch falls."""
    now_s = time_s(int(0.3 * RATE_HZ))
    tone_hz_s = draw.geometric(50, 75) * (1 + 1.5 * np.exp(-now_s / 0.03))
    burst_s = np.sin(2 * np.pi * np.cumsum(tone_hz_s / RATE_HZ)) * np.exp(-now_s / 0.1)
    return strikes(draw, n_samples, every_s=draw.between(0.3, 0.55), jitter=0.05, burst_s=burst_s)


def clock(draw: Draw, n_samples: int) -> np.ndarray:
    """Two sharp clicks in turn, even as a clock."""
    high_hz, every_s = draw.geometric(2400, 3600), draw.between(0.22, 0.34)
    tick_s, tock_s = _mode(high_hz, 0.006, 0.04), _mode(0.7 * high_hz, 0.008, 0.04)
    burst_s = np.zeros(int(every_s * RATE_HZ) + len(tock_s), np.float32)
    burst_s[: len(tick_s)], burst_s[-len(tock_s) :] = tick_s, tock_s
    return strikes(draw, n_samples, every_s=2 * every_s, jitter=0.0, burst_s=burst_s)


def knock(draw: Draw, n_samples: int) -> np.ndarray:
    """Wooden knocks, three or four in a row."""
    low_hz = draw.geometric(220, 420)
    hit_s = _mode(low_hz, 0.03, 0.12) + 0.6 * _mode(2.3 * low_hz, 0.015, 0.12)
    return strikes(draw, n_samples, every_s=draw.between(0.14, 0.22), jitter=0.08, burst_s=hit_s)


def typing(draw: Draw, n_samples: int) -> np.ndarray:
    """Light clicks at random times, many a second."""
    length = int(0.025 * RATE_HZ)
    click_s = noise(draw, length, low_hz=1200, high_hz=5000) * np.exp(-time_s(length) / 0.005)
    return strikes(draw, n_samples, every_s=draw.between(0.08, 0.14), jitter=0.7, burst_s=click_s)


def glass(draw: Draw, n_samples: int) -> np.ndarray:
    """A crash, then splinters that ring and die away."""
    wave_s = noise(draw, n_samples, low_hz=2500, high_hz=7800) * np.exp(-time_s(n_samples) / 0.06)
    fade_s = draw.between(0.3, 0.6)
    for at_s in np.minimum(draw.rng.exponential(fade_s, 40), n_samples / RATE_HZ - 0.1):
        burst_s = _mode(draw.rng.uniform(3000, 7500), 0.02, 0.09)
        first = int(max(at_s, 0.0) * RATE_HZ)
        wave_s[first : first + len(burst_s)] += draw.rng.uniform(0.3, 1.2) * burst_s[: n_samples - first]
    return wave_s
