"""Damaged alignments, explanations and manifests: read, or refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgpa_jax.align import Alignment, Word, format_alignment, read_alignment
from sgpa_jax.explain import Explanation
from sgpa_jax.sae import read_manifest
from sgpa_jax.study.corpus import read_corpus

DURATION_S = 2.0
WORDS = (
    Word("turn", 0.1, 0.4, 0.12, 0.38, 0.9, True),
    Word('"on"', 0.4, 0.7),
    Word("the", 0.8, 1.0),
    Word("lämp", 1.0, 1.6),
)
ALIGNMENT = Alignment(WORDS, DURATION_S, 'turn "on" lämp', "pocket", "00", "sgpa", "phone", ("a note",))
SHORT = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n2\n"IntervalTier"\n"words"\n0\n2\n3\n'
    '0\n0.5\n""\n0.5\n1\n"turn"\n1\n2\n"on"\n"TextTier"\n"points"\n0\n2\n1\n0.5\n"here"\n'
)
MFA_TIERS = {
    "words": {"type": "interval", "entries": [[0.1, 0.4, "turn"], [0.4, 0.8, "on"]]},
    "phones": {"type": "interval", "entries": [[0.1, 0.2, "t"]]},
}
MFA = {"start": 0, "end": 2.0, "tiers": MFA_TIERS}
WHISPERX_WORDS = [
    {"word": "turn", "start": 0.1, "end": 0.4, "score": 0.9}, {"word": "3"}, {"word": "on", "start": 0.6, "end": 1.0},
]  # fmt: skip
WHISPERX = {"segments": [{"start": 0.1, "end": 1.0, "text": "turn 3 on", "words": WHISPERX_WORDS}]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("textgrid-long", format_alignment(ALIGNMENT, "textgrid")),
        ("textgrid-short", SHORT),
        ("alignment-csv", format_alignment(ALIGNMENT, "csv")),
    ],
)
def test_alignment_texts(campaign: Callable[..., None], name: str, content: str):
    campaign(name, content.encode(), lambda path: read_alignment(path, duration_s=DURATION_S))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("alignment-json", json.loads(format_alignment(ALIGNMENT, "json"))),
        ("mfa-json", MFA),
        ("whisperx-json", WHISPERX),
    ],
)
def test_alignment_json(campaign: Callable[..., None], name: str, content: dict[str, Any]):
    def read(path: Path) -> None:
        for format in ("json", "csv", "audacity"):
            format_alignment(read_alignment(path, duration_s=DURATION_S), format)

    campaign(name, json.dumps(content).encode(), read, structured=True)


def test_explanations(campaign: Callable[..., None], explain: Callable[..., Explanation]):
    campaign("explanation-json", explain().to_json().encode(), Explanation.load, structured=True)


ROWS: list[dict[str, Any]] = [
    {"audio": "a.wav", "id": "a", "transcript": "turn on the lamp", "labels": ["lamp", "voice"], "prompt": "what?",
     "response": "lamp", "evidence": [1], "words": [["turn", 0.1, 0.4], ["on", 0.4, 0.7]], "condition": "clean"},
    {"audio": "b/b.wav", "transcript": "red", "labels": [], "sounds": [["bell", 1.0, 1.5]], "evidence": [-1]},
]  # fmt: skip
TABLE = (
    "audio,id,transcript,labels,prompt,response,evidence,words\r\n"
    'a.wav,a,turn on,lamp;voice,what?,lamp,1,"[[""turn"", 0.1, 0.4], [""on"", 0.4, 0.7]]"\r\nb/b.wav,,red,,,,0,\r\n'
)
CORPORA = {"sae": read_manifest, "study": read_corpus}


@pytest.mark.parametrize("room", CORPORA)
def test_manifests_of_json_lines(campaign: Callable[..., None], room: str):
    lines = "\n".join(map(json.dumps, ROWS)).encode()
    campaign(f"{room}-jsonl", lines, CORPORA[room], structured=True, file="corpus.jsonl")


@pytest.mark.parametrize("room", CORPORA)
def test_manifests_of_csv(campaign: Callable[..., None], room: str):
    campaign(f"{room}-csv", TABLE.encode(), CORPORA[room], file="corpus.csv")
