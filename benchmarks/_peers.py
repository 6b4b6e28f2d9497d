"""Coalitions in torch, on transformers' decoders: one by one, batched and masked, batched without the absent tokens.

Each peer returns the log-probabilities of the response's tokens, float32[C, R], of the same coalitions of the same
passage, in `torch.inference_mode`; scored rows alone go through the head. Absences: `embedding` puts the baseline in an
absent player's place, `attention` hides its tokens as keys and as a convolution's inputs, `drop_keep` takes them out
and keeps the others' positions, `drop` closes the positions up. `tuned` finds a peer's best batch and thread count.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _toys import Toy
from transformers import DynamicCache

Peer = Callable[[Toy, np.ndarray, str, "Settings"], "Outcome"]
BATCHES = (16, 32, 64, 256)


@dataclass(frozen=True)
class Settings:
    """Rows a batch, and torch's threads."""

    batch: int
    threads: int

    def __str__(self) -> str:
        return f"batch {self.batch}, threads {self.threads}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Log-probabilities float32[C, R], and how many tokens went through the decoder for them, padding included."""

    log_probs_cr: np.ndarray
    tokens_run: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one length: embeddings, positions, and what may be seen.

    `hidden_bt` marks tokens that are hidden where they stand; `before_btk` are the rows that a convolution reads, where
    they are not just the neighbours, -1 for zeros.
    """

    coalitions_b: np.ndarray
    x_btd: torch.Tensor
    positions_bt: torch.Tensor
    hidden_bt: torch.Tensor | None = None
    before_btk: torch.Tensor | None = None

    def on(self, device: torch.device, dtype: torch.dtype) -> "Rows":
        """Bring the rows to a network."""
        moved = (None if part is None else part.to(device) for part in (self.hidden_bt, self.before_btk))
        return Rows(self.coalitions_b, self.x_btd.to(device, dtype), self.positions_bt.to(device), *moved)


def one_by_one(toy: Toy, masks_cp: np.ndarray, absence: str, settings: Settings) -> Outcome:
    """P1: one coalition after another, each without its absent tokens."""
    return batched_dropped(toy, masks_cp, absence, dataclasses.replace(settings, batch=1))


def one_by_one_masked(toy: Toy, masks_cp: np.ndarray, absence: str, settings: Settings) -> Outcome:
    """P1 as a user of the library would write it: one coalition after another, absent tokens masked."""
    return batched_masked(toy, masks_cp, absence, dataclasses.replace(settings, batch=1))


def batched_masked(toy: Toy, masks_cp: np.ndarray, absence: str, settings: Settings) -> Outcome:
    """P2: batches of full rows. A removed token is masked where it stands; before a convolution it goes to the end."""
    present_ct = _present(toy, masks_cp)
    n_coalitions, n_tokens = present_ct.shape
    places_ct = np.broadcast_to(np.arange(n_tokens), present_ct.shape)
    stands = absence in ("embedding", "attention") or toy.family == "qwen2"
    order_ct = places_ct if stands else np.argsort(~present_ct, axis=1, kind="stable")
    positions_ct = np.take_along_axis(_positions(present_ct, absence), order_ct, axis=1)
    last_c = np.full(n_coalitions, n_tokens) if stands else present_ct.sum(axis=1)
    hides = stands and absence != "embedding"

    def rows(chosen: np.ndarray) -> Rows:
        x_btd = _embedded(toy, masks_cp[chosen], absence, order_ct[chosen])
        hidden = torch.from_numpy(~present_ct[chosen]) if hides else None
        return Rows(chosen, x_btd, torch.from_numpy(positions_ct[chosen]), hidden)

    batches = (np.arange(n_coalitions)[i : i + settings.batch] for i in range(0, n_coalitions, settings.batch))
    return _run(toy, map(rows, batches), last_c, settings)


def batched_dropped(toy: Toy, masks_cp: np.ndarray, absence: str, settings: Settings) -> Outcome:
    """P3: batches of coalitions of one size, without their absent tokens; nothing is padded or masked."""
    return _dropped(toy, masks_cp, absence, settings, cached=False)


def batched_dropped_prefix(toy: Toy, masks_cp: np.ndarray, absence: str, settings: Settings) -> Outcome:
    """P3 behind keys and values of the prefix, which is run once; for decoders that only attend."""
    return _dropped(toy, masks_cp, absence, settings, cached=True)


def clock() -> float:
    """Seconds by which settings are compared: wall time, or on one core processor time, which others cannot blur."""
    return time.process_time() if len(os.sched_getaffinity(0)) == 1 else time.perf_counter()


def tuned(
    peer: Peer,
    toy: Toy,
    masks_cp: np.ndarray,
    absence: str,
    *,
    batches: Sequence[int] = BATCHES,
    sample: int = 192,
    seed: int = 0,
) -> Settings:
    """Return the settings that run a random sample of the coalitions in the least time, the better of two runs."""
    cores = len(os.sched_getaffinity(0))
    rng = np.random.default_rng(seed)
    chosen_cp = masks_cp[rng.permutation(len(masks_cp))[: max(sample, *batches)]]
    best: dict[Settings, float] = {}
    tried = [Settings(batch, threads) for batch in batches for threads in sorted({1, cores})]
    for settings in tried * 2:
        began_s = clock()
        peer(toy, chosen_cp, absence, settings)
        best[settings] = min(best.get(settings, np.inf), clock() - began_s)
    return min(best, key=lambda settings: best[settings])


def _dropped(toy: Toy, masks_cp: np.ndarray, absence: str, settings: Settings, *, cached: bool) -> Outcome:
    present_ct = _present(toy, masks_cp) if absence != "embedding" else np.ones((len(masks_cp), len(toy.x_td)), bool)
    positions_ct = _positions(present_ct, absence)
    first = toy.n_prefix if cached else 0
    gaps = toy.family == "lfm2" and absence == "attention"

    def rows(chosen: np.ndarray) -> Rows:
        kept_bt = np.stack([np.flatnonzero(row) for row in present_ct[chosen]])[:, first:]
        x_btd = _embedded(toy, masks_cp[chosen], absence, kept_bt)
        positions = torch.from_numpy(np.take_along_axis(positions_ct[chosen], kept_bt, axis=1))
        return Rows(chosen, x_btd, positions, before_btk=_before(toy, kept_bt) if gaps else None)

    sizes_c = present_ct.sum(axis=1)
    batches = []
    for size in np.unique(sizes_c):
        same = np.flatnonzero(sizes_c == size)
        batches += [same[i : i + settings.batch] for i in range(0, len(same), settings.batch)]
    return _run(toy, map(rows, batches), sizes_c - first, settings, first if cached else 0)


@torch.inference_mode()
def _run(toy: Toy, batches: Any, last_c: np.ndarray, settings: Settings, n_cached: int = 0) -> Outcome:
    """Run batches of rows, whose response ends at `last_c`, behind `n_cached` tokens of the passage run once."""
    torch.set_num_threads(settings.threads)
    device, dtype = toy.network.device, toy.network.dtype
    targets_r = torch.from_numpy(toy.targets_r.astype(np.int64)).to(device)
    found_cr = np.empty((len(last_c), len(targets_r)), np.float32)
    tokens, prefix = n_cached, _prefix(toy, n_cached) if n_cached else []
    for rows in batches:
        rows = rows.on(device, dtype)
        n_rows, n_tokens = rows.x_btd.shape[:2]
        hidden = toy.network.model(
            inputs_embeds=rows.x_btd,
            position_ids=rows.positions_bt,
            attention_mask=_masks(rows, n_cached),
            past_key_values=_cache(prefix, n_rows) if prefix else None,
            use_cache=bool(prefix),
            **({} if rows.before_btk is None else {"before": rows.before_btk}),
        ).last_hidden_state
        last_b = torch.from_numpy(last_c[rows.coalitions_b]).to(device)
        scored_br = last_b[:, None] - len(targets_r) + torch.arange(len(targets_r), device=device)
        scored = hidden[torch.arange(n_rows, device=device)[:, None], scored_br]
        found_cr[rows.coalitions_b] = target_log_probs(toy.network, scored, targets_r).cpu().numpy()
        tokens += n_rows * n_tokens
    return Outcome(found_cr, tokens)


def target_log_probs(network: Any, hidden_brd: torch.Tensor, targets_r: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the response's ids at the rows that predict them."""
    logits = network.lm_head(hidden_brd).float()
    chosen = logits.gather(2, targets_r[None, :, None].expand(len(logits), -1, 1))[:, :, 0]
    return chosen - logits.logsumexp(dim=2)


