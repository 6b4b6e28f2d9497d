"""Numbers about attributions: how concentrated they are, whether they find the evidence, and what judges say of them.

A judge is a game of the same players; that of another value function is no witness in its own case. Axes: `P` players,
`G` points of a curve.
"""

import jax
import numpy as np
from jaxtyping import Float

from sgpa_jax.explain import (
    cumulative_profile,
    entropy,
    erasure,
    gini,
    infidelity,
    monotonicity,
    normalise,
    paper_profile,
    rank_curves,
    sensitivity_max,
    spearman,
    top_mass,
)
from sgpa_jax.games import Game
from sgpa_jax.study.attribute import Explained
from sgpa_jax.study.corpus import Item
from sgpa_jax.study.notes import Notes
from sgpa_jax.study.partitions import hits, points

NORMALISERS = ("identity", "min_max")
"""|φ| as it is, and as the paper's code has it."""

GRID = 21
"""Points of the curves that are kept for figures."""


def note_concentration(notes: Notes, explained: Explained) -> None:
    """Note every measure of concentration, and the number of players that all of them depend on."""
    where = {"players": explained.cut, "value": explained.name}
    for normaliser in NORMALISERS:
        values_p = normalise(explained.values_p, normaliser)
        found = {
            "gini": gini(values_p),
            "top fifth": top_mass(values_p),
            "entropy / ln n": entropy(values_p, per="log"),
            "entropy / √n": entropy(values_p, per="root"),
        }
        for name, number in found.items():
            notes.add("concentration", name, number, setting=normaliser, **where)
    notes.add("concentration", "players", len(explained.players), **where)


def note_profile(notes: Notes, explained: Explained, duration_s: float) -> None:
    """Note when the values come together, over time and as the paper draws it."""
    spans_pe = np.array([player.span_s for player in explained.players])
    name = f"{explained.cut} {explained.name}"
    profile_g = cumulative_profile(explained.values_p, spans_pe, duration_s=duration_s, n_points=GRID)
    notes.curve(f"profile {name}", profile_g)
    notes.curve(f"profile as in the paper {name}", paper_profile(explained.values_p, GRID))


def note_evidence(notes: Notes, explained: Explained, item: Item, setting: str = "") -> None:
    """Note whether the evidence ranks first, and whether the first player lies in it."""
    where = {"players": explained.cut, "value": explained.name, "setting": setting}
    is_of_words = any(player.kind == "word" for player in explained.players)
    notes.add("evidence", "hit", hits(explained.values_p, explained.players, item) if is_of_words else None, **where)
    notes.add("evidence", "points", points(explained.values_p, explained.players, item), **where)


def note_faithfulness(notes: Notes, explained: Explained, judge: Game, judged_by: str, draws: int, seed: int) -> None:
    """Note what becomes of a judge's value when players go and come in the order of an attribution."""
    where = {"players": explained.cut, "value": explained.name, "setting": judged_by}
    values_p, durations_p, key = explained.values_p, explained.durations_p, jax.random.key(seed)
    curves = rank_curves(judge, values_p, durations_p, n_draws=draws, key=key)
    for name in ("deletion", "insertion"):
        notes.add("faithfulness", f"{name} area", getattr(curves, f"{name}_area_k")[0], **where)
        rivals_dk = getattr(curves, f"random_{name}_area_dk")
        notes.add("faithfulness", f"random {name} area", rivals_dk[:, 0].mean(), **where)
        curve_n = getattr(curves, f"{name}_nk")[:, 0]
        along_g = np.interp(np.linspace(0, 1, GRID), curves.share_n, curve_n)
        notes.curve(f"{name} {explained.cut} {explained.name} by {judged_by}", along_g)
    taken = erasure(judge, values_p, durations_p, n_draws=draws, key=key)
    for name in ("comprehensiveness", "sufficiency"):
        notes.add("faithfulness", name, getattr(taken, f"{name}_qk")[:, 0].mean(), **where)
        notes.add("faithfulness", f"random {name}", getattr(taken, f"random_{name}_dqk")[:, :, 0].mean(), **where)
    values_pk = np.repeat(values_p[:, None], judge.n_outputs, axis=1)
    notes.add("faithfulness", "infidelity", infidelity(judge, values_pk, key=key).unexplained_k[0], **where)
    ordered = monotonicity(judge, values_pk)
    notes.add("faithfulness", "monotonicity ρ", ordered.correlation_k[0], **where)
    notes.add("faithfulness", "agreeing steps", ordered.agreeing_k[0], **where)
    both = judge.values(np.array([[False], [True]]).repeat(judge.n_players, axis=1))[:, 0]
    notes.add("faithfulness", "empty value", both[0], **where)
    notes.add("faithfulness", "full value", both[1], **where)


def note_change(
    notes: Notes, first_p: Float[np.ndarray, "P"], then_p: Float[np.ndarray, "P"], *, players: str, setting: str
) -> None:
    """Note how far an attribution of the same players is from a first one."""
    where = {"players": players, "setting": setting}
    notes.add("sensitivity", "Spearman's ρ", spearman(first_p, then_p), **where)
    notes.add("sensitivity", "same first player", np.argmax(first_p) == np.argmax(then_p), **where)
    relative = sensitivity_max(first_p[:, None], then_p[None, :, None])[0]
    notes.add("sensitivity", "relative change", relative, **where)
