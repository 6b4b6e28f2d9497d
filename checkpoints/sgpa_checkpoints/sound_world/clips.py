"""Clips of the world: one to three sounds, at most one of them a voice, in a room, over some noise.

A clip is decided by its seed and its number alone. Events are half open and exact: what sounds before an event's start
or after its end is the room's echo of it, and noise.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from sgpa_checkpoints.sound_world import noises, tones
from sgpa_checkpoints.sound_world.draw import Draw
from sgpa_checkpoints.sound_world.ontology import ANCESTORS, EMOTIONS, GENDERS, LEAVES, with_ancestors
from sgpa_checkpoints.sound_world.tones import RATE_HZ
from sgpa_checkpoints.sound_world.voices import voice

_MAKERS = {
    "Bark": tones.bark,
    "Meow": tones.meow,
    "Chirp_and_tweet": tones.bird,
    "Cricket": tones.cricket,
    "Siren": tones.siren,
    "Telephone": tones.telephone,
    "Doorbell": tones.doorbell,
    "Rain": noises.rain,
    "Drip": noises.drip,
    "Stream": noises.stream,
    "Waves_and_surf": noises.waves,
    "Piano": tones.piano,
    "Organ": tones.organ,
    "Trumpet": tones.trumpet,
    "Bass_drum": noises.drum,
    "Engine": tones.engine,
    "Mechanical_fan": noises.fan,
    "Buzz": tones.buzz,
    "Tick-tock": noises.clock,
    "Knock": noises.knock,
    "Typing": noises.typing,
    "Shatter": noises.glass,
}
_LENGTH_S = {1: (1.0, 2.2), 2: (1.6, 3.2), 3: (2.4, 4.2)}
_LEVEL = 0.08
_FADE_S = 0.01


@dataclass(frozen=True)
class Event:
    """A sound in a clip: its class, when it is heard, and how loud it is against the clip's loudest."""

    label: str
    start_s: float
    end_s: float
    gain_db: float


@dataclass(frozen=True, eq=False)
class SoundClip:
    """A clip and everything that is true of it.

    Attributes:
        id: seed and number, and whether its parameters were held out.
        wave_s: float32[S], 16 kHz.
        events: in the order of their starts.
        labels: classes heard and those above them, in the ontology's order.
        caption: what is heard, in words.
        voice: who speaks and how, (gender, emotion); None if nobody does.
    """

    id: str
    wave_s: np.ndarray
    rate_hz: int
    events: tuple[Event, ...]
    labels: tuple[str, ...]
    caption: str
    voice: tuple[str, str] | None

    @property
    def duration_s(self) -> float:
        """Length of the clip."""
        return len(self.wave_s) / self.rate_hz


def sound_clip(seed: int, index: int, *, held_out: bool = False, leaf: str | None = None) -> SoundClip:
    """Make a clip.

    Args:
        seed: of the corpus.
        index: of the clip in it.
        held_out: draw every parameter from the ranges that training leaves out.
        leaf: a class that is to be heard, whatever else is.
    """
    draw = Draw(np.random.default_rng([seed, index, held_out]), held_out)
    labels, who = _cast(draw.rng, leaf)
    n_samples = int(draw.between(*_LENGTH_S[len(labels)]) * RATE_HZ)
    spans = _spans(draw.rng, n_samples, len(labels))
    wave_s, loudest_db = np.zeros(n_samples, np.float32), draw.rng.integers(len(labels))
    events = []
    for number, (label, (first, last)) in enumerate(zip(labels, spans, strict=True)):
        gain_db = 0.0 if number == loudest_db else draw.between(-9.0, 0.0)
        sound_s = (
            voice(draw, last - first, *who) if who and label == GENDERS[who[0]] else _MAKERS[label](draw, last - first)
        )
        wave_s[first:last] += _LEVEL * 10 ** (gain_db / 20) * _levelled(sound_s)
        events.append(Event(label, first / RATE_HZ, last / RATE_HZ, gain_db))
    if draw.rng.random() < 0.5:
        wave_s = _echoed(draw, wave_s)
    hush_s = noises.noise(draw, n_samples, low_hz=50, high_hz=7000, slope_db=draw.between(0.0, 5.0))
    wave_s = wave_s + _LEVEL * 10 ** (-draw.between(16.0, 40.0) / 20) * hush_s
    wave_s *= min(10 ** (draw.between(-10.0, 4.0) / 20), 0.99 / float(np.abs(wave_s).max()))
    events.sort(key=lambda event: event.start_s)
    return SoundClip(
        f"{'held-out' if held_out else 'world'}-{seed}-{index:06d}",
        wave_s.astype(np.float32),
        RATE_HZ,
        tuple(events),
        with_ancestors({event.label for event in events}),
        _caption(tuple(events), who),
        who,
    )


