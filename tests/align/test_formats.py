"""Alignments out of and into files: round trips, other people's files, damaged and hostile ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.align import Alignment, Word, format_alignment, read_alignment, write_alignment
from sgpa_jax.align.given import _parse
from sgpa_jax.errors import AlignmentError, UsageError

ALIGNMENT = Alignment(
    words=(
        Word("No", 0.3, 0.5, 0.31, 0.49, 0.9, True),
        Word('said, "\t<b>"', 0.5, 0.74, None, None, None, False),
        Word("ça; …", 1.0, 1.25),
    ),
    duration_s=1.6,
    transcript='No said, "\t<b>" ça; …',
    aligner="pocket",
    digest="abc",
    rules="sgpa",
    emission="phone",
    notes=("'x' is not in the lexicon",),
)
TIMES = [("No", 0.3, 0.5), ("said,", 0.5, 0.74), ("the", 1.0, 1.25)]
SHORT_TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.6
<exists>
3
"TextTier"
"clicks"
0
1.6
1
0.2
"click"
"IntervalTier"
"ann - phones"
0
1.6
1
0
1.6
"n"
"IntervalTier"
"ann - words"
0
1.6
5
0
0.3
""
0.3
0.5
"No"
0.5
0.74
"said,"
0.74
1
"sil"
1
1.25
"the"
"""
MFA_JSON = {
    "start": 0,
    "end": 1.6,
    "tiers": {
        "words": {"type": "interval", "entries": [[0, 0.3, "<eps>"], *[[a, b, text] for text, a, b in TIMES]]},
        "phones": {"type": "interval", "entries": [[0.3, 0.4, "n"]]},
    },
}
WHISPERX_JSON = {
    "segments": [{"start": 0.3, "words": [{"word": t, "start": a, "end": b, "score": 0.5} for t, a, b in TIMES]}]
}
MFA_CSV = "Begin,End,Label,Type,Speaker\n" + "".join(
    [*(f"{a},{b},{text!r},words,ann\n".replace("'", '"') for text, a, b in TIMES), "0.3,0.4,n,phones,ann\n"]
)
OTHERS = {
    "short.TextGrid": SHORT_TEXTGRID,
    "mfa.json": json.dumps(MFA_JSON),
    "whisperx.json": json.dumps(WHISPERX_JSON),
    "bare.json": json.dumps({"words": [{"text": t, "start_s": a, "end_s": b} for t, a, b in TIMES]}),
    "mfa.csv": MFA_CSV,
    "plain.csv": "word,start,end\n" + "".join(f'"{text}",{a},{b}\n' for text, a, b in TIMES),
}


def read(tmp_path, content, duration_s=1.6):
    path = tmp_path / "alignment"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_alignment(path, duration_s=duration_s)


def times(alignment):
    return [(word.text, word.start_s, word.end_s) for word in alignment.words]


def test_json_comes_back_as_it_was(tmp_path):
    write_alignment(ALIGNMENT, tmp_path / "a.json")
    assert read_alignment(tmp_path / "a.json", duration_s=1.6) == ALIGNMENT
    row = json.loads((tmp_path / "a.json").read_text())["words"][0]
    assert list(row) == ["text", "start_s", "end_s", "ctc_start_s", "ctc_end_s", "confidence", "boundary_refined"]


@pytest.mark.parametrize("format", ["textgrid", "csv"])
def test_texts_and_times_come_back(tmp_path, format):
    write_alignment(ALIGNMENT, tmp_path / "a", format=format)
    alignment = read_alignment(tmp_path / "a", duration_s=1.6)
    assert times(alignment) == times(ALIGNMENT)
    assert (alignment.rules, alignment.emission) == ("given", "given")


def test_audacity_labels_are_three_columns():
    lines = format_alignment(ALIGNMENT, "audacity").splitlines()
    assert lines[:2] == ["0.300000\t0.500000\tNo", '0.500000\t0.740000\tsaid, " <b>"']


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_other_peoples_files(tmp_path, name, encoding):
    alignment = read(tmp_path, OTHERS[name].encode(encoding))
    assert times(alignment) == TIMES
    assert alignment.transcript == "No said, the"
    assert alignment.aligner == "given"


def test_words_without_times_are_placed_and_told(tmp_path):
    content = {"segments": [], "word_segments": [*({"word": t, "start": a, "end": b} for t, a, b in TIMES)]}
    content["word_segments"].insert(2, {"word": "2026"})
    alignment = read(tmp_path, json.dumps(content))
    assert times(alignment)[2] == ("2026", 0.74, 1.0)
    assert "'2026'" in alignment.notes[0]


