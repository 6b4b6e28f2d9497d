"""P4: the trie of coalitions in eager torch, on transformers' layers: our plan, our layout, our last-layer pruning.

What stays between this peer and ours is what the two libraries make of the same work: every token of the plan passes
every layer once, groups attend to the root's keys on their path and to their own under one boolean mask, and in the
last layer only the rows that predict the response go on. The sizes of groups and chunks are tuned for torch.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from _peers import Outcome, clock, target_log_probs
from _toys import Toy
from torch.nn import functional

from sgpa_jax.games.trie_plan import plan_trie


@dataclass(frozen=True)
class TrieSettings:
    """Tokens a group, coalitions a chunk, and torch's threads."""

    group_tokens: int
    chunk_leaves: int
    threads: int

    def __str__(self) -> str:
        return f"groups of {self.group_tokens} tokens, chunks of {self.chunk_leaves}, threads {self.threads}"


class _Tokens(NamedTuple):
    """Rows of tokens with what they may see, and where they stand."""

    x: torch.Tensor
    positions: torch.Tensor
    sees: torch.Tensor
    before: torch.Tensor


@torch.inference_mode()
def torch_trie(toy: Toy, masks_cp: np.ndarray, absence: str, settings: TrieSettings) -> Outcome:
    """Return the coalitions' log-probabilities, planned and run."""
    torch.set_num_threads(settings.threads)
    plan = plan_trie(
        toy.passage(absence), masks_cp, n_before=toy.n_before, group_tokens=settings.group_tokens,
        chunk_leaves=settings.chunk_leaves,
    )  # fmt: skip
    rows = torch.from_numpy(np.concatenate([toy.x_td, toy.baseline_td]))
    targets_r = torch.from_numpy(toy.targets_r.astype(np.int64))
    found = torch.zeros(plan.n_leaves, len(targets_r))
    chunks = plan.chunks
    for q in range(len(chunks.path)):
        root, groups, path, wanted, _, coalition = (_torch(part, q) for part in chunks)
        hidden = _run(toy.network, rows, root, groups, path, wanted.clamp(min=0))
        values = target_log_probs(toy.network, hidden.reshape(-1, len(targets_r), hidden.shape[2]), targets_r)
        coalition = coalition.reshape(-1)
        found[coalition[coalition >= 0]] = values[coalition >= 0]
    return Outcome(found.numpy()[plan.leaf_of_c], plan.tokens_padded)


def tuned_trie(
    toy: Toy,
    masks_cp: np.ndarray,
    absence: str,
    *,
    groups: Sequence[int] = (128, 256),
    chunks: Sequence[int] = (64, 256),
) -> TrieSettings:
    """Return the settings that run the coalitions in the least time, the better of two runs."""
    cores = len(os.sched_getaffinity(0))
    best: dict[TrieSettings, float] = {}
    tried = [
        TrieSettings(group, chunk, threads)
        for group in groups
        for chunk in chunks
        for threads in sorted({1, cores})
        if chunk <= max(len(masks_cp), min(chunks))
    ]
    for settings in tried * 2:
        began_s = clock()
        torch_trie(toy, masks_cp, absence, settings)
        best[settings] = min(best.get(settings, np.inf), clock() - began_s)
    return min(best, key=lambda settings: best[settings])


def _run(network: Any, rows: torch.Tensor, root: Any, groups: Any, path: torch.Tensor, wanted: torch.Tensor) -> Any:
    """The two-level forward pass: final hidden states of the wanted tokens, [G, W, D]."""
    on_path = [column[0][path.clamp(min=0)] for column in root[2:5]]
    on_path[2] = on_path[2] * (path >= 0)
    sees = torch.cat([_sees(groups, on_path), _sees(groups, groups[2:5], own=True)], dim=2)
    stem = _Tokens(rows[root.token], root.positions, _sees(root, root[2:5], own=True), root.before)
    branch = _Tokens(rows[groups.token], groups.positions, sees, groups.before)
    path, last = path.clamp(min=0), len(network.model.layers) - 1
    for i, layer in enumerate(network.model.layers):
        layer_of = _attend if hasattr(layer, "self_attn") else _convolve
        stem_x, branch_x = layer_of(network, layer, stem, branch, path, wanted if i == last else None)
        stem, branch = stem._replace(x=stem_x), branch._replace(x=branch_x)
    norm = network.model.norm if hasattr(network.model, "norm") else network.model.embedding_norm
    return norm(branch.x)


def _attend(network: Any, layer: Any, stem: _Tokens, branch: _Tokens, path: torch.Tensor, wanted: Any) -> Any:
    attention = layer.self_attn
    norm = layer.input_layernorm if hasattr(layer, "input_layernorm") else layer.operator_norm
    stem_y, branch_y = norm(stem.x), norm(branch.x)
    stem_kv = _keys_values(network, attention, stem_y, stem.positions)
    branch_kv = _keys_values(network, attention, branch_y, branch.positions)
    keys_values = [torch.cat([theirs[0][path], own], 1) for theirs, own in zip(stem_kv, branch_kv, strict=True)]
    if wanted is None:
        x = _mixed(network, layer, branch, branch_y, keys_values)
        return _mixed(network, layer, stem, stem_y, stem_kv), x
    asked = _Tokens(
        _rows_at(branch.x, wanted), branch.positions.gather(1, wanted), _rows_at(branch.sees, wanted), branch.before
    )
    return stem.x, _mixed(network, layer, asked, _rows_at(branch_y, wanted), keys_values)