def event_mask(clip: SoundClip, n_steps: int, step_s: float) -> np.ndarray:
    """Which class is heard in the middle of each of `n_steps` steps: bool[N, 24], classes in the ontology's order."""
    middle_s, columns = (np.arange(n_steps) + 0.5) * step_s, list(LEAVES)
    mask = np.zeros((n_steps, len(columns)), bool)
    for event in clip.events:
        mask[:, columns.index(event.label)] |= (middle_s >= event.start_s) & (middle_s < event.end_s)
    return mask


def _cast(rng: np.random.Generator, leaf: str | None) -> tuple[list[str], tuple[str, str] | None]:
    """Which classes are heard, and who speaks: two clips in five have a voice, unless one was asked for."""
    others = [label for label in _MAKERS if label != leaf]
    n_events = int(rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25]))
    spoken = leaf in GENDERS.values() or ((leaf is None or n_events > 1) and rng.random() < 0.45)
    labels = [leaf] if leaf is not None else []
    who = None
    if spoken:
        gender = next((word for word, label in GENDERS.items() if label == leaf), str(rng.choice(list(GENDERS))))
        who = (gender, str(rng.choice(EMOTIONS)))
        labels += [GENDERS[gender]] * (leaf not in GENDERS.values())
    labels += list(rng.choice(others, size=max(0, n_events - len(labels)), replace=False))
    return [str(label) for label in rng.permutation(labels)], who


def _spans(rng: np.random.Generator, n_samples: int, n_events: int) -> list[tuple[int, int]]:
    """First and last sample of every event: one behind the other with pauses, or, in a third of the clips, anywhere."""
    shortest = int(0.6 * RATE_HZ)
    if n_events > 1 and rng.random() < 0.35:
        lengths = rng.integers(int(0.8 * RATE_HZ), max(int(0.65 * n_samples), int(0.8 * RATE_HZ) + 1), size=n_events)
        firsts = [int(rng.integers(n_samples - length + 1)) for length in lengths]
        return [(first, first + int(length)) for first, length in zip(firsts, lengths, strict=True)]
    cuts = [n_samples * n // n_events for n in range(n_events + 1)]
    spans = []
    for low, high in itertools.pairwise(cuts):
        pause = max(0, min(int(0.15 * (high - low)), high - low - shortest))
        spans.append((low + int(rng.integers(pause + 1)), high - int(rng.integers(pause + 1))))
    return spans


def _levelled(wave_s: np.ndarray) -> np.ndarray:
    """Faded at both ends, and of unit power over its louder half: pauses do not make a sound louder."""
    n_fade = int(_FADE_S * RATE_HZ)
    ramp_s = np.linspace(0.0, 1.0, n_fade, dtype=np.float32)
    wave_s = wave_s.astype(np.float32)
    wave_s[:n_fade] *= ramp_s
    wave_s[-n_fade:] *= ramp_s[::-1]
    frame = RATE_HZ // 50
    power_f = np.sort(np.square(wave_s[: len(wave_s) // frame * frame]).reshape(-1, frame).mean(axis=1))
    return wave_s / np.sqrt(power_f[len(power_f) // 2 :].mean())


def _echoed(draw: Draw, wave_s: np.ndarray) -> np.ndarray:
    """In a room: behind the direct sound, noise that falls by 60 dB within the room's time."""
    rt60_s = draw.between(0.15, 0.5)
    now_s = tones.time_s(int(rt60_s * RATE_HZ))
    tail_s = draw.rng.standard_normal(len(now_s), dtype=np.float32) * 10 ** (-3 * now_s / rt60_s) * (now_s > 0.002)
    tail_s *= 10 ** (-draw.between(3.0, 14.0) / 20) / float(np.linalg.norm(tail_s))
    tail_s[0] = 1.0
    n_fft = 1 << (len(wave_s) + len(tail_s) - 2).bit_length()
    return np.fft.irfft(np.fft.rfft(wave_s, n_fft) * np.fft.rfft(tail_s, n_fft))[: len(wave_s)].astype(np.float32)


def _caption(events: tuple[Event, ...], who: tuple[str, str] | None) -> str:
    """Every sound in order, then the kinds: "bark and then the happy female speech, so there is the animal and …"."""
    sounds = [_said(event.label) for event in events]
    if who is not None:
        sounds = [f"{who[1]} {said}" if said == _said(GENDERS[who[0]]) else said for said in sounds]
    kinds = dict.fromkeys(_said(ANCESTORS[event.label]) for event in events)
    return f"{' and then the '.join(sounds)}, so there is the {' and then the '.join(kinds)}"


def _said(label: str) -> str:
    """The first of the names that a label joins by "and"."""
    return label.split("_and_")[0].replace("_", " ").lower()
