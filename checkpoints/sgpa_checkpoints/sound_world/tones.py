"""Sounds with a pitch: animals, alarms, instruments and machines, from sums of partials.

Every function takes the drawn parameters and a number of samples, and returns a wave of any level.
"""

import numpy as np

from sgpa_checkpoints.sound_world.draw import Draw

RATE_HZ = 16000


def time_s(n_samples: int) -> np.ndarray:
    """Seconds since the start."""
    return np.arange(n_samples, dtype=np.float32) / RATE_HZ


def partials(pitch_hz_s: np.ndarray, gains_k: np.ndarray, ratios_k: np.ndarray | None = None) -> np.ndarray:
    """Sum sines at multiples (1, 2, …, or the ratios) of a changing pitch, without those that would alias."""
    phase_s = 2 * np.pi * np.cumsum(pitch_hz_s / RATE_HZ)
    ratios_k = np.arange(1, len(gains_k) + 1) if ratios_k is None else ratios_k
    top_hz = float(pitch_hz_s.max())
    wave_s = np.zeros(len(pitch_hz_s), np.float32)
    for gain, ratio in zip(gains_k, ratios_k, strict=True):
        if ratio * top_hz < 0.48 * RATE_HZ:
            wave_s += gain * np.sin((ratio * phase_s).astype(np.float32))
    return wave_s


def humps(draw: Draw, n_samples: int, each_s: float, gap_s: float) -> np.ndarray:
    """An envelope of half sines with gaps, the last one whole."""
    period = each_s + gap_s
    into_s = time_s(n_samples) % period
    envelope_s = np.where(into_s < each_s, np.sin(np.pi * np.minimum(into_s / each_s, 1.0)), 0.0)
    last = int(n_samples / RATE_HZ / period) * period
    if n_samples / RATE_HZ - last < 0.8 * each_s and last > 0:
        envelope_s[int(last * RATE_HZ) :] = 0.0
    return envelope_s.astype(np.float32)


def bark(draw: Draw, n_samples: int) -> np.ndarray:
    """Short rough calls with a falling pitch."""
    each_s, gap_s = draw.between(0.12, 0.2), draw.between(0.12, 0.3)
    share_s = (time_s(n_samples) % (each_s + gap_s)) / each_s
    pitch_hz_s = draw.geometric(280, 520) * (1.3 - 0.7 * np.minimum(share_s, 1.0))
    rough_s = 1 + 0.8 * np.sin(2 * np.pi * draw.between(55, 80) * time_s(n_samples))
    noise_s = 0.5 * draw.rng.standard_normal(n_samples)
    return (partials(pitch_hz_s, 1 / np.arange(1, 9) ** 0.7) * rough_s + noise_s) * humps(
        draw, n_samples, each_s, gap_s
    )


def meow(draw: Draw, n_samples: int) -> np.ndarray:
    """Long calls whose pitch rises and falls under a formant that opens and closes."""
    each_s, gap_s = draw.between(0.45, 0.8), draw.between(0.1, 0.3)
    arc_s = humps(draw, n_samples, each_s, gap_s)
    pitch_hz = draw.geometric(480, 720)
    formant_hz_s = 900 + draw.between(1000, 1800) * arc_s
    wave_s, pitch_hz_s = np.zeros(n_samples, np.float32), pitch_hz * (0.85 + 0.3 * arc_s)
    phase_s = 2 * np.pi * np.cumsum(pitch_hz_s / RATE_HZ)
    for k in range(1, 9):
        gain_s = 1 / (1 + ((k * pitch_hz_s - formant_hz_s) / 350) ** 2)
        wave_s += gain_s * np.sin((k * phase_s).astype(np.float32))
    return wave_s * arc_s


def bird(draw: Draw, n_samples: int) -> np.ndarray:
    """Quick sweeps high up."""
    each_s, gap_s = draw.between(0.06, 0.14), draw.between(0.05, 0.15)
    share_s = np.minimum((time_s(n_samples) % (each_s + gap_s)) / each_s, 1.0)
    low_hz, high_hz = draw.geometric(2200, 3000), draw.geometric(3800, 5600)
    if draw.rng.random() < 0.5:
        low_hz, high_hz = high_hz, low_hz
    return partials(low_hz * (high_hz / low_hz) ** share_s, np.ones(1)) * humps(draw, n_samples, each_s, gap_s)


def cricket(draw: Draw, n_samples: int) -> np.ndarray:
    """A steady high tone in fast pulses, several to a chirp."""
    now_s = time_s(n_samples)
    pulses_s = np.maximum(np.sin(2 * np.pi * draw.between(28, 45) * now_s), 0.0)
    chirps_s = humps(draw, n_samples, draw.between(0.12, 0.22), draw.between(0.1, 0.25)) > 0.15
    return partials(np.full(n_samples, draw.geometric(4200, 5600)), np.ones(1)) * pulses_s * chirps_s


