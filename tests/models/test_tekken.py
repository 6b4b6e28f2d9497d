"""`tekken.json` read for `tokenizers`: byte-pair encoding by ranks, written out, gives the same ids."""

import base64
import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpa_jax.errors import CheckpointError
from sgpa_jax.models.tekken import read_tekken

N_SPECIAL = 8
WORDS = ["th", "he", "the", " t", " th", " the", "in", "ing", "thing", "é", "\n\n", "nn", "nnn"]
RANKS = {bytes([byte]): byte for byte in range(256)}
RANKS |= {word.encode(): 256 + k for k, word in enumerate(WORDS)}
PATTERN = r" ?[A-Za-zé]+|\s+|[^\sA-Za-zé]+"


def content():
    entries = [{"rank": rank, "token_bytes": base64.b64encode(token).decode()} for token, rank in RANKS.items()]
    return {
        "config": {
            "pattern": PATTERN,
            "default_vocab_size": N_SPECIAL + len(RANKS),
            "default_num_special_tokens": N_SPECIAL,
        },
        "vocab": [*entries, {"rank": len(RANKS), "token_bytes": base64.b64encode(b"never").decode()}],
        "special_tokens": [{"rank": 1, "token_str": "<s>"}, {"rank": 3, "token_str": "[INST]"}],
    }


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    path.write_text(json.dumps(content()))
    return read_tekken(path)


def by_ranks(text):
    """Join the two neighbours that make the token of the lowest rank, until none do."""
    ids = []
    for stretch in re.findall(PATTERN, text):
        parts = [bytes([byte]) for byte in stretch.encode()]
        while len(parts) > 1:
            joined = [RANKS.get(left + right, len(RANKS)) for left, right in itertools.pairwise(parts)]
            k = joined.index(min(joined))
            if joined[k] == len(RANKS):
                break
            parts[k : k + 2] = [parts[k] + parts[k + 1]]
        ids += [N_SPECIAL + RANKS[part] for part in parts]
    return ids


@given(st.text(st.sampled_from("thing é\nnH漢!")))
def test_ids_are_those_of_merging_by_rank(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == by_ranks(text)
    assert tokenizer.decode(ids) == text


def test_special_tokens_come_first_and_gaps_are_filled(tokenizer):
    assert tokenizer.encode("<s>[INST]th<SPECIAL_4>", add_special_tokens=False).ids == [1, 3, N_SPECIAL + 256, 4]
    assert tokenizer.get_vocab_size() == N_SPECIAL + len(RANKS)


@pytest.mark.parametrize("key", ["config", "vocab", "special_tokens"])
def test_damaged_files_are_refused(tmp_path, key):
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps({name: part for name, part in content().items() if name != key}))
    with pytest.raises(CheckpointError, match=key):
        read_tekken(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_tekken(path)
