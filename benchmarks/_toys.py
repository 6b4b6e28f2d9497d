"""What the coalition benchmarks run on: small random decoders, torch's and ours of the same weights, and a passage.

The passage is a prefix, n players of L tokens each, a suffix and a response that is scored. Sizes are those at which
torch and XLA both reach their matrix products' speed on a processor; weights are drawn so that coalitions differ by
about one nat in a log-probability of about minus sixty.
"""

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import sgpa_checkpoints
import torch
import transformers
from _torch_conv import with_taps
from flax import nnx
from safetensors.torch import save_file

from sgpa_jax.games import Passage
from sgpa_jax.models.fill import fill, shape_rngs
from sgpa_jax.models.lfm2 import Lfm2, Lfm2Config
from sgpa_jax.models.qwen2 import Qwen2, Qwen2Config

VOCABULARY = 1000
_RULES = {"qwen2": sgpa_checkpoints.QWEN2_AUDIO, "lfm2": sgpa_checkpoints.LFM2_AUDIO}
_PREFIX = {"qwen2": "language_model.", "lfm2": "lfm."}


@dataclass(frozen=True, eq=False)
class Toy:
    """A decoder, a passage of T tokens with P players, and the R response tokens that are scored.

    Attributes:
        family: `qwen2` or `lfm2`.
        network: transformers' decoder with its head.
        x_td: embeddings of prompt and response, the response's last token left out.
        baseline_td: what stands in an absent player's place under `embedding`.
        owner_t: the player that a token belongs to, -1 for none.
        targets_r: the response's ids; the last R tokens predict them.
        n_prefix: tokens before the first player.
    """

    family: str
    network: Any
    x_td: np.ndarray
    baseline_td: np.ndarray
    owner_t: np.ndarray
    targets_r: np.ndarray
    n_prefix: int

    @property
    def n_players(self) -> int:
        """P."""
        return int(self.owner_t.max()) + 1

    @property
    def n_before(self) -> int:
        """How many tokens back the decoder's convolutions look."""
        return self.network.config.conv_L_cache - 1 if self.family == "lfm2" else 0

    def passage(self, absence: str) -> Passage:
        """Return the passage as our engines take it, every player absent in the same way."""
        rows, baseline = jnp.asarray(self.x_td), jnp.asarray(self.baseline_td)
        return Passage(rows, self.targets_r, self.owner_t, (absence,) * self.n_players, baseline)

    @cached_property
    def ours(self) -> Qwen2 | Lfm2:
        """Our decoder of the same weights."""
        with tempfile.TemporaryDirectory() as folder:
            self.network.config.save_pretrained(folder)
            tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
            if self.network.config.tie_word_embeddings:
                del tensors["lm_head.weight"]
            save_file(tensors, Path(folder, "model.safetensors"))
            return _ours(self.family, Path(folder))


class _Holder(nnx.Module):
    """The decoder where the tables of names expect it."""

    def __init__(self, config: Qwen2Config | Lfm2Config):
        kind = Qwen2 if isinstance(config, Qwen2Config) else Lfm2
        self.decoder = kind(config, rngs=shape_rngs())  # pyright: ignore[reportArgumentType]


def qwen2_toy(
    n_players: int,
    *,
    width: int = 256,
    prefix: int = 16,
    segment: int = 8,
    suffix: int = 12,
    response: int = 8,
    seed: int,
) -> Toy:
    """Return a Qwen2 decoder of four layers and four heads with its passage."""
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=width * 43 // 16, tie_word_embeddings=False, use_cache=False, bos_token_id=None,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return _toy("qwen2", transformers.Qwen2ForCausalLM, config, n_players, (prefix, segment, suffix, response), seed)


def lfm2_toy(
    n_players: int,
    *,
    width: int = 256,
    prefix: int = 16,
    segment: int = 8,
    suffix: int = 12,
    response: int = 8,
    seed: int,
) -> Toy:
    """Return an LFM2 decoder of four convolutions and two attention layers with its passage."""
    config = transformers.Lfm2Config(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        layer_types=["conv", "conv", "full_attention", "conv", "full_attention", "conv"],
        intermediate_size=width * 43 // 16, block_auto_adjust_ff_dim=False, norm_eps=1e-5, use_cache=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    toy = _toy("lfm2", transformers.Lfm2ForCausalLM, config, n_players, (prefix, segment, suffix, response), seed)
    with_taps(toy.network)
    return toy


def leverage_coalitions(n_players: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw distinct coalitions in complementary pairs, their sizes uniform: bool[C, P]."""
    drawn: dict[bytes, np.ndarray] = {}
    while len(drawn) < count:
        mask = np.zeros(n_players, bool)
        mask[rng.permutation(n_players)[: rng.integers(1, n_players)]] = True
        for row in (mask, ~mask):
            drawn.setdefault(row.tobytes(), row)
    return np.stack(list(drawn.values())[:count])


def permutation_coalitions(n_players: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw chains of nested coalitions, one player more at a time, from random orders: distinct ones, bool[C, P]."""
    drawn: dict[bytes, np.ndarray] = {}
    while len(drawn) < count:
        rank = rng.permutation(n_players)
        for size in range(n_players + 1):
            row = rank < size
            drawn.setdefault(row.tobytes(), row)
    return np.stack(list(drawn.values())[:count])


def _toy(family: str, kind: Any, config: Any, n_players: int, sizes: tuple[int, int, int, int], seed: int) -> Toy:
    prefix, segment, suffix, response = sizes
    torch.manual_seed(seed)
    network = kind(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            parameter.normal_(0, 1.4 * parameter.shape[1] ** -0.5 if "embed" not in name else 0.1)
        elif "bias" in name:
            parameter.normal_(0, 0.1)
    rng = np.random.default_rng(seed)
    owner = np.full(prefix + n_players * segment + suffix + response - 1, -1, np.int32)
    owner[prefix : prefix + n_players * segment] = np.repeat(np.arange(n_players), segment)
    table = network.get_input_embeddings().weight.numpy()
    x = table[rng.integers(VOCABULARY, size=len(owner))]
    heard = owner >= 0
    baseline = np.where(heard[:, None], x[heard].mean(axis=0), x).astype(np.float32)
    targets = rng.integers(VOCABULARY, size=response).astype(np.int32)
    return Toy(family, network, x, baseline, owner, targets, prefix)


def _ours(family: str, folder: Path) -> Qwen2 | Lfm2:
    raw = sgpa_checkpoints.read_json(folder / "config.json")
    config = Qwen2Config.from_hf(raw) if family == "qwen2" else Lfm2Config.from_hf(raw)
    rules = tuple(rule for rule in _RULES[family] if rule.sources[0].startswith(_PREFIX[family]))

    def renamed(name: str) -> str:
        return _PREFIX[family] + (name if family == "qwen2" else name.removeprefix("model."))

    filled = fill(lambda: _Holder(config), folder, rules, normalise=renamed, dtype="float32")
    return nnx.merge(*filled).decoder