def _mixed(network: Any, layer: Any, tokens: _Tokens, y: torch.Tensor, keys_values: Any) -> torch.Tensor:
    """The rest of an attending layer for the tokens that go on."""
    attention = layer.self_attn
    query = _rotated(network, _heads(attention, attention.q_proj(y), "q_layernorm"), tokens.positions)
    n_groups = attention.num_key_value_groups
    key, value = (part.transpose(1, 2).repeat_interleave(n_groups, dim=1) for part in keys_values)
    seen = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key, value, attn_mask=tokens.sees[:, None], scale=attention.scaling
    )
    out = attention.o_proj if hasattr(attention, "o_proj") else attention.out_proj
    return _feed_forward(layer, tokens.x + out(seen.transpose(1, 2).flatten(2)))


def _convolve(network: Any, layer: Any, stem: _Tokens, branch: _Tokens, path: torch.Tensor, wanted: Any) -> Any:
    conv = layer.conv
    weight_kd = conv.conv.weight[:, 0].T
    stem_y, branch_y = layer.operator_norm(stem.x), layer.operator_norm(branch.x)
    if wanted is None:
        stem_gate, stem_out, stem_content = conv.in_proj(stem_y).chunk(3, dim=-1)
        gate, out_gate, content = conv.in_proj(branch_y).chunk(3, dim=-1)
        stem_inputs, inputs, x, before = stem_gate * stem_content, gate * content, branch.x, branch.before
        own = inputs
    else:
        gate_w, out_w, content_w = conv.in_proj.weight.chunk(3)
        stem_inputs = functional.linear(stem_y, gate_w) * functional.linear(stem_y, content_w)
        inputs = functional.linear(branch_y, gate_w) * functional.linear(branch_y, content_w)
        out_gate = functional.linear(_rows_at(branch_y, wanted), out_w)
        x, before, own = _rows_at(branch.x, wanted), _rows_at(branch.before, wanted), _rows_at(inputs, wanted)
        stem_out = None
    along = torch.cat([stem_inputs[0][path], inputs], dim=1)
    x = _feed_forward(layer, x + conv.out_proj(out_gate * _taps(along, own, weight_kd, before)))
    if stem_out is None:
        return stem.x, x
    mixed = _taps(stem_inputs, stem_inputs, weight_kd, stem.before)
    return _feed_forward(layer, stem.x + conv.out_proj(stem_out * mixed)), x


def _taps(along: torch.Tensor, own: torch.Tensor, weight_kd: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Each token's own input and those that it points to, weighed."""
    mixed = own * weight_kd[-1]
    for k in range(1, len(weight_kd)):
        index = before[:, :, k - 1]
        mixed += _rows_at(along, index.clamp(min=0)) * (index >= 0)[:, :, None] * weight_kd[-1 - k]
    return mixed


def _keys_values(network: Any, attention: Any, y: torch.Tensor, positions: torch.Tensor) -> Any:
    key = _heads(attention, attention.k_proj(y), "k_layernorm")
    return _rotated(network, key, positions), _heads(attention, attention.v_proj(y), "")


def _heads(attention: Any, projected: torch.Tensor, norm: str) -> torch.Tensor:
    heads = projected.unflatten(2, (-1, attention.head_dim))
    return getattr(attention, norm)(heads) if hasattr(attention, norm) else heads


def _rotated(network: Any, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    cos, sin = (part[:, :, None] for part in network.model.rotary_emb(x, positions))
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def _feed_forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    if hasattr(layer, "mlp"):
        return x + layer.mlp(layer.post_attention_layernorm(x))
    return x + layer.feed_forward(layer.ffn_norm(x))


def _sees(query: Any, key: Sequence[torch.Tensor], *, own: bool = False) -> torch.Tensor:
    """Whether each query's token may look at each key's; a token always sees itself, so that no row is empty."""
    place, first, last = (column[:, None] for column in key)
    leaf = query.first[:, :, None]
    sees = (first <= leaf) & (leaf < last) & (place <= query.place[:, :, None])
    return sees | torch.eye(sees.shape[1], dtype=torch.bool) if own else sees


def _rows_at(rows_btd: torch.Tensor, index_bw: torch.Tensor) -> torch.Tensor:
    return rows_btd.gather(1, index_bw[:, :, None].expand(-1, -1, rows_btd.shape[2]))


def _torch(part: Any, q: int) -> Any:
    if isinstance(part, tuple):
        return type(part)(*(torch.from_numpy(column[q].astype(np.int64)) for column in part))  # pyright: ignore
    return torch.from_numpy(part[q].astype(np.int64))
