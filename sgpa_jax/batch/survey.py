"""What there is to tell of a whole data set, gathered bundle by bundle: sums, counts and the items worth a look.

Its memory does not grow with the items, but for the words that they are made of. Axes: `P` players, `Q` tenths of an
utterance, `H` classes of a histogram.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgpa_jax.batch.tables import finished_bundles, read_run, read_table
from sgpa_jax.report import number

N_TENTHS = 10
GAP_DECADES = tuple(range(-9, 2))
"""Classes of efficiency gaps: below 10⁻⁹, below 10⁻⁸ … and what is above 10¹."""

_MOST_RATIO, _RATIO_STEPS = 10.0, 400
_ROUNDING = 1e-5
"""Efficiency gaps that are smaller, as a share of what there was to share, tell of float32 alone."""
_N_OUTLIERS, _MOST_EXAMPLES, _MOST_REASONS = 6, 12, 1000
_ITEM_COLUMNS = (
    "id", "audio", "duration_s", "transcript", "response", "in_domain", "players", "estimand", "estimator", "value",
    "empty_value", "full_value", "efficiency_gap", "unique", "model_forwards", "model", "error", "seconds",
)  # fmt: skip
_PLAYER_COLUMNS = ("id", "player", "label", "kind", "confidence", "value", "standard_error")


class Noted(NamedTuple):
    """An item that is worth a look: by which number, how it is told, and where the item's row is."""

    weight: float
    told: str
    id: str
    bundle: int
    transcript: str
    response: str


@dataclass
class Word:
    """A word, over all places where it is a player: how often, and sums of its positive and of its negative values."""

    n: int = 0
    more: float = 0.0
    less: float = 0.0

    @property
    def mean_size(self) -> float:
        """Its mean |φ|."""
        return (self.more - self.less) / self.n


