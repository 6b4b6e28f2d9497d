"""Alignment from end to end, on a model that hears what was put into the clip."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpa_jax.align import RULES, UNSPELLABLE, align, align_batch
from sgpa_jax.audio import Clip
from sgpa_jax.errors import AlignmentError, UsageError

RATE_HZ = 16000
HISS = Clip(0.1 * np.random.default_rng(0).standard_normal(3 * RATE_HZ).astype(np.float32), RATE_HZ)


def test_words_lie_where_they_are_said(spoken, model, story):
    alignment = align(spoken, story.transcript, model=model)
    assert [word.text for word in alignment.words] == ["No", "said,", "the", "tree"]
    for word, (start_s, end_s) in zip(alignment.words, story.edges_s, strict=True):
        assert (word.start_s, word.end_s) == (pytest.approx(start_s, abs=0.006), pytest.approx(end_s, abs=0.006))
        assert (word.ctc_start_s, word.ctc_end_s) == (pytest.approx(start_s), pytest.approx(end_s))
        assert word.confidence == pytest.approx(0.9, abs=0.01)
        assert word.boundary_refined
    assert (alignment.rules, alignment.emission, alignment.aligner) == ("sgpa", "phone", "fake")
    assert alignment.notes == ()


def test_neighbours_share_an_edge_and_a_pause_is_nobodys(spoken, model, story):
    no, said, the, tree = align(spoken, story.transcript, model=model).words
    assert no.end_s == said.start_s
    assert the.end_s == tree.start_s
    assert the.start_s - said.end_s == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("rate_hz", [8000, 22050])
def test_the_clips_own_rate_does_not_matter(spoken, model, rate_hz, story):
    words = align(spoken.at_rate(rate_hz), story.transcript, model=model).words
    for word, (start_s, end_s) in zip(words, story.edges_s, strict=True):
        assert (word.start_s, word.end_s) == (pytest.approx(start_s, abs=0.01), pytest.approx(end_s, abs=0.01))


@pytest.mark.parametrize("rules", RULES)
def test_a_batch_is_the_same_as_one_by_one(spoken, model, rules, story):
    clips = [spoken, Clip(spoken.wave_s[:18000], RATE_HZ), HISS]
    texts = [story.transcript, "no said the", "five"]
    batch = align_batch(clips, texts, model=model, rules=rules)
    assert batch == [align(clip, text, model=model, rules=rules) for clip, text in zip(clips, texts, strict=True)]


def test_words_outside_of_the_lexicon_are_aligned_by_letters_and_named(spoken, model, story):
    alignment = align(spoken, "Knoh said, the trea", model=model)
    assert len(alignment.notes) == 2
    assert "'Knoh'" in alignment.notes[0] and "'trea'" in alignment.notes[1]
    for word, (start_s, end_s) in zip(alignment.words, story.edges_s, strict=True):
        assert (word.start_s, word.end_s) == (pytest.approx(start_s, abs=0.04), pytest.approx(end_s, abs=0.04))


def test_initials_may_be_said_letter_by_letter(story):
    timeline = (("sil", 0.2), ("eh", 0.1), ("n", 0.1), ("eh", 0.1), ("s", 0.1), ("y", 0.1), ("uw", 0.1), ("sil", 0.2))
    clip = Clip(0.1 * np.random.default_rng(1).standard_normal(RATE_HZ).astype(np.float32), RATE_HZ)
    model = story.model((*timeline[:-1], ("dh", 0.1), ("iy", 0.1)), lexicon=story.lexicon)
    word, _ = align(clip, "NSU the", model=model).words
    assert (word.start_s, word.end_s) == (pytest.approx(0.2, abs=0.02), pytest.approx(0.8, abs=0.02))


def test_a_word_without_letters_gets_the_gap_between_its_neighbours(spoken, model):
    alignment = align(spoken, "No said, … the tree", model=model, unspellable="interpolate")
    _, said, dots, the, _ = alignment.words
    assert (dots.start_s, dots.end_s) == (said.end_s, the.start_s)
    assert (dots.confidence, dots.ctc_start_s, dots.boundary_refined) == (None, None, False)
    assert "'…'" in alignment.notes[0]


def test_a_gap_that_is_too_narrow_is_widened(spoken, model):
    words = align(spoken, "No — said, the tree", model=model, unspellable="interpolate").words
    assert words[1].end_s - words[1].start_s == pytest.approx(0.05)
    assert words[0].end_s == words[1].start_s and words[1].end_s == words[2].start_s


def test_merge_joins_words(spoken, model):
    words = align(spoken, "No — said, the tree", model=model, unspellable="merge").words
    assert [word.text for word in words] == ["No —", "said,", "the", "tree"]


def test_the_authors_rules_run_over_characters(spoken, model, story):
    assert align(spoken, story.transcript, model=model, rules="authors").emission == "character"
    assert align(spoken, story.transcript, model=model, rules="authors", emission="phone").emission == "phone"
    assert align(spoken, story.transcript, model=story.model()).emission == "character"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rules": "sgpo"}, "sgpa"),
        ({"emission": "phones"}, "phone"),
        ({"unspellable": "drop"}, "merge"),
    ],
)
def test_unknown_names_are_refused_before_any_work(options, says, story):
    model = story.model()
    with pytest.raises(UsageError, match=says):
        align(HISS, "hello", model=model, **options)
    assert model.calls == 0


@pytest.mark.parametrize(
    ("clip", "text", "says"),
    [
        (HISS, "", "empty"),
        (HISS, "Привет мир", "Cyrillic"),
        (HISS, "supercalifragilistic " * 40, "cannot fit"),
        (Clip(np.zeros(100, np.float32), RATE_HZ), "hello", "6.2 ms"),
    ],
)
def test_what_cannot_be_aligned(clip, text, says, story):
    for model in (story.model(), story.model(lexicon=story.lexicon)):
        with pytest.raises(AlignmentError, match=says) as caught:
            align(clip, text, model=model)
        assert "\n" not in str(caught.value)


def test_numbers_are_said_in_english_unless_another_language_is_named(story):
    assert align(HISS, "no 5", model=story.model()).words[1].text == "5"
    with pytest.raises(AlignmentError, match="cannot spell '5'"):
        align(HISS, "no 5", model=story.model(), language="nl")


def test_counts_and_missing_phones_are_usage_errors(story):
    with pytest.raises(UsageError, match="2 clips came with 1"):
        align_batch([HISS, HISS], ["one"], model=story.model())
    with pytest.raises(UsageError, match="character"):
        align(HISS, "one", model=story.model(), emission="phone")


def test_alignment_is_deterministic_and_frozen(spoken, model, story):
    first, second = (align(spoken, story.transcript, model=model) for _ in range(2))
    assert first == second
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.words[0].start_s = 0.0  # pyright: ignore[reportAttributeAccessIssue]


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=40),
    rules=st.sampled_from(RULES),
    unspellable=st.sampled_from(UNSPELLABLE),
    phones=st.booleans(),
)
def test_any_text_is_an_alignment_or_an_alignment_error(text, rules, unspellable, phones, story):
    model = story.model(lexicon=story.lexicon if phones else None)
    try:
        alignment = align(HISS, text, model=model, rules=rules, unspellable=unspellable)
    except AlignmentError:
        return
    assert " ".join(word.text for word in alignment.words) == " ".join(text.split())
    assert all(0 <= word.start_s < word.end_s <= HISS.duration_s for word in alignment.words)
    starts_s = [word.start_s for word in alignment.words]
    assert starts_s == sorted(starts_s)
    if rules == "sgpa":
        assert all(a.end_s <= b.start_s for a, b in zip(alignment.words[:-1], alignment.words[1:], strict=True))
