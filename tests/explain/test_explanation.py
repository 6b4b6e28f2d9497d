"""The result object: what it refuses, what it tells, and where its recording comes back from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.errors import AudioError, ExplanationError
from sgpa_jax.explain import ClipInfo, Explanation

Make = Callable[..., Explanation]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("values", np.zeros((2, 3))),
        ("standard_errors", np.zeros((3, 2))),
        ("empty_value", np.zeros(1)),
        ("full_value", np.zeros((2, 1))),
        ("efficiency_gap", np.zeros(())),
    ],
)
def test_arrays_that_do_not_fit_are_refused(make_explanation: Make, name: str, array: np.ndarray) -> None:
    with pytest.raises(ExplanationError, match=f"{name} of shape"):
        make_explanation(**{name: array})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(make_explanation: Make, bad: float) -> None:
    with pytest.raises(ExplanationError, match="not finite"):
        make_explanation(values=np.array([[1.0, bad], [0.0, 0.0]]))


def test_no_players_or_outputs_are_refused(make_explanation: Make) -> None:
    with pytest.raises(ExplanationError, match="0 players"):
        make_explanation(players=())
    with pytest.raises(ExplanationError, match="0 outputs"):
        make_explanation(outputs=())


def test_arrays_are_copied_and_frozen(make_explanation: Make) -> None:
    values = np.ones((2, 2), np.float32)
    x = make_explanation(values=values)
    values[0, 0] = 7
    assert x.values[0, 0] == 1
    assert x.values.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        x.values[0, 0] = 7


def test_question_is_the_last_thing_asked(make_explanation: Make) -> None:
    asked = [("user", "First?"), ("assistant", "One."), ("user", "Second?"), ("assistant", "Two.")]
    messages = [{"role": role, "content": content} for role, content in asked]
    assert make_explanation(messages=messages).question == "Second?"
    assert make_explanation(messages=()).question == ""


def test_summary_holds_every_player_and_number(make_explanation: Make) -> None:
    x = make_explanation(
        estimator={"name": "permutation", "budget": 64, "seed": 3}, standard_errors=np.full((2, 2), 0.25)
    )
    text = x.summary()
    assert repr(x) == text
    for part in (
        "Which?",
        "yes",
        "no",
        "+1.50 ± 0.25",
        "−0.50 ± 0.25",
        "−2.00",
        "−1.00",
        "+0.0e+00",
        "4 different",
        "█",
        "A warning.",
    ):
        assert part in text, part


def test_plot_gives_back_a_figure_or_the_axes_it_was_given(make_explanation: Make) -> None:
    from matplotlib.figure import Figure

    x = make_explanation()
    assert isinstance(x.plot(), Figure)
    ax = Figure().add_subplot()
    assert x.plot(ax) is ax


def test_pages_are_written_and_framed(make_explanation: Make, tmp_path: Path) -> None:
    x = make_explanation()
    x.to_html(tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text("utf-8").startswith("<!doctype html>")
    frame = x._repr_html_()
    assert frame.startswith("<iframe")
    assert "<script" not in frame
    assert "&lt;script" in frame


def test_recording_comes_back_from_its_file(make_explanation: Make, tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    clip = Clip(np.linspace(-0.5, 0.5, 4000, dtype=np.float32), 8000)
    write_wav(path, clip)
    from sgpa_jax.audio import read_clip

    x = make_explanation(clip=ClipInfo.of(read_clip(path)), wave=None)
    wave = x.with_wave().wave
    assert wave is not None
    assert wave.sha256 == x.clip.sha256
    assert x.wave is None


def test_another_recording_is_refused(make_explanation: Make, tmp_path: Path) -> None:
    x = make_explanation()
    with pytest.raises(ExplanationError, match="not the one that was explained"):
        x.with_wave(Clip(np.zeros(4000, np.float32), 8000))
    with pytest.raises(AudioError):
        x.with_wave(tmp_path / "missing.wav")
    with pytest.raises(ExplanationError, match="names no file"):
        make_explanation(clip=ClipInfo(None, "ab", 0.5, 8000)).with_wave()
