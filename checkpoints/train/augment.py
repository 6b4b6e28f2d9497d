"""Rooms, noises and speeds for synthetic speech, with its times kept exact.

Filters are applied to the whole wave at once by one FFT of a power-of-two length, without phase (tone) or with the
direct path at sample 0 (echo), so that nothing moves; a change of speed rescales the times. Named conditions say which
of these happen: "clean", "noise", "reverb" and "fast" are for tests, "train" is the random mix that trainers hear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import soxr

from .speech import RATE_HZ, Span, Utterance

_Range = tuple[float, float]


@dataclass(frozen=True)
class Condition:
    """Probability of each change, and the range its strength is drawn from."""

    noise: float = 0.0
    snr_db: _Range = (5.0, 20.0)
    echo: float = 0.0
    rt60_s: _Range = (0.2, 0.6)
    tone: float = 0.0
    speed: float = 0.0
    speeds: _Range = (1.0, 1.0)
    gain_db: _Range = (0.0, 0.0)


CONDITIONS = {
    "clean": Condition(),
    "noise": Condition(noise=1.0),
    "reverb": Condition(echo=1.0),
    "fast": Condition(speed=1.0, speeds=(1.2, 1.4)),
    "train": Condition(
        noise=0.8, snr_db=(5.0, 40.0), echo=0.5, tone=0.5, speed=0.6, speeds=(0.9, 1.15), gain_db=(-20.0, 6.0)
    ),
}


def augment(utterance: Utterance, rng: np.random.Generator, *, condition: str) -> Utterance:
    """`utterance` under the named condition of `CONDITIONS`. KeyError: there is no such condition."""
    drawn = CONDITIONS[condition]
    if rng.random() < drawn.speed:
        utterance = change_speed(utterance, rng.uniform(*drawn.speeds))
    wave_s, n_samples = utterance.wave_s, len(utterance.wave_s)
    n_fft = 1 << (n_samples + int(max(drawn.rt60_s) * RATE_HZ) - 1).bit_length()
    has_echo, has_tone, has_noise = (rng.random() < p for p in (drawn.echo, drawn.tone, drawn.noise))
    if has_echo or has_tone:
        spectrum_f = np.fft.rfft(wave_s, n_fft)
        if has_echo:
            spectrum_f *= np.fft.rfft(_echo(rng, rng.uniform(*drawn.rt60_s)), n_fft)
        if has_tone:
            spectrum_f *= _tone(rng, n_fft)
        wave_s = np.fft.irfft(spectrum_f, n_fft)[:n_samples]
    if has_noise:
        wave_s = wave_s + _level(wave_s) * 10 ** (-rng.uniform(*drawn.snr_db) / 20) * _noise(rng, n_samples)
    wave_s = np.clip(wave_s * 10 ** (rng.uniform(*drawn.gain_db) / 20), -1, 1)
    return replace(utterance, wave_s=wave_s.astype(np.float32))


def change_speed(utterance: Utterance, speed: float) -> Utterance:
    """The utterance played `speed` times as fast (pitch and formants move along)."""
    wave_s = soxr.resample(utterance.wave_s, RATE_HZ * speed, RATE_HZ).astype(np.float32)
    return _moved(utterance, wave_s, scale=len(utterance.wave_s) / len(wave_s))


def pad(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """The utterance with 0.1 to 0.5 s of almost silent noise on both sides."""
    before, after = (int(rng.uniform(0.1, 0.5) * RATE_HZ) for _ in range(2))
    return _surrounded(utterance, _hush(rng, before), _hush(rng, after))


def place(utterance: Utterance, kind: str, rng: np.random.Generator) -> Utterance:
    """The utterance with a sound (see `sound`) before or after it, 0.05 to 0.4 s apart; its span goes to `sounds`."""
    sound_s, gap_s = sound(kind, rng), _hush(rng, int(rng.uniform(0.05, 0.4) * RATE_HZ))
    if rng.random() < 0.5:
        longer = _surrounded(utterance, np.concatenate([sound_s, gap_s]), sound_s[:0])
        start = 0
    else:
        longer = _surrounded(utterance, sound_s[:0], np.concatenate([gap_s, sound_s]))
        start = len(longer.wave_s) - len(sound_s)
    span = Span(kind, start / RATE_HZ, (start + len(sound_s)) / RATE_HZ)
    return replace(longer, sounds=tuple(sorted((*longer.sounds, span), key=lambda s: s.start_s)))


def sound(kind: str, rng: np.random.Generator, duration_s: float | None = None) -> np.ndarray:
    """A "beep", "hiss", "clicks", "bell" or "chirp" of random character as float32[S]; 0.25 to 0.7 s by default."""
    n_samples = round((rng.uniform(0.25, 0.7) if duration_s is None else duration_s) * RATE_HZ)
    time_s = np.arange(n_samples) / RATE_HZ
    wave_s = _SOUNDS[kind](rng, time_s)
    edge = min(int(0.005 * RATE_HZ), n_samples // 2)
    ramp = np.linspace(0, 1, edge, endpoint=False)
    wave_s[:edge] *= ramp
    wave_s[n_samples - edge :] *= ramp[::-1]
    return (rng.uniform(0.1, 0.5) * wave_s / max(np.abs(wave_s).max(initial=0), 1e-9)).astype(np.float32)


def _beep(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    pitch_hz = np.exp(rng.uniform(np.log(300), np.log(2500)))
    partials = [rng.uniform(0, 0.5) ** k * np.sin(2 * np.pi * (k + 1) * pitch_hz * time_s) for k in range(3)]
    return np.sum(partials, axis=0)


def _hiss(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    n_fft = 1 << (len(time_s) - 1).bit_length()
    frequency_hz = np.fft.rfftfreq(n_fft, 1 / RATE_HZ)
    centre_hz, width = rng.uniform(2000, 6000), rng.uniform(0.5, 1.5)
    shape_f = np.exp(-0.5 * (np.log2(np.maximum(frequency_hz, 1) / centre_hz) / width) ** 2)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(n_fft)) * shape_f)[: len(time_s)]


def _clicks(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    every_s, pitch_hz, decay_s = rng.uniform(0.05, 0.15), rng.uniform(1000, 4000), rng.uniform(0.001, 0.004)
    since_s = time_s % every_s
    return np.sin(2 * np.pi * pitch_hz * since_s) * np.exp(-since_s / decay_s)


def _bell(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    pitch_hz, decay_s = rng.uniform(400, 1200), rng.uniform(0.15, 0.4)
    ratios = np.array([1.0, 2.0, 2.76, 4.07, 5.4]) * rng.uniform(0.99, 1.01, 5)
    partials = [
        np.sin(2 * np.pi * ratio * pitch_hz * time_s) * np.exp(-time_s * ratio**0.5 / decay_s) / (k + 1)
        for k, ratio in enumerate(ratios)
        if ratio * pitch_hz < RATE_HZ / 2
    ]
    return np.sum(partials, axis=0)


def _chirp(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    low_hz, high_hz = rng.uniform(300, 1000), rng.uniform(1800, 4500)
    first_hz, last_hz = (low_hz, high_hz) if rng.random() < 0.5 else (high_hz, low_hz)
    ratio, share = last_hz / first_hz, time_s / time_s[-1]
    return np.sin(2 * np.pi * first_hz * time_s[-1] * (ratio**share - 1) / np.log(ratio))


_SOUNDS = {"beep": _beep, "hiss": _hiss, "clicks": _clicks, "bell": _bell, "chirp": _chirp}


def _moved(utterance: Utterance, wave_s: np.ndarray, *, scale: float = 1.0, shift_s: float = 0.0) -> Utterance:
    """The new wave, with every time divided by `scale` and moved later by `shift_s`."""

    def moved(spans: tuple[Span, ...]) -> tuple[Span, ...]:
        return tuple(Span(s.label, s.start_s / scale + shift_s, s.end_s / scale + shift_s) for s in spans)

    return Utterance(wave_s, moved(utterance.words), moved(utterance.phones), moved(utterance.sounds))


def _surrounded(utterance: Utterance, before_s: np.ndarray, after_s: np.ndarray) -> Utterance:
    """The utterance between two waves without speech; phones that tiled it tile the longer wave."""
    longer = _moved(utterance, np.concatenate([before_s, utterance.wave_s, after_s]), shift_s=len(before_s) / RATE_HZ)
    if not longer.phones:
        return longer
    inner, end_s = list(longer.phones), longer.duration_s
    first_s = inner.pop(0).end_s if inner[0].label == "sil" else inner[0].start_s
    last_s = inner.pop().start_s if inner and inner[-1].label == "sil" else inner[-1].end_s if inner else first_s
    tiles = (Span("sil", 0.0, first_s), *inner, Span("sil", last_s, end_s))
    return replace(longer, phones=tuple(t for t in tiles if t.end_s > t.start_s))


def _hush(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    return (10 ** rng.uniform(-4.0, -3.0) * rng.standard_normal(n_samples)).astype(np.float32)


def _level(wave_s: np.ndarray) -> float:
    """Root mean square of the louder half of the wave's 20 ms frames (at least -60 dB, for silenced waves)."""
    frame = RATE_HZ // 50
    whole = len(wave_s) // frame * frame
    power_f = np.sort(np.square(wave_s[:whole]).reshape(-1, frame).mean(1)) if whole else np.zeros(1)
    return max(float(np.sqrt(power_f[len(power_f) // 2 :].mean())), 1e-3)


def _echo(rng: np.random.Generator, rt60_s: float) -> np.ndarray:
    """Impulse response: the direct path, then after 2 ms noise that falls by 60 dB in `rt60_s`."""
    time_s = np.arange(int(rt60_s * RATE_HZ)) / RATE_HZ
    tail = rng.standard_normal(len(time_s)).astype(np.float32) * 10 ** (-3 * time_s / rt60_s)
    tail[time_s < 0.002] = 0
    direct_to_tail_db = rng.uniform(-2, 12)
    tail *= 10 ** (-direct_to_tail_db / 20) / np.linalg.norm(tail)
    tail[0] = 1
    return tail.astype(np.float32)


def _tone(rng: np.random.Generator, n_fft: int) -> np.ndarray:
    """A random slope, and half the time a low-pass, as a real gain per frequency."""
    frequency_hz = np.fft.rfftfreq(n_fft, 1 / RATE_HZ).astype(np.float32)
    gain_f = (np.maximum(frequency_hz, 60) / 1000) ** (rng.uniform(-4, 4) / 6.02)
    if rng.random() < 0.5:
        gain_f = gain_f / np.sqrt(1 + (frequency_hz / rng.uniform(3000, 7500)) ** 8)
    return gain_f.astype(np.float32)


def _noise(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Noise of unit power between white and brown, half the time swelling slowly."""
    n_fft = 1 << (n_samples - 1).bit_length()
    frequency_hz = np.fft.rfftfreq(n_fft, 1 / RATE_HZ).astype(np.float32)
    shape_f = np.maximum(frequency_hz, 50) ** np.float32(-rng.uniform(0, 1))
    wave_s = np.fft.irfft(np.fft.rfft(rng.standard_normal(n_fft, dtype=np.float32)) * shape_f)[:n_samples]
    if rng.random() < 0.5:
        phase = 2 * np.pi * (rng.uniform(0.2, 3) * np.arange(n_samples, dtype=np.float32) / RATE_HZ + rng.random())
        wave_s = wave_s * (1 + rng.uniform(0.2, 0.9) * np.sin(phase.astype(np.float32)))
    return wave_s / np.sqrt(np.mean(np.square(wave_s)))
