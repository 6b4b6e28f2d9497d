"""Mistral's `tekken.json` as a tokenizer of the `tokenizers` library.

Upstream: mistral-common's `Tekkenizer`, byte-pair encoding by ranks as in tiktoken. The file lists tokens by rank
without saying how they are merged, so every pair of tokens that makes a third one becomes a merge, in the order of the
ranks of what it makes; a stretch of text that is a token is never cut. Special tokens come first among the ids.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import sgpa_checkpoints

from sgpa_jax.errors import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_tekken(path: Path) -> "Tokenizer":
    """Read a `tekken.json` that lists its special tokens (version 11 and later, as Voxtral's does).

    Raises:
        CheckpointError: the file is damaged or of an older version.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    try:
        content = sgpa_checkpoints.read_json(path)
        config = content["config"]
        n_special = config["default_num_special_tokens"]
        n_plain = config["default_vocab_size"] - n_special
        ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in content["vocab"][:n_plain]}
        named = {entry["rank"]: entry["token_str"] for entry in content["special_tokens"]}
        splitter = pre_tokenizers.Split(Regex(config["pattern"]), "isolated")
    except sgpa_checkpoints.FormatError as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:  # a key or a type that is not there, or a pattern that the library refuses
        raise CheckpointError(
            f"{path} is not a tekken.json with special tokens ({type(error).__name__}: {error}); fetch it again"
        ) from error
    special = [named.get(rank, f"<SPECIAL_{rank}>") for rank in range(n_special)]
    letters = _letters()
    plain = {token: "".join(map(letters.__getitem__, token)) for token in ranks}
    vocab = {plain[token]: rank + n_special for token, rank in ranks.items()}
    vocab |= {token: rank for rank, token in enumerate(special)}
    merges = [(plain[left], plain[right]) for left, right in _merges(ranks)]
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [splitter, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield every pair of tokens that makes a token, by the rank of that one, then by their own."""
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [(left, right) for left, right in pairs if left in ranks and right in ranks]
        yield from sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _letters() -> dict[int, str]:
    """The printable letter by which byte-level tokenizers write each byte (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + k) for k, byte in enumerate(others)}
