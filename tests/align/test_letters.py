"""What vocabularies can spell: cases, marks, scripts, and text brought to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align import Emissions, align
from sgpa_jax.align.letters import folded, is_english, letter_columns, shown, written_words
from sgpa_jax.align.transcript import read_transcript
from sgpa_jax.errors import AlignmentError

LATIN = "abcdefghijklmnopqrstuvwxyz"
GERMAN = frozenset(f"{LATIN}äöüß'-")
RUSSIAN = frozenset("абвгдежзийклмнопрстуфхцчшщъыьэюя")
HINDI = frozenset("कखगचजतदनपबमयरलवसह" + "ािीुूेैोौं्")


def emissions(labels: str) -> Emissions:
    names = ("<pad>", "|", *labels)
    return Emissions(np.zeros((1, len(names)), np.float32), 0.02, 0.0, names, 0)


def test_upper_case_vocabularies_are_spelled_like_lower_case_ones():
    assert letter_columns(emissions("ABÄ'")) == letter_columns(emissions("abä'")) == {"a": 2, "b": 3, "ä": 4, "'": 5}


def test_of_both_cases_the_lower_one_counts():
    assert letter_columns(emissions("aAB")) == {"a": 2, "b": 4}
    assert letter_columns(emissions("AaB")) == {"a": 3, "b": 4}


def test_a_curly_apostrophe_of_a_vocabulary_serves_for_the_plain_one():
    letters = letter_columns(emissions("al’"))
    assert [letters[c] for c in "'’"] == [4, 4]
    assert written_words("l'al", letters) == ("l'al",)


def test_blank_separator_and_longer_names_are_no_letters():
    labels = ("a", "|", "<s>", "ch", "-")
    assert letter_columns(Emissions(np.zeros((1, 5), np.float32), 0.02, 0.0, labels, 4)) == {"a": 0}


@pytest.mark.parametrize(
    ("token", "alphabet", "words"),
    [
        ("Straße,", GERMAN, ["straße"]),
        ("STRASSE", GERMAN, ["strasse"]),
        ("Straße", frozenset(LATIN), ["strasse"]),
        ("Müller-Lüdenscheidt!", GERMAN, ["müller-lüdenscheidt"]),
        ("Müller-Lüdenscheidt!", frozenset(LATIN), ["muller", "ludenscheidt"]),
        ("Bru\u0308der", GERMAN, ["brüder"]),
        ("„Hör’s“", GERMAN, ["hör's"]),
        ("—", GERMAN, []),
        ("-", GERMAN, []),
        ("Café", GERMAN, ["cafe"]),
        ("Весёлый", RUSSIAN, ["веселый"]),
        ("हिन्दी।", HINDI, ["हिन्दी"]),
        ("soft\u00adhyphen", GERMAN, ["softhyphen"]),
        ("ΛΌΓΟΣ", frozenset("λογσ"), ["λογοσ"]),
        ("٣", GERMAN, ["3"]),
    ],
)
def test_tokens_are_brought_to_the_vocabulary(token: str, alphabet: frozenset[str], words: list[str]):
    assert list(written_words(token, alphabet)) == words


@given(st.text(), st.frozensets(st.characters()))
def test_any_text_and_any_vocabulary_give_words_without_spaces(token: str, alphabet: frozenset[str]):
    for word in written_words(token, alphabet):
        assert word
        assert len(word.split()) == 1
    assert folded(token, frozenset()) == folded(folded(token, frozenset()), frozenset())


def test_english_is_told_by_its_letters_or_by_name():
    english = frozenset(f"{LATIN}'")
    assert is_english(english, None)
    assert not is_english(GERMAN, None)
    assert is_english(GERMAN, "en-GB")
    assert not is_english(english, "nl")
    assert not is_english(english | {"5"}, "en")


def test_numbers_are_said_in_english_alone():
    assert read_transcript("um 5", alphabet=frozenset(LATIN)).tokens[1].spoken == ("five",)
    assert read_transcript("um 5", alphabet=GERMAN, language="en").tokens[1].spoken == ("five",)
    assert read_transcript("um 5", alphabet=GERMAN | {"5"}).tokens[1].spoken == ("5",)
    for alphabet, language in ((GERMAN, None), (frozenset(LATIN), "nl")):
        with pytest.raises(AlignmentError, match="'5:30', and the aligner cannot spell '5', ':', '3', '0', only a–z"):
            read_transcript("um 5:30", alphabet=alphabet, language=language)


def test_what_is_lost_of_a_word_is_told():
    transcript = read_transcript("10kg Äpfel", alphabet=GERMAN)
    assert transcript.tokens[0].spoken == ("kg",)
    assert transcript.notes == ("'10kg' was aligned without '10', which the aligner cannot spell",)


@pytest.mark.parametrize(
    ("text", "says"), [("2026 12", "cannot spell '2', '0', '6', '1'"), ("Привет", "Cyrillic letters.*a–z, ß, ä, ö, ü")]
)
def test_a_transcript_of_nothing_that_can_be_spelled(text: str, says: str):
    with pytest.raises(AlignmentError, match=says):
        read_transcript(text, alphabet=GERMAN, unspellable="merge")


def test_alphabets_are_shown_in_short():
    assert shown(frozenset(f"{LATIN}'")) == "a–z"
    assert shown(RUSSIAN) == "а–я"
    assert shown(frozenset("acegikmoqs")) == "a, c, e, g, i, k, m, o, …"
    assert shown(frozenset("'")) == "none"


def test_words_of_another_script_are_aligned(spoken):
    labels = ("<pad>", "|", *sorted(RUSSIAN))
    said = [0, 2, 2, 0, 3, 1, 1, 4, 0, 0]

    class Model:
        name, digest, rate_hz, lexicon, transcribes = "russian", "0", 16000, None, True

        def emissions(self, clips):
            probability_tv = np.full((len(said), len(labels)), 0.1 / len(labels), np.float32)
            probability_tv[np.arange(len(said)), said] += 0.9
            return [{"character": Emissions(np.log(probability_tv), 0.1, 0.0025, labels, 0)} for _ in clips]

    first, second = align(spoken, f"{labels[2].upper()}{labels[3]}, {labels[4]}!", model=Model()).words
    assert (first.ctc_start_s, first.ctc_end_s) == (pytest.approx(0.1025), pytest.approx(0.5025))
    assert (second.ctc_start_s, second.ctc_end_s) == (pytest.approx(0.7025), pytest.approx(0.8025))
    assert first.confidence == pytest.approx(0.9, abs=0.01)