def test_the_last_word_is_cut_at_the_end_of_the_recording(tmp_path):
    assert read(tmp_path, OTHERS["plain.csv"], duration_s=1.2).words[-1].end_s == 1.2
    with pytest.raises(AlignmentError, match="recording lasts"):
        read(tmp_path, OTHERS["plain.csv"], duration_s=1.1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "known"),
        (b"\xff\xfe\xd8", "UTF-8"),
        (b"\x80\x81", "UTF-8"),
        ("{", "damaged"),
        ("[" * 100_000, "damaged|neither"),
        ("{}", "neither"),
        ('{"words": []}', "no words"),
        ('{"words": [{"text": "a", "start_s": NaN, "end_s": 1}]}', "number of seconds"),
        ('{"words": [{"text": "a", "start_s": 0, "end_s": 1' + "0" * 400 + "}]}", "number of seconds"),
        ('{"words": [{"text": 5, "start_s": 0, "end_s": 1}]}', "string"),
        ('{"words": [{"text": " ", "start_s": 0, "end_s": 1}]}', "no words"),
        ('{"words": [{"text": "a", "start_s": 1, "end_s": 1}]}', "an end after it|end after"),
        ('{"words": [{"text": "a\\ud800", "start_s": 0, "end_s": 1}]}', "half of a character"),
        ('{"words": {"a": 1}}', "what it seems"),
        ('{"tiers": {"words": {}}}', "what it seems"),
        ('{"tiers": {"a - words": {}, "b - words": {}}}', "exactly one tier"),
        ('{"segments": [{"words": [{"word": "a"}]}]}', "no word has a time"),
        (SHORT_TEXTGRID[:-20], "ends too early"),
        (SHORT_TEXTGRID.replace("0.74", '"x"'), "expected"),
        (SHORT_TEXTGRID.replace("<exists>\n3", "<exists>\n1e999"), "too early"),
        (SHORT_TEXTGRID.replace('"ann - words"', '"bob - words"').replace("phones", "words"), "exactly one tier"),
        ("word,start\na,1\n", "known"),
        ("word,start,end\na,x,1\n", "line 2"),
        ("word,start,end\na,1\n", "columns"),
        ('word,start,end\n"a', "damaged"),
        ("word,start,end\na,-1,1\n", "start at 0"),
        ("word,start,end\na,nan,1\n", "number of seconds"),
    ],
)
def test_damaged_and_hostile_files_end_in_one_sentence(tmp_path, content, says):
    with pytest.raises(AlignmentError, match=says) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "\0"):
        with pytest.raises(AlignmentError, match="cannot read"):
            read_alignment(path, duration_s=1.0)


def test_an_alignment_of_another_recording_is_refused(tmp_path):
    with pytest.raises(AlignmentError, match=r"made for 1\.600 s"):
        read(tmp_path, format_alignment(ALIGNMENT, "json"), duration_s=3.0)


def test_overlaps_do_not_fit_a_textgrid():
    words = (Word("a", 0.0, 0.5), Word("b", 0.4, 0.6))
    with pytest.raises(AlignmentError, match="json"):
        format_alignment(Alignment(words, 1.0, "a b", "x", "", "authors", "character"), "textgrid")


def test_unknown_format(tmp_path):
    with pytest.raises(UsageError, match="textgrid"):
        write_alignment(ALIGNMENT, tmp_path / "a", format="textgrd")
    assert not (tmp_path / "a").exists()


WORDS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
        .map(str.strip)
        .filter(bool),
        st.floats(0.001, 2),
        st.floats(0, 1),
    ),
    min_size=1,
    max_size=6,
)


@given(WORDS, st.sampled_from(["json", "textgrid", "csv"]))
def test_any_words_round_trip(rows, format):
    words, at_s = [], 0.0
    for text, length_s, gap_s in rows:
        start_s = at_s + gap_s
        at_s = start_s + length_s
        words.append(Word(text, start_s, at_s))
    pauses = {"", "<eps>", "sil", "<sil>", "sp", "spn", "<p:>"}
    if format != "json" and any(text.lower() in pauses for text, *_ in rows):
        return
    alignment = Alignment(tuple(words), at_s + 0.5, " ".join(row[0] for row in rows), "pocket", "", "sgpa", "phone")
    assert times(_parse(format_alignment(alignment, format), at_s + 0.5)) == times(alignment)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.one_of(
        st.text(),
        JSON.map(json.dumps),
        st.tuples(st.sampled_from(["words", "segments", "word_segments", "tiers"]), JSON).map(
            lambda x: json.dumps(dict([x]))
        ),
        st.tuples(st.sampled_from(sorted(OTHERS)), st.integers(0, 400), st.text(max_size=3)).map(
            lambda x: OTHERS[x[0]][: x[1]] + x[2] + OTHERS[x[0]][x[1] + 1 :]
        ),
    )
)
def test_any_content_is_an_alignment_or_an_alignment_error(content):
    try:
        alignment = _parse(content, 1.6)
    except AlignmentError as error:
        assert str(error)
        return
    assert isinstance(alignment, Alignment)
