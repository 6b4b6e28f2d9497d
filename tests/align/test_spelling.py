import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align.spelling import spoken_words


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("Diet?", "diet"),
        ("don't", "don't"),
        ("Drouet’s", "drouet's"),
        ("well-known", "well known"),
        ("naïve", "naive"),
        ("straße", "strasse"),
        ("2026", "twenty twenty six"),
        ("1990s", "nineteen nineties"),
        ("'90s", "nineties"),
        ("1,000,000.", "one million"),
        ("1100,", "eleven hundred"),
        ("3.14", "three point one four"),
        ("007", "zero zero seven"),
        ("-5", "minus five"),
        ("21st", "twenty first"),
        ("100th", "one hundredth"),
        ("50%", "fifty percent"),
        ("20°C", "twenty degrees celsius"),
        ("$1", "one dollar"),
        ("$5.50", "five dollars and fifty cents"),
        ("€3m", "three million euros"),
        ("5:30", "five thirty"),
        ("17:05", "seventeen oh five"),
        ("5:00", "five o'clock"),
        ("10am", "ten a m"),
        ("10kg", "ten kilograms"),
        ("2½", "two and one half"),
        ("1/2", "one half"),
        ("24/7", "twenty four seven"),
        ("#5", "number five"),
        ("&", "and"),
        ("U.S.", "u s"),
        ("Mr", "mister"),
        ("A1", "a one"),
        ("E2E", "e two e"),
        ("٣", "three"),
        ("—", ""),
        ("...", ""),
    ],
)
def test_tokens_are_said_as_people_say_them(token, said):
    assert spoken_words(token, "", "") == tuple(said.split())


@pytest.mark.parametrize(
    ("previous", "token", "following", "said"),
    [
        ("", "St.", "Louis", "saint"),
        ("Main", "St.", "", "street"),
        ("", "Dr.", "Smith", "doctor"),
        ("", "No.", "5", "number"),
        ("said", "no.", "", "no"),
        ("", "$5", "million", "five"),
        ("$5", "million.", "", "million dollars"),
        ("five", "million", "", "million"),
        ("", "5:00", "p.m.", "five"),
    ],
)
def test_neighbours_decide(previous, token, following, said):
    assert spoken_words(token, previous, following) == tuple(said.split())


def test_long_numbers_are_said_digit_by_digit():
    assert spoken_words("9" * 5000, "", "") == ("nine",) * 5000


@given(st.text(), st.text(), st.text())
def test_any_text_is_words_of_letters(token, previous, following):
    for word in spoken_words(token, previous, following):
        assert word
        assert word == word.lower()
        assert not any(c.isspace() or c.isdecimal() for c in word)
