"""The scale: centred, even, readable, and told apart by the colour-blind."""

import numpy as np
import pytest

from sgpa_jax.report.palette import DARK, LIGHT, N_COLOURS, Paper, colour, colours, ink, luminance, oklab, scale_limit

# What the three kinds of dichromats see, on linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1).
DICHROMATS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colour: str, kind: str) -> str:
    linear = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]) ** 2.2
    changed = (np.array(DICHROMATS[kind]) @ linear).clip(0, 1) ** (1 / 2.2)
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in changed)


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


both = pytest.mark.parametrize("paper", [LIGHT, DARK], ids=["light", "dark"])


@both
def test_zero_is_the_middle_and_the_ends_are_the_poles(paper: Paper) -> None:
    assert len(colours(paper)) == N_COLOURS
    assert colour(0.0, 3.0, paper) == paper.zero
    assert colour(-3.0, 3.0, paper) == paper.negative
    assert colour(3.0, 3.0, paper) == paper.positive
    assert colour(99.0, 3.0, paper) == paper.positive


@both
def test_equal_magnitudes_are_equally_strong(paper: Paper) -> None:
    lightness = np.array([oklab(shade)[0] for shade in colours(paper)])
    np.testing.assert_allclose(lightness, lightness[::-1], atol=0.012)
    half = np.diff(lightness[N_COLOURS // 2 :])
    assert (half < 0).all() if paper is LIGHT else (half > 0).all()


@both
def test_text_is_readable_on_every_shade(paper: Paper) -> None:
    assert min(contrast(shade, ink(shade)) for shade in colours(paper)) >= 4.5


@pytest.mark.parametrize("background", ["#000000", "#ffffff"])
def test_bars_stand_out_on_any_terminal(background: str) -> None:
    assert min(contrast(pole, background) for pole in (LIGHT.negative, LIGHT.positive)) >= 3


@both
@pytest.mark.parametrize("kind", DICHROMATS)
def test_signs_are_told_apart_by_the_colour_blind(paper: Paper, kind: str) -> None:
    # At a third of the range already: a distance of 0.02 in OKLab is about the least that is noticed.
    for share in (1 / 3, 2 / 3, 1.0):
        low, high = (oklab(seen(colour(sign * share, 1.0, paper), kind)) for sign in (-1, 1))
        assert np.linalg.norm(high - low) > 0.04


def test_limit_is_the_largest_magnitude() -> None:
    assert scale_limit(np.array([[0.5, -2.0], [1.0, 0.0]])) == 2.0
    assert scale_limit(np.zeros((2, 2))) == 1.0
