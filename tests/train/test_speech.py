"""Synthetic speech: spans are exact, phones tile the wave, every mnemonic has a phone, and augmentation keeps times."""

import ctypes
import shutil
from itertools import pairwise

import numpy as np
import pytest
from train.augment import CONDITIONS, augment, change_speed, pad, place, sound
from train.phones import PHONES, from_espeak
from train.speech import (
    HELD_OUT_ENGINE_VOICES,
    HELD_OUT_VOICES,
    RATE_HZ,
    TRAIN_VOICES,
    Span,
    Utterance,
    Voice,
    draw_voice,
    synthesise,
)

TEXT = "It's in the hall, he said. She sees six of the shoes"


def _library_missing(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return True
    return False


needs_espeak = pytest.mark.skipif(
    _library_missing("libespeak-ng.so.1"), reason="Debian's libespeak-ng1 is not installed"
)
needs_flite = pytest.mark.skipif(_library_missing("libflite.so.1"), reason="Debian's libflite1 is not installed")
needs_festival = pytest.mark.skipif(shutil.which("festival") is None, reason="Debian's festival is not installed")

ENGINES = [
    pytest.param(Voice("espeak", "gmw/en-US+f3", 1.1, 0.9), marks=needs_espeak, id="espeak"),
    pytest.param(Voice("espeak", "gmw/en-GB-scotland", 0.8, 1.2), marks=needs_espeak, id="espeak-scotland"),
    pytest.param(Voice("flite", "slt", 1.1, 0.9), marks=needs_flite, id="flite-slt"),
    pytest.param(Voice("flite", "kal16", 0.8, 1.1), marks=needs_flite, id="flite-kal16"),
    pytest.param(HELD_OUT_ENGINE_VOICES[0], marks=needs_festival, id="festival"),
]


def tiles(utterance: Utterance) -> bool:
    """The phones cover the wave from first to last sample without a hole or an overlap."""
    spans = utterance.phones
    whole = spans[0].start_s == 0 and abs(spans[-1].end_s - utterance.duration_s) < 1e-9
    return whole and all(a.end_s == b.start_s for a, b in pairwise(spans)) and all(s.end_s > s.start_s for s in spans)


@pytest.mark.parametrize("voice", ENGINES)
def test_words_and_phones(voice: Voice) -> None:
    utterance = synthesise(TEXT, voice)
    assert utterance is not None
    assert [word.label for word in utterance.words] == "it's in the hall he said she sees six of the shoes".split()  # noqa: SIM905
    assert utterance.wave_s.dtype == np.float32
    assert np.isfinite(utterance.wave_s).all()
    assert {phone.label for phone in utterance.phones} <= set(PHONES)
    assert tiles(utterance)
    edges = {edge for phone in utterance.phones for edge in (phone.start_s, phone.end_s)}
    assert all(word.start_s in edges and word.end_s in edges for word in utterance.words)
    assert all(a.end_s <= b.start_s for a, b in pairwise(utterance.words))


@pytest.mark.parametrize("voice", ENGINES)
def test_hissing_phones_hiss(voice: Voice) -> None:
    utterance = synthesise("she sees six sad ships see some sauce", voice)
    assert utterance is not None
    best = max(range(-20, 21), key=lambda shift: _hiss_contrast(utterance, shift * 0.0025))
    assert abs(best * 2.5) <= 15  # milliseconds; a label late or early by a frame of the models would fail


@pytest.mark.parametrize("voice", ENGINES)
def test_lost_word_gives_none(voice: Voice) -> None:
    assert synthesise("turn - on", voice) is None


@needs_flite
def test_rate_and_pitch_change_duration_as_asked() -> None:
    plain, fast, high = (synthesise(TEXT, Voice("flite", "slt", *v)) for v in ((1.0, 1.0), (1.3, 1.0), (1.0, 1.14)))
    assert plain is not None and fast is not None and high is not None
    assert fast.duration_s == pytest.approx(plain.duration_s / 1.3, rel=0.02)
    assert high.duration_s == pytest.approx(plain.duration_s, rel=0.02)


@needs_espeak
def test_every_accent_speaks_every_training_word() -> None:
    text = (
        "the little button's measure, a llama lilyan internationalist murky muirfield whorl blanc loch dire firebaugh"
    )
    for accent in {voice.name.split("+")[0] for voice in TRAIN_VOICES if voice.engine == "espeak"}:
        assert synthesise(text, Voice("espeak", accent)) is not None


def test_espeak_table_knows_only_phones_of_the_set() -> None:
    assert from_espeak("A@", rhotic=True) == ("aa", "r")
    assert from_espeak("A@", rhotic=False) == ("aa",)
    with pytest.raises(KeyError):
        from_espeak("nonsense", rhotic=True)


def test_held_out_voices_are_not_trained_on() -> None:
    variants = {voice.name.split("+")[-1] for voice in HELD_OUT_VOICES if voice.engine == "espeak"}
    assert variants == {"f4", "m7", "klatt3", "Annie"}
    assert not variants & {voice.name.split("+")[-1] for voice in TRAIN_VOICES}
    assert "rms" not in {voice.name for voice in TRAIN_VOICES}
    assert not {voice.engine for voice in HELD_OUT_ENGINE_VOICES} & {voice.engine for voice in TRAIN_VOICES}


def test_draw_voice_weighs_engines() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_voice(rng, TRAIN_VOICES) for _ in range(1000)]
    assert 0.35 < np.mean([voice.engine == "flite" for voice in drawn]) < 0.45
    assert all(0.75 <= voice.rate <= 1.35 for voice in drawn)


