"""What is noted down about an item while it is studied, until it becomes a record."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sgpa_jax.errors import SgpaError
from sgpa_jax.study.records import Attribution, Measure


@dataclass
class Notes:
    """Measures, attributions, curves and facts of one item under one subject."""

    facts: dict[str, Any] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)
    attributions: list[Attribution] = field(default_factory=list)
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def add(self, table: str, name: str, number: Any, *, players: str = "", value: str = "", setting: str = "") -> None:
        """Note a number; one that is not finite is noted as missing."""
        found = None if number is None else float(number)
        if found is not None and not math.isfinite(found):
            found = None
        self.measures.append(Measure(table, name, found, players, value, setting))

    def curve(self, name: str, curve_g: Any) -> None:
        """Note a curve, to five digits."""
        self.curves[name] = tuple(round(float(point), 5) for point in np.asarray(curve_g))

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Go on without what cannot be had for this item, and note why."""
        try:
            yield
        except SgpaError as error:
            self.facts[f"without {what}"] = str(error)