def _masks(rows: Rows, n_cached: int) -> dict[str, Any]:
    """What transformers' layers want: nothing where plain causal attention is meant, which takes its fastest kernel."""
    n_tokens, device = rows.x_btd.shape[1], rows.x_btd.device
    if rows.hidden_bt is None:
        sees = None
        if n_cached:
            sees = torch.ones(n_tokens, n_cached + n_tokens, dtype=torch.bool, device=device).tril(n_cached)[None, None]
        return {"full_attention": sees, "conv": None}
    causal = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=device).tril()
    own = torch.eye(n_tokens, dtype=torch.bool, device=device)
    return {"full_attention": (causal & ~rows.hidden_bt[:, None, :] | own)[:, None], "conv": ~rows.hidden_bt}


def _prefix(toy: Toy, n_cached: int) -> list[tuple[Any, Any]]:
    """Keys and values of the first tokens, layer by layer."""
    cache: Any = DynamicCache(config=toy.network.config)
    x = torch.from_numpy(toy.x_td[None, :n_cached]).to(toy.network.device, toy.network.dtype)
    toy.network.model(inputs_embeds=x, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _cache(prefix: list[tuple[Any, Any]], n_rows: int) -> DynamicCache:
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix):
        cache.update(keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1), layer)
    return cache


def _present(toy: Toy, masks_cp: np.ndarray) -> np.ndarray:
    return np.concatenate([masks_cp, np.ones((len(masks_cp), 1), bool)], axis=1)[:, toy.owner_t]


def _positions(present_ct: np.ndarray, absence: str) -> np.ndarray:
    if absence == "drop":
        return np.maximum(present_ct.cumsum(axis=1) - 1, 0)
    return np.broadcast_to(np.arange(present_ct.shape[1]), present_ct.shape)


def _embedded(toy: Toy, masks_bp: np.ndarray, absence: str, kept_bt: np.ndarray) -> torch.Tensor:
    x_btd = toy.x_td[kept_bt]
    if absence == "embedding":
        present_bt = np.take_along_axis(_present(toy, masks_bp), kept_bt, axis=1)
        x_btd = np.where(present_bt[:, :, None], x_btd, toy.baseline_td[kept_bt])
    return torch.from_numpy(x_btd)


def _before(toy: Toy, kept_bt: np.ndarray) -> torch.Tensor:
    """Which kept rows stood one, two, … places before each; -1 where that token is hidden."""
    n_taps = toy.network.config.conv_L_cache
    index = np.full((len(kept_bt), len(toy.x_td) + n_taps), -1)
    np.put_along_axis(index, kept_bt + n_taps, np.arange(kept_bt.shape[1])[None], axis=1)
    return torch.from_numpy(
        np.stack([np.take_along_axis(index, kept_bt + n_taps - k, axis=1) for k in range(1, n_taps)], axis=2)
    )
