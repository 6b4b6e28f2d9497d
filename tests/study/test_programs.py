"""Compiled programs are forgotten before the system has no room for another one."""

from pathlib import Path

import pytest

from sgpa_jax.study import programs


@pytest.mark.parametrize(("mappings", "limit", "forgets"), [(10, 30, False), (16, 30, True)])
def test_half_of_the_room_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mappings: int, limit: int, forgets: bool
):
    forgotten: list[bool] = []
    (tmp_path / "maps").write_text("7f00 r-xp\n" * mappings)
    (tmp_path / "limit").write_text(f"{limit}\n")
    monkeypatch.setattr(programs, "_MAPS", tmp_path / "maps")
    monkeypatch.setattr(programs, "_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(programs.jax, "clear_caches", lambda: forgotten.append(True))
    programs.keep_room_for_programs()
    assert forgotten == [True] * forgets
    monkeypatch.setattr(programs, "_MAPS", tmp_path / "nowhere")
    programs.keep_room_for_programs()