@pytest.fixture
def pulse() -> Utterance:
    """A second of weak noise with a strong pulse at 0.4 s, where the second of three phones begins."""
    wave_s = 0.001 * np.random.default_rng(3).standard_normal(RATE_HZ).astype(np.float32)
    wave_s[6400:6404] = 0.9
    phones = (Span("sil", 0.0, 0.4), Span("p", 0.4, 0.6), Span("sil", 0.6, 1.0))
    return Utterance(wave_s, (Span("pop", 0.4, 0.6),), phones)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_keep_times(pulse: Utterance, condition: str) -> None:
    for seed in range(5):
        heard = augment(pulse, np.random.default_rng(seed), condition=condition)
        assert heard.wave_s.dtype == np.float32
        assert tiles(heard)
        assert abs(int(np.argmax(np.abs(heard.wave_s))) / RATE_HZ - heard.words[0].start_s) < 0.001


def test_conditions_do_what_they_say(pulse: Utterance) -> None:
    rng = np.random.default_rng(0)
    quiet = np.r_[0:6000]
    assert np.array_equal(augment(pulse, rng, condition="clean").wave_s, pulse.wave_s)
    assert augment(pulse, rng, condition="noise").wave_s[quiet].std() > 1.2 * pulse.wave_s[quiet].std()
    after = np.r_[6500:8000]
    assert augment(pulse, rng, condition="reverb").wave_s[after].std() > 2 * pulse.wave_s[after].std()
    assert 1 / 1.4 - 0.001 <= augment(pulse, rng, condition="fast").duration_s <= 1 / 1.2 + 0.001
    with pytest.raises(KeyError):
        augment(pulse, rng, condition="underwater")


def test_pad_and_place_shift_times(pulse: Utterance) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        longer = pad(place(change_speed(pulse, 1.1), "bell", rng), rng)
        assert tiles(longer)
        assert abs(int(np.argmax(np.abs(longer.wave_s))) / RATE_HZ - longer.words[0].start_s) < 0.001
        (bell,) = longer.sounds
        inside = longer.wave_s[round(bell.start_s * RATE_HZ) : round(bell.end_s * RATE_HZ)]
        assert np.abs(inside).max() > 0.05
        assert bell.end_s < longer.words[0].start_s or bell.start_s > longer.words[0].end_s


@pytest.mark.parametrize("kind", ["beep", "hiss", "clicks", "bell", "chirp"])
def test_sounds(kind: str) -> None:
    first, second = (sound(kind, np.random.default_rng(seed), 0.3) for seed in (1, 2))
    assert first.shape == (4800,) and first.dtype == np.float32
    assert 0.1 <= np.abs(first).max() <= 0.5
    assert not np.allclose(first, second)
    with pytest.raises(KeyError):
        sound("bark", np.random.default_rng(0))


def _hiss_contrast(utterance: Utterance, shift_s: float) -> float:
    """Mean log ratio of energy above and below 3.5 kHz, inside minus outside the s and sh labels moved by `shift_s`."""
    hop, width = 40, 160
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(utterance.wave_s, width // 2), width)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(width), axis=1))) + 1e-5
    ratio_t = np.log(power[:, 35:].sum(1)) - np.log(power[:, 1:35].sum(1))
    time_t = np.arange(len(ratio_t)) * hop / RATE_HZ - shift_s
    hissing = [(p.start_s, p.end_s) for p in utterance.phones if p.label in ("s", "sh")]
    inside_t = np.any([(start <= time_t) & (time_t < end) for start, end in hissing], axis=0)
    return float(ratio_t[inside_t].mean() - ratio_t[~inside_t].mean())
