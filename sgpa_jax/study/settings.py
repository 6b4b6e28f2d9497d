"""What a study computes for every item, and for the share of items that it looks at closely."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Decides, with the corpus and the models, every number of a study.

    Attributes:
        budget: coalitions of log-probabilities for a cut; exact where all of them fit.
        hidden_budget: the same for words that are hidden from the decoder, where the recording is encoded once.
        response_budget: coalitions that the model answers, for the values that compare answers.
        close_share: share of the items, drawn by their ids, that get the dear measures: further cuts, absences,
            jitter, seeds, and the presets of the paper and of the authors.
        cost_share: share of the items of which it is measured what the paper's estimator costs with native tokens.
        draws: random rivals of a ranking.
        seeds: runs that stability over seeds compares.
        max_new_tokens: the longest answer; the paper's is 30.
        seed: of every draw.
    """

    budget: int = 512
    hidden_budget: int = 4096
    response_budget: int = 256
    close_share: float = 0.25
    cost_share: float = 0.05
    draws: int = 20
    seeds: int = 5
    max_new_tokens: int = 30
    seed: int = 0

    def looks_closely(self, item: str) -> bool:
        """Whether an item is one of the share; that depends on no other item."""
        return self.draw(item) < self.close_share * 2**32

    def weighs_cost(self, item: str) -> bool:
        """Whether an item is one of those whose cost is measured."""
        return self.draw(f"cost of {item}") < self.cost_share * 2**32

    def draw(self, item: str) -> int:
        """Return a number from 0 to 2³² − 1 for an item, by which its draws are seeded."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {item}".encode()).digest()[:4], "big")
