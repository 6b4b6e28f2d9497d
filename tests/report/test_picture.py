"""The picture: what is drawn where, in which colours, and that no text is taken for a formula."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sgpa_jax.errors import UsageError
from sgpa_jax.explain import Explanation
from sgpa_jax.players import Player
from sgpa_jax.report import draw_figure, draw_heat, save_picture
from sgpa_jax.report.palette import LIGHT, colour, scale_limit
from sgpa_jax.report.spectrogram import spectrogram


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_a_figure_says_what_was_asked_answered_and_found(estimated_explanation: Explanation) -> None:
    told = texts(draw_figure(replace(estimated_explanation, in_domain=False)))
    for part in ("What colour should the lamp be?", "blue", "+4.36 ± 0.30 nats", "Estimated by", "was not made for"):
        assert part in told, part


def test_bars_stand_at_their_words_in_the_colours_of_the_scale(exact_explanation: Explanation) -> None:
    x = exact_explanation
    bars = draw_figure(x).axes[-1]
    assert [label.get_text() for label in bars.get_xticklabels()] == [*(p.label for p in x.players[:-1]), "♪ sound"]
    limit = scale_limit(x.values)
    for p, bar in enumerate(bars.patches):
        assert isinstance(bar, Rectangle)
        start_s, end_s = x.players[p].span_s
        assert (bar.get_x(), bar.get_width()) == pytest.approx((start_s, end_s - start_s))
        assert bar.get_height() == pytest.approx(x.values[p, 0])
        assert to_hex(bar.get_facecolor()) == colour(float(x.values[p, 0]), limit, LIGHT)


def test_heat_is_drawn_onto_given_axes(exact_explanation: Explanation) -> None:
    ax = Figure().add_subplot()
    assert draw_heat(exact_explanation, ax) is ax
    assert len(ax.patches) == len(exact_explanation.players)
    assert ax.get_xlim() == (0, 2.5)


def test_pictures_of_anything_are_saved(
    exact_explanation: Explanation, hostile_explanation: Explanation, tmp_path: Path
) -> None:
    names = [f"w{i}" for i in range(60)]
    crowd = [Player(name, "word", i / 24, (i + 1) / 24) for i, name in enumerate(names)]
    crowded = replace(
        exact_explanation, players=tuple(crowd), values=np.ones((60, 3)), standard_errors=np.ones((60, 3)), wave=None
    )
    for x in (hostile_explanation, crowded, replace(exact_explanation, values=np.zeros((8, 3)))):
        save_picture(x, tmp_path / "x.png")
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_missing_matplotlib_is_told(exact_explanation: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="sgpa-jax\\[plot\\]"):
        draw_figure(exact_explanation)


def test_a_spectrogram_shows_a_tone_where_it_is(exact_explanation: Explanation) -> None:
    assert exact_explanation.wave is not None
    level, top_hz = spectrogram(exact_explanation.wave)
    frame = round((2.16 + 2.40) / 2 / 2.5 * level.shape[1])
    assert level[:, frame].argmax() / (level.shape[0] - 1) * top_hz == pytest.approx(1400, abs=40)
    assert level.max() == 255
