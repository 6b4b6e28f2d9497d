"""Refolding a data set: other values from the same coalitions, without a model, and gone on with where it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from sgpa_jax.batch import RUN, Outcome, read_items, read_players, refold_dataset
from sgpa_jax.batch.tables import part
from sgpa_jax.cli.app import SentenceGroup
from sgpa_jax.cli.refold import refold as command
from sgpa_jax.errors import SgpaError, UsageError
from sgpa_jax.explain import Explanation

Differ = Callable[[Path, Path], list[str]]


def rows(out: Path) -> dict[str, dict]:
    return {row["id"]: row for table in read_items(out) for row in table.to_pylist()}


def sgpa_refold(*arguments: object) -> Result:
    app = typer.Typer(cls=SentenceGroup)
    app.command()(command)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["refold", *map(str, arguments)])


def test_exact_items_come_out_as_they_were(run: Path, bundles: list[list[Outcome]], tmp_path: Path):
    before = {path: path.read_bytes() for path in run.rglob("*.*")}
    found = refold_dataset(run, tmp_path / "new", estimator="exact")
    assert found.missing == () and found.items == 8
    old, new = rows(run), rows(tmp_path / "new")
    for one in bundles[0][:2]:
        assert one.explanation is not None
        read = Explanation.from_json(new[one.id]["explanation"], one.id)
        np.testing.assert_allclose(read.values, one.explanation.values, atol=1e-12)
    assert {id for id, row in new.items() if row["error"] is not None} == {"c", "e", "g", "h"}
    assert new["c"]["error"] == old["c"]["error"] and "exact" in new["e"]["error"]
    assert {path: path.read_bytes() for path in run.rglob("*.*")} == before
    assert part(tmp_path / "new", "coalitions", 0).samefile(part(run, "coalitions", 0))


def test_other_estimands_and_interactions(run: Path, tmp_path: Path):
    refold_dataset(run, tmp_path / "new", estimand="owen", groups="phrases", interactions="k-SII:2")
    new = rows(tmp_path / "new")
    read = Explanation.from_json(new["a"]["explanation"], "a")
    assert read.estimand == new["a"]["estimand"] == "owen" and len(read.groups) == 4
    assert {entry["index"] for entry in read.interactions} == {"k-SII"}
    assert new["f"]["error"] is not None, "one player has no interactions of two"


def test_a_sample_serves_another_estimator(run: Path, tmp_path: Path, make_outcome: Callable[..., Outcome]):
    found = refold_dataset(run, tmp_path / "new", estimator="leverage", seed=3)
    new = rows(tmp_path / "new")
    assert new["e"]["error"] is None and new["e"]["estimator"] == "leverage" and new["e"]["seed"] == 3
    true = make_outcome("e", n_players=8, budget=256).explanation
    assert true is not None
    players = [row for table in read_players(tmp_path / "new") for row in table.to_pylist() if row["id"] == "e"]
    errors = np.array([row["standard_error"] for row in players])
    np.testing.assert_allclose([row["value"] for row in players], true.values[:, 0], atol=0.1 + 5 * errors.max())
    assert found.failed == sum(row["error"] is not None for row in new.values())


def test_it_goes_on_where_it_stopped(run: Path, tmp_path: Path, tables_differ: Differ):
    def stop(done: int, planned: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refold_dataset(run, tmp_path / "new", estimator="leverage", progress=stop)
    first = part(tmp_path / "new", "items", 0).stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    refold_dataset(run, tmp_path / "new", estimator="leverage", progress=lambda *done: seen.append(done))
    assert part(tmp_path / "new", "items", 0).stat().st_mtime_ns == first and seen == [(1, 3), (2, 3), (3, 3)]
    refold_dataset(run, tmp_path / "whole", estimator="leverage")
    assert tables_differ(tmp_path / "new", tmp_path / "whole") == []
    # The new folder stands alone: it can be refolded too.
    for path in sorted(run.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    refold_dataset(tmp_path / "new", tmp_path / "newer", estimator="exact", estimand="banzhaf")
    assert rows(tmp_path / "newer")["a"]["estimand"] == "banzhaf"


def test_what_no_item_could_be_explained_by_is_refused_first(run: Path, tmp_path: Path):
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"estimator": "leverige"}, "leverage"),
        ({"estimand": "owen"}, "groups"),
        ({"groups": "turns", "estimand": "owen"}, "turns"),
        ({"interactions": "k-SII"}, "order"),
        ({"estimator": "svarm", "estimand": "banzhaf"}, "svarm"),
    ]
    for asked, part_of in wrong:
        with pytest.raises(SgpaError, match=part_of):
            refold_dataset(run, tmp_path / "new", **asked)
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="holds another run"):
        refold_dataset(run, run)
    refold_dataset(run, tmp_path / "new", estimator="leverage", seed=1)
    with pytest.raises(UsageError, match="holds another run"):
        refold_dataset(run, tmp_path / "new", estimator="leverage", seed=2)
    part(run, "coalitions", 2).write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"coalitions/part-00002\.parquet cannot be read"):
        refold_dataset(run, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_coalitions_that_are_lost_are_told_item_by_item(
    tmp_path: Path, make_run: Callable[..., Path], make_outcome: Callable[..., Outcome]
):
    first, second = make_outcome("a"), make_outcome("b", n_players=3)
    object.__setattr__(first, "coalitions", None)
    object.__setattr__(second.coalitions, "masks_cp", np.ones((8, 2), bool))
    refold_dataset(make_run(tmp_path / "run", [[first, second]]), tmp_path / "new")
    new = rows(tmp_path / "new")
    assert "were not kept" in new["a"]["error"] and "do not fit" in new["b"]["error"]


def test_the_command_makes_tables_and_their_page(run: Path, tmp_path: Path):
    out = tmp_path / "new"
    result = sgpa_refold(run, "--estimator", "leverage", "--out", out)
    assert result.exit_code == 3 and "failed: " in result.stderr and "3 of 3 bundles, 8 items" in result.stdout
    assert str(out / "index.html") in result.stdout.replace("\n", "") and (out / RUN).exists()
    for arguments, part_of in (
        ((run,), "--out"), ((run, "--out", out, "--audio", "x.wav"), "--audio"), ((run, "--out", out), "another run"),
    ):  # fmt: skip
        refused = sgpa_refold(*arguments)
        assert refused.exit_code == 2 and part_of in refused.stderr, refused.stderr
        assert len(refused.stderr.splitlines()) == 1
