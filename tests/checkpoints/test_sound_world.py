"""The world of sounds and voices: the same clip from the same numbers, masks and answers that are true of it."""

import csv
import json

import numpy as np
import pytest
from sgpa_checkpoints.sound_world import (
    ANCESTORS,
    EMOTIONS,
    FEEL,
    FIRST,
    GENDERS,
    GROUPS,
    IS_THERE,
    LAST,
    LEAVES,
    MODES,
    NOBODY,
    NOTHING,
    WHAT,
    WHO,
    WORDS,
    event_mask,
    questions,
    sound_clip,
    without,
    write_corpus,
    write_fsd50k,
)
from sgpa_checkpoints.sound_world.draw import Draw
from sgpa_checkpoints.sound_world.voices import voice

from sgpa_jax.audio import read_clip
from sgpa_jax.sae import read_manifest


@pytest.fixture(scope="module")
def clips():
    return [sound_clip(0, index) for index in range(60)]


def test_a_clip_is_decided_by_its_numbers(clips):
    again = sound_clip(0, 7)
    np.testing.assert_array_equal(again.wave_s, clips[7].wave_s)
    assert (again.events, again.labels, again.caption, again.voice) == (
        clips[7].events, clips[7].labels, clips[7].caption, clips[7].voice,
    )  # fmt: skip
    for other in (sound_clip(1, 7), sound_clip(0, 8), sound_clip(0, 7, held_out=True)):
        assert other.wave_s.tobytes() != again.wave_s.tobytes() and other.id != again.id


def test_clips_are_what_the_world_promises(clips):
    for clip in clips:
        assert clip.wave_s.dtype == np.float32 and np.isfinite(clip.wave_s).all() and np.abs(clip.wave_s).max() < 1
        assert 1.0 <= clip.duration_s <= 6.0 and 1 <= len(clip.events) <= 3
        starts = [event.start_s for event in clip.events]
        assert starts == sorted(starts)
        assert all(0 <= event.start_s < event.end_s <= clip.duration_s for event in clip.events)
        leaves = {event.label for event in clip.events}
        assert set(clip.labels) == leaves | {ANCESTORS[leaf] for leaf in leaves}
        assert (clip.voice is not None) == bool(leaves & set(GENDERS.values()))
    assert {len(clip.events) for clip in clips} == {1, 2, 3}


def test_every_class_can_be_asked_for_and_has_one_above_it():
    assert len(LEAVES) == 24 and set(ANCESTORS) == set(LEAVES) and set(ANCESTORS.values()) == set(GROUPS)
    for index, leaf in enumerate(LEAVES):
        clip = sound_clip(3, index, leaf=leaf)
        assert {leaf, ANCESTORS[leaf]} <= set(clip.labels)


def test_masks_are_true_to_the_audio(clips):
    """In clips that are quiet outside of their events, without a room, the level follows the mask."""
    step_s, right = 0.02, []
    for clip in clips:
        mask = event_mask(clip, int(clip.duration_s / step_s), step_s)
        step = int(step_s * clip.rate_hz)
        power = np.square(clip.wave_s[: len(mask) * step]).reshape(len(mask), step).mean(axis=1)
        heard = mask.any(axis=1)
        assert heard.any() and set(np.flatnonzero(mask.any(axis=0))) == {
            list(LEAVES).index(label) for label in clip.labels if label in LEAVES
        }
        if (~heard).sum() >= 5:
            right.append(np.median(power[heard]) > np.median(power[~heard]))
    assert len(right) > 20 and np.mean(right) > 0.9


def test_held_out_parameters_are_never_drawn_in_training():
    drawn = {held_out: Draw(np.random.default_rng(0), held_out) for held_out in (False, True)}
    seen = {held_out: np.array([draw.between(0.0, 1.0) for _ in range(300)]) for held_out, draw in drawn.items()}
    in_gap = {key: ((x >= 0.2) & (x <= 0.3)) | ((x >= 0.7) & (x <= 0.8)) for key, x in seen.items()}
    assert in_gap[True].all() and not in_gap[False].any()
    assert 100 < drawn[False].geometric(100.0, 400.0) < 400