def siren(draw: Draw, n_samples: int) -> np.ndarray:
    """A tone that wails up and down."""
    swing_s = np.sin(2 * np.pi * (draw.between(0.7, 1.8) * time_s(n_samples) + draw.rng.random()))
    return partials(draw.geometric(750, 1150) * 2 ** (0.55 * swing_s), np.array([1.0, 0.35, 0.2]))


def telephone(draw: Draw, n_samples: int) -> np.ndarray:
    """Two tones in a fast trill, in rings with pauses."""
    now_s, tone_hz = time_s(n_samples), draw.geometric(900, 1500)
    high_s = (now_s * draw.between(16, 26)) % 1.0 < 0.5
    ring_s = (now_s % draw.between(0.55, 0.8)) < 0.42
    return partials(np.where(high_s, 1.3 * tone_hz, tone_hz), np.array([1.0, 0.0, 0.4])) * ring_s


def doorbell(draw: Draw, n_samples: int) -> np.ndarray:
    """Two struck tones, the second a third lower, again and again."""
    every_s, tone_hz, decay_s = draw.between(0.45, 0.6), draw.geometric(550, 800), draw.between(0.2, 0.35)
    strike_s = time_s(n_samples)
    pitch_hz_s = np.where((strike_s // every_s) % 2 == 0, tone_hz, tone_hz / 1.26)
    return partials(pitch_hz_s, np.array([1.0, 0.5, 0.25]), np.array([1.0, 2.76, 5.4])) * np.exp(
        -(strike_s % every_s) / decay_s
    )


def piano(draw: Draw, n_samples: int) -> np.ndarray:
    """Struck notes of a scale that die away."""
    every_s, low_hz = draw.between(0.25, 0.45), draw.geometric(180, 360)
    steps = draw.rng.choice([0, 2, 4, 5, 7, 9, 12], size=int(n_samples / RATE_HZ / every_s) + 1)
    number_s = (time_s(n_samples) / every_s).astype(int)
    pitch_hz_s = low_hz * 2 ** (steps[number_s] / 12)
    return partials(pitch_hz_s, 0.6 ** np.arange(8)) * np.exp(-(time_s(n_samples) % every_s) / 0.18)


def organ(draw: Draw, n_samples: int) -> np.ndarray:
    """A held chord of pipes."""
    low_hz = draw.geometric(130, 260)
    chord = [1.0, 1.26, 1.5] if draw.rng.random() < 0.5 else [1.0, 1.19, 1.5]
    tremolo_s = 1 + 0.15 * np.sin(2 * np.pi * draw.between(4, 7) * time_s(n_samples))
    gains = np.array([1.0, 0.8, 0.1, 0.6, 0.0, 0.0, 0.0, 0.4])
    return tremolo_s * sum(partials(np.full(n_samples, low_hz * ratio), gains) for ratio in chord)


def trumpet(draw: Draw, n_samples: int) -> np.ndarray:
    """Brassy notes with vibrato, each with a slow attack."""
    every_s, tone_hz = draw.between(0.35, 0.7), draw.geometric(320, 520)
    steps = draw.rng.choice([0, 4, 7, 12], size=int(n_samples / RATE_HZ / every_s) + 1)
    now_s = time_s(n_samples)
    into_s = now_s % every_s
    vibrato_s = 1 + 0.012 * np.sin(2 * np.pi * draw.between(5, 7) * now_s)
    envelope_s = np.minimum(into_s / 0.05, 1.0) * np.minimum((every_s - into_s) / 0.04, 1.0)
    gains = np.array([0.6, 0.8, 1.0, 1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3])
    return partials(tone_hz * 2 ** (steps[(now_s / every_s).astype(int)] / 12) * vibrato_s, gains) * envelope_s


def buzz(draw: Draw, n_samples: int) -> np.ndarray:
    """A harsh low hum, rich in partials, quite steady."""
    drift_s = 1 + 0.01 * np.sin(2 * np.pi * draw.between(0.5, 1.5) * time_s(n_samples))
    return partials(draw.geometric(90, 125) * drift_s, 1 / np.arange(1, 30) ** 0.3)


def engine(draw: Draw, n_samples: int) -> np.ndarray:
    """Low partials with noise, both beating at the firing rate, which drifts."""
    now_s, rate_hz = time_s(n_samples), draw.geometric(22, 38)
    rate_hz_s = rate_hz * (1 + 0.25 * np.sin(2 * np.pi * draw.between(0.3, 0.8) * now_s + draw.rng.uniform(0, 6)))
    firing_s = np.abs(np.sin(np.pi * np.cumsum(rate_hz_s / RATE_HZ))) ** 3
    noise_s = np.convolve(draw.rng.standard_normal(n_samples), np.ones(12) / 4, "same")
    return firing_s * (partials(rate_hz_s, 1 / np.arange(1, 13) ** 0.5) + 1.2 * noise_s)