@dataclass
class Survey:
    """A data set so far.

    Attributes:
        run: what `run.json` tells.
        n_bundles: how many bundles there are.
        n_items, n_failed: items with a row, and those of them that failed.
        seconds, duration_s, coalitions, model_forwards: sums over items; failed ones add their seconds alone.
        models, values, methods: how often each model, value, and pair of estimand and estimator is met.
        reasons: why items failed, numbers and names left out: how often, and the first one's id and its whole sentence.
        players: how many items have so many players.
        gaps: how many items have an efficiency gap in each class of `GAP_DECADES`, and above.
        words: by their spelling.
        outliers: by what they are outliers in, worst first.
        examples: items from all over the data set.
        n_outside: items outside of the model's domain.
        largest_gap: the largest efficiency gap of all.
    """

    run: Mapping[str, Any]
    n_bundles: int = 0
    n_items: int = 0
    n_failed: int = 0
    seconds: float = 0.0
    duration_s: float = 0.0
    coalitions: int = 0
    model_forwards: int = 0
    n_outside: int = 0
    largest_gap: float = 0.0
    models: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    methods: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    players: Counter[int] = field(default_factory=Counter)
    gaps: np.ndarray = field(default_factory=lambda: np.zeros(len(GAP_DECADES) + 1, np.int64))
    words: dict[str, Word] = field(default_factory=dict)
    outliers: dict[str, list[Noted]] = field(default_factory=dict)
    examples: list[Noted] = field(default_factory=list)
    _stride: int = 1
    _ratios_qh: np.ndarray = field(default_factory=lambda: np.zeros((N_TENTHS, _RATIO_STEPS + 1), np.int64))

    @property
    def n_explained(self) -> int:
        """Items that did not fail."""
        return self.n_items - self.n_failed

    def add(self, bundle: int, items: Sequence[Mapping[str, Any]], players: Sequence[Mapping[str, Any]]) -> None:
        """Take in the rows of a bundle."""
        by_item: dict[str, list[Mapping[str, Any]]] = {}
        for player in players:
            by_item.setdefault(player["id"], []).append(player)
        for item in items:
            self.n_items += 1
            self.seconds += item["seconds"] or 0.0
            if item["error"] is not None:
                self._failed(item)
            else:
                self._explained(bundle, item, by_item.get(item["id"], []))
        for noted in self.outliers.values():
            noted.sort(key=lambda one: -one.weight)
            del noted[_N_OUTLIERS:]

    def position_quartiles(self) -> list[tuple[float, float, float] | None]:
        """Return quartiles of |φ|, as multiples of its mean in the utterance, for each tenth of utterances."""
        return [_quartiles(counts_h) for counts_h in self._ratios_qh]

    def top_words(self, limit: int) -> tuple[int, list[tuple[str, Word]]]:
        """Return how often a word must be met to be told, and the words of the largest mean |φ| among these."""
        least = max(1, min(5, self.n_explained // 20))
        often = [(label, word) for label, word in self.words.items() if word.n >= least]
        return least, sorted(often, key=lambda entry: (-entry[1].mean_size, entry[0]))[:limit]

    def noted(self) -> list[Noted]:
        """Return all items worth a look, each once."""
        return [*{one.id: one for some in [*self.outliers.values(), self.examples] for one in some}.values()]

    def _failed(self, item: Mapping[str, Any]) -> None:
        self.n_failed += 1
        reason = _general(item["error"])
        if reason in self.reasons or len(self.reasons) < _MOST_REASONS:
            n, id, sentence = self.reasons.get(reason, (0, item["id"], item["error"]))
            self.reasons[reason] = (n + 1, id, sentence)

    def _explained(self, bundle: int, item: Mapping[str, Any], players: Sequence[Mapping[str, Any]]) -> None:
        self.duration_s += item["duration_s"]
        self.coalitions += item["unique"]
        self.model_forwards += item["model_forwards"]
        self.models[item["model"]] += 1
        self.values[item["value"]] += 1
        self.methods[item["estimand"], item["estimator"]] += 1
        self.players[item["players"]] += 1
        gap = abs(item["efficiency_gap"])
        self.largest_gap = max(self.largest_gap, gap)
        self.gaps[np.searchsorted([10.0**decade for decade in GAP_DECADES], gap, side="right")] += 1
        # Banzhaf values share out another sum.
        shared = abs(item["full_value"] - item["empty_value"])
        if item["estimand"] != "banzhaf" and gap > _ROUNDING * max(1.0, shared):
            self._note("gap", gap, f"{gap:.2g}", bundle, item)
        if item["in_domain"] is False:
            self.n_outside += 1
            # The first ones: none is further outside than another.
            self._note("outside", -self.n_outside, "", bundle, item)
        sure = [(player["confidence"], player["label"]) for player in players if player["confidence"] is not None]
        if sure:
            confidence, label = min(sure)
            self._note("confidence", -confidence, f"“{label}” {confidence:.2f}", bundle, item)
        errors = [(player["standard_error"], player["label"], player["value"]) for player in players]
        if errors and max(errors)[0] > 0:
            error, label, value = max(errors)
            limit = max(error, abs(value))
            told = f"“{label}” {number(value, limit)} ± {number(error, limit).lstrip('+')}"
            self._note("error", error, told, bundle, item)
        self._example(bundle, item)
        self._share(players)

    def _share(self, players: Sequence[Mapping[str, Any]]) -> None:
        """Take in which words weigh, and where in the utterance they stand."""
        for player in players:
            if player["kind"] == "word":
                word = self.words.setdefault(spelling(player["label"]), Word())
                word.n += 1
                word.more += max(player["value"], 0.0)
                word.less += min(player["value"], 0.0)
        size_p = np.abs([player["value"] for player in players if player["kind"] not in ("text", "sound")])
        if len(size_p) < 2 or not size_p.any():
            return
        ratio_p = size_p / size_p.mean()
        step_p = np.minimum(ratio_p * (_RATIO_STEPS / _MOST_RATIO), _RATIO_STEPS).astype(int)
        tenth_p = ((np.arange(len(size_p)) + 0.5) * N_TENTHS / len(size_p)).astype(int)
        np.add.at(self._ratios_qh, (tenth_p, step_p), 1)

    def _note(self, what: str, weight: float, told: str, bundle: int, item: Mapping[str, Any]) -> None:
        noted = Noted(weight, told, item["id"], bundle, item["transcript"] or "", item["response"] or "")
        self.outliers.setdefault(what, []).append(noted)

    def _example(self, bundle: int, item: Mapping[str, Any]) -> None:
        """Keep items that lie evenly over what was seen: every second one, once they are too many."""
        if (self.n_explained - 1) % self._stride == 0:
            self.examples.append(Noted(0.0, "", item["id"], bundle, item["transcript"] or "", item["response"] or ""))
        if len(self.examples) > _MOST_EXAMPLES:
            self.examples, self._stride = self.examples[::2], 2 * self._stride


def survey(out: Path) -> Survey:
    """Return what there is to tell of the data set in a folder, of as many bundles as are finished.

    Raises:
        UsageError: `run.json` or a part is not there or damaged.
    """
    found = Survey(read_run(out))
    for bundle in finished_bundles(out):
        items = read_table(out, "items", bundle, _ITEM_COLUMNS).to_pylist()
        found.add(bundle, items, read_table(out, "players", bundle, _PLAYER_COLUMNS).to_pylist())
        found.n_bundles += 1
    return found


def spelling(label: str) -> str:
    """Return by what a word is known wherever it stands: without case, and without marks around it."""
    return label.strip(" \t\n.,;:!?\"'()[]…“”‘’«»").casefold() or label


def _general(error: str) -> str:
    """Leave names and numbers out of a sentence, so that one reason is one."""
    without_names = re.sub(r"'[^']*'|\"[^\"]*\"|“[^”]*”|\S*[/\\]\S*", "…", error)
    return re.sub(r"\d+(?:[.,]\d+)*", "…", without_names)


def _quartiles(counts_h: np.ndarray) -> tuple[float, float, float] | None:
    if not counts_h.any():
        return None
    below_h = np.cumsum(counts_h)
    places = [int(np.searchsorted(below_h, share * below_h[-1])) for share in (0.25, 0.5, 0.75)]
    low, middle, high = ((place + 0.5) * _MOST_RATIO / _RATIO_STEPS for place in places)
    return low, middle, high