def test_women_speak_higher_than_men_whatever_they_feel():
    def pitch_hz(wave_s):
        same = np.fft.irfft(np.abs(np.fft.rfft(wave_s, 1 << 16)) ** 2)
        lags = np.arange(16000 // 320, 16000 // 80)
        return 16000 / lags[np.argmax(same[lags])]

    for emotion in EMOTIONS:
        found = {}
        for gender in GENDERS:
            waves = [voice(Draw(np.random.default_rng(n)), 16000, gender, emotion) for n in range(5)]
            found[gender] = np.median([pitch_hz(wave) for wave in waves])
        assert found["woman"] > 1.25 * found["man"], emotion


def test_answers_follow_from_events(clips):
    for clip in clips:
        asked = dict(questions(clip))
        assert asked[WHAT].split(" and ") == [LEAVES[label] for label in clip.labels if label in LEAVES]
        assert (asked[WHO], asked[FEEL]) == (clip.voice or (NOBODY, NOBODY))
        for label, word in (LEAVES | GROUPS).items():
            assert asked[IS_THERE.format(word)] == ("yes" if label in clip.labels else "no")
        if FIRST in asked:
            assert asked[FIRST] == LEAVES[clip.events[0].label]
        words = {word for pair in asked.items() for text in pair for word in text.split()}
        assert words <= set(WORDS)


def test_what_is_taken_away_is_not_heard_and_not_answered(clips):
    clip = next(c for c in clips if len(c.events) == 2 and c.voice and c.events[0].end_s <= c.events[1].start_s)
    spoken = next(n for n, event in enumerate(clip.events) if event.label in GENDERS.values())
    for mode in MODES:
        less = without(clip, {spoken}, mode=mode, seed=1)
        assert less.voice is None and [event.label for event in less.events] == [clip.events[1 - spoken].label]
        assert dict(questions(less))[WHO] == NOBODY
        if mode == "silence":
            first, last = (round(t * clip.rate_hz) for t in (clip.events[spoken].start_s, clip.events[spoken].end_s))
            assert not less.wave_s[first:last].any() and (less.wave_s[last:] == clip.wave_s[last:]).all()
        if mode == "delete":
            assert less.duration_s < clip.duration_s
    nothing = without(clip, {0, 1})
    assert dict(questions(nothing))[WHAT] == dict(questions(nothing))[LAST] == NOTHING and nothing.labels == ()


def test_a_corpus_is_read_as_any_other(tmp_path):
    write_corpus(tmp_path, 4, seed=5)
    rows = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    for index, (recording, row) in enumerate(zip(read_manifest(tmp_path / "clips.jsonl"), rows, strict=True)):
        clip = sound_clip(5, index)
        assert recording.labels == clip.labels and (recording.prompt, recording.response) in questions(clip)
        assert row["caption"] == clip.caption and len(row["events"]) == len(clip.events)
        np.testing.assert_allclose(read_clip(recording.path).wave_s, clip.wave_s, atol=1e-4)


def test_the_layout_of_fsd50k(tmp_path):
    write_fsd50k(tmp_path, 10, 3, seed=6)
    truth = tmp_path / "FSD50K.ground_truth"
    vocabulary = list(csv.reader((truth / "vocabulary.csv").read_text().splitlines()))
    assert [row[0] for row in vocabulary] == [str(n) for n in range(31)]
    mids = {row[1]: row[2] for row in vocabulary}
    for part, n, columns in (("dev", 10, 4), ("eval", 3, 3)):
        head, *rows = csv.reader((truth / f"{part}.csv").read_text().splitlines())
        assert head == ["fname", "labels", "mids", "split"][:columns] and len(rows) == n
        for row in rows:
            assert row[2].split(",") == [mids[label] for label in row[1].split(",")]
            clip = read_clip(tmp_path / f"FSD50K.{part}_audio" / f"{row[0]}.wav")
            held_out = sound_clip(6, int(row[0]), held_out=part == "eval")
            assert clip.rate_hz == 44100 and row[1] == ",".join(held_out.labels)
            assert clip.duration_s == pytest.approx(held_out.duration_s, abs=1e-3)
            ours, theirs = held_out.wave_s, clip.at_rate(16000).wave_s[: len(held_out.wave_s)]
            assert np.corrcoef(ours[: len(theirs)], theirs)[0, 1] > 0.9
    development = list(csv.reader((truth / "dev.csv").read_text().splitlines()))[1:]
    assert {row[3] for row in development} == {"train", "val"}
