import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align.transcript import UNSPELLABLE, Token, read_transcript
from sgpa_jax.errors import AlignmentError, UsageError

ALPHABET = frozenset("'abcdefghijklmnopqrstuvwxyz")


def read(text, unspellable="error"):
    return read_transcript(text, alphabet=ALPHABET, unspellable=unspellable)


def test_words_keep_their_punctuation_and_own_what_is_said():
    tokens = read('He paid "$5", Dr. Who?').tokens
    assert tokens == (
        Token("He", ("he",)),
        Token("paid", ("paid",)),
        Token('"$5",', ("five", "dollars")),
        Token("Dr.", ("doctor",)),
        Token("Who?", ("who",)),
    )


def test_digits_do_not_swallow_their_neighbours():
    assert [token.spoken for token in read("in 2026 we won").tokens] == [
        ("in",),
        ("twenty", "twenty", "six"),
        ("we",),
        ("won",),
    ]


def test_capitals_may_be_initials_unless_everything_is():
    assert [token.initials for token in read("the NSU Arena").tokens] == [False, True, False]
    assert not any(token.initials for token in read("THE NSU ARENA").tokens)


def test_error_policy_names_the_word():
    with pytest.raises(AlignmentError, match="'—'"):
        read("wait — what")


def test_merge_joins_the_neighbour():
    transcript = read("♪ wait — what ♪", "merge")
    assert [token.text for token in transcript.tokens] == ["♪ wait —", "what ♪"]
    assert len(transcript.notes) == 3


def test_interpolate_keeps_the_word():
    tokens = read("wait 漢字 what", "interpolate").tokens
    assert [(token.text, bool(token.spoken)) for token in tokens] == [("wait", True), ("漢字", False), ("what", True)]


def test_lost_letters_are_told():
    transcript = read("pre漢字view it")
    assert transcript.tokens[0].spoken == ("preview",)
    assert "漢字" in transcript.notes[0]


@pytest.mark.parametrize("policy", UNSPELLABLE)
@pytest.mark.parametrize(
    ("text", "says"),
    [("Привет мир", "Cyrillic"), ("你好", "Cjk"), ("", "empty"), (" \n\t", "empty"), ("— …", "no word")],
)
def test_what_no_policy_can_help(text, says, policy):
    with pytest.raises(AlignmentError, match=says):
        read(text, policy)


def test_half_characters_and_other_types_are_refused():
    with pytest.raises(AlignmentError, match="half of a character"):
        read("bad \ud800 text")
    with pytest.raises(AlignmentError, match="type bytes"):
        read(b"bytes")


def test_unknown_policy():
    with pytest.raises(UsageError, match="merge"):
        read("hello", "merg")


@given(st.text(), st.sampled_from(UNSPELLABLE))
def test_any_text_is_a_transcript_or_an_alignment_error(text, policy):
    try:
        transcript = read(text, policy)
    except AlignmentError as error:
        assert "\n" not in str(error)
        return
    assert " ".join(token.text for token in transcript.tokens) == " ".join(text.split())
    assert all(set(word) <= ALPHABET for token in transcript.tokens for word in token.spoken)
