"""Explaining a data set again without its model: other estimators and estimands from the coalitions that are known.

The new folder has tables of its own and shares the coalitions' files with the old one, so that it stands alone too.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sgpa_jax.archive import Sample, game_key, parse_index, refolded
from sgpa_jax.batch.outcome import Coalitions, Outcome
from sgpa_jax.batch.tables import (
    RUN,
    Keys,
    Standing,
    bundle_key,
    finished,
    finished_bundles,
    keys_of,
    read_coalitions,
    read_run,
    read_table,
    share_parts,
    standing,
    write_result,
)
from sgpa_jax.errors import SgpaError, UsageError
from sgpa_jax.estimators import choose_estimator
from sgpa_jax.explain import Explanation
from sgpa_jax.files import atomic_write
from sgpa_jax.players import groups_of


def refold_dataset(
    out: Path,
    into: Path,
    *,
    estimator: str = "auto",
    estimand: str = "shapley",
    groups: str | None = None,
    interactions: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Standing:
    """Write the tables that another estimator makes of a data set's coalitions, and return how far they are.

    It goes bundle by bundle; stopped and called again, it goes on. An item whose coalitions do not serve is told with
    the reason in its row, and one that failed before stays failed.

    Args:
        out: the data set's folder.
        into: the new folder.
        estimator: one of `ESTIMATORS`, or `auto`.
        estimand: one of `ESTIMANDS`.
        groups: what groups players for Owen values: `phrases` or `modality`.
        interactions: an index and an order such as `k-SII:2`; kept in the `explanation` of items whose coalitions were
            all evaluated.
        seed: decides every random draw.
        progress: called with (bundles done, bundles in all).

    Raises:
        UsageError: an unknown name, values that the estimator does not offer, folders that are the same or of other
            runs, a damaged part, or a folder that cannot be written to.
    """
    out, into = Path(out), Path(into)
    asked = {"estimator": estimator, "estimand": estimand, "groups": groups, "interactions": interactions, "seed": seed}
    _check(asked)
    old = read_run(out)
    run = old | {"key": game_key({"run": old["key"], **asked}), "estimate": asked, "refolded": {"run": old["key"]}}
    if (into / RUN).exists() and read_run(into)["key"] != run["key"]:
        raise UsageError(f"{into} holds another run: choose another folder for the new values")
    bundles = finished_bundles(out)
    atomic_write(into / RUN, json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    for done, bundle in enumerate(bundles):
        key, keys = bundle_key(run["key"], bundle), keys_of(out, "items", bundle)
        assert keys is not None
        if not finished(into, bundle, key):
            games, items = read_coalitions(out, bundle), read_table(out, "items", bundle)
            share_parts(out, into, bundle, ("coalitions",))
            write_result(
                into, bundle, [_refolded(row, games, asked) for row in items.to_pylist()], Keys(key, keys.coalitions)
            )
        if progress is not None:
            progress(done + 1, len(bundles))
    return standing(into)


def _check(asked: Mapping[str, Any]) -> None:
    """Refuse what no item could be explained by, before the first one is."""
    groups_of(asked["groups"], ())
    four = None if asked["groups"] is None else (0, 0, 1, 1)
    choose_estimator(asked["estimator"], 4, 4096, estimand=asked["estimand"], groups=four)
    if asked["interactions"] is not None:
        parse_index(asked["interactions"])


def _refolded(row: Mapping[str, Any], games: Mapping[str, Coalitions], asked: Mapping[str, Any]) -> Outcome:
    started_s = time.perf_counter()
    game, explanation, error = games.get(row["game_key"]), None, row["error"]
    if error is None:
        try:
            old = Explanation.from_json(row["explanation"] or "", f"the explanation of {row['id']!r}")
            explanation = refolded(old, _sample(game, old), **asked)
        except SgpaError as reason:
            error = str(reason)
    return Outcome(row["id"], row["audio"], explanation, game, error, time.perf_counter() - started_s)


def _sample(game: Coalitions | None, old: Explanation) -> Sample:
    if game is None or len(game.sample_s) == 0:
        raise UsageError("its coalitions were not kept: run sgpa batch again")
    sample = Sample(game.masks_cp[game.sample_s], game.values_sk)
    if sample.masks_cp.shape[1] != len(old.players) or sample.values_ck.shape[1] != len(old.outputs):
        raise UsageError("its coalitions do not fit its explanation: run sgpa batch again")
    return sample
