"""The cuts of a recording that a study compares: words by several rules, and as many pieces that know no words.

Equal numbers of players are what makes them comparable: whatever rests on fewer players alone, random and uniform cuts
have as well. Axes: `P` players, `E` edges (start, end).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip
from sgpa_jax.errors import PlayerError
from sgpa_jax.explain import evidence_hit
from sgpa_jax.players import Player, Players, spoken_players, word_players
from sgpa_jax.study.corpus import SOUND, Item
from sgpa_jax.study.heard import Heard

WORDS, TRUE, AUTHORS, CTC, RANDOM, UNIFORM, NATIVE = "words", "true", "authors", "ctc", "random", "uniform", "native"
"""Our words, words at their true times, those of the authors' rules, those of the path alone; pieces; positions."""

SHORTEST_S = 0.05
"""No random piece is shorter, as no word is."""


def cut(heard: Heard, name: str, *, n_players: int, rng: np.random.Generator) -> Players:
    """Cut an item into players; `native` ones are the model's to give.

    Args:
        heard: the item.
        name: `words`, `true`, `authors`, `ctc`, `random` or `uniform`.
        n_players: of the pieces that know no words.
        rng: draws random cuts.

    Raises:
        AlignmentError, PlayerError: the transcript does not fit, or there is no true time.
    """
    if name == WORDS:
        return word_players(heard.sgpa, heard.clip)
    if name == TRUE:
        return true_players(heard.item, heard.clip)
    if name in (AUTHORS, CTC):
        return spoken_players(heard.authors if name == AUTHORS else heard.ctc, heard.clip)
    edges_s = np.linspace(0, heard.clip.duration_s, n_players + 1)
    if name == RANDOM:
        edges_s = random_edges(heard.clip.duration_s, n_players, rng)
    return pieces(edges_s, heard.clip)


def true_players(item: Item, clip: Clip) -> Players:
    """Words and sounds at the times at which they were made.

    Raises:
        PlayerError: no such time is known.
    """
    if not item.words:
        raise PlayerError("the manifest gives no times of words")
    players = [Player(word.label, "word", word.start_s, word.end_s) for word in item.words]
    players += [Player(sound.label, "sound", sound.start_s, sound.end_s) for sound in item.sounds]
    return Players(tuple(sorted(players, key=lambda player: player.span_s)), len(clip.wave_s), clip.rate_hz)


def random_edges(duration_s: float, n_players: int, rng: np.random.Generator) -> Float[np.ndarray, "E"]:
    """Edges of pieces that fill the recording, their lengths uniform among all that are at least `SHORTEST_S`."""
    shortest_s = min(SHORTEST_S, duration_s / (2 * n_players))
    spare_s = np.sort(rng.uniform(0, duration_s - n_players * shortest_s, n_players - 1))
    return np.concatenate([[0], spare_s + shortest_s * np.arange(1, n_players), [duration_s]])


def pieces(edges_s: Float[np.ndarray, "E"], clip: Clip) -> Players:
    """Players between one edge and the next."""
    spans_s = zip(edges_s[:-1].tolist(), edges_s[1:].tolist(), strict=True)
    named = (Player(f"piece {number}", "window", *span_s) for number, span_s in enumerate(spans_s, start=1))
    return Players(tuple(named), len(clip.wave_s), clip.rate_hz)


def jittered(players: Players, jitter_s: float, rng: np.random.Generator) -> Players:
    """The same players, every edge `jitter_s` earlier or later; an edge that two share stays shared.

    They stay in order and at least a fifth of `SHORTEST_S` long.
    """
    edges_s = sorted({edge_s for player in players for edge_s in player.span_s})
    moves_s = rng.choice((-jitter_s, jitter_s), len(edges_s))
    duration_s = players.n_samples / players.rate_hz
    moved_s = np.clip(np.array(edges_s) + moves_s, 0, duration_s)
    least_s = SHORTEST_S / 5
    for index in range(1, len(moved_s)):
        moved_s[index] = max(moved_s[index], moved_s[index - 1] + least_s)
    latest_s = duration_s
    for index in reversed(range(len(moved_s))):
        moved_s[index] = latest_s = min(moved_s[index], latest_s)
        latest_s -= least_s
    where_s = dict(zip(edges_s, moved_s.tolist(), strict=True))
    moved = (Player(p.label, p.kind, *(where_s[edge_s] for edge_s in p.span_s)) for p in players)
    return Players(tuple(moved), players.n_samples, players.rate_hz)


def evidence_players(players: Players, item: Item) -> set[int] | None:
    """Indices of the players that must decide the answer; None where one of them is not there.

    Words are counted; the sound is the one that overlaps the true sound most.
    """
    words = [index for index, player in enumerate(players) if player.kind == "word"]
    if not item.evidence or (item.words and len(words) != len(item.words)):
        return None
    found = set()
    for index in item.evidence:
        player = _most_of(players, item.sounds[:1], "sound") if index == SOUND else words[index]
        if player is None:
            return None
        found.add(player)
    return found


def hits(values_p: Float[np.ndarray, "P"], players: Players, item: Item) -> bool | None:
    """Whether the evidence, and nothing else, has the largest values; None where the item's evidence is not known."""
    if not item.evidence:
        return None
    evidence = evidence_players(players, item)
    return evidence is not None and evidence_hit(values_p, evidence)


def points(values_p: Float[np.ndarray, "P"], players: Players, item: Item) -> bool | None:
    """Whether the middle of the player of the largest value lies inside of the evidence, whatever the cuts are."""
    spans = [*(item.words[index] for index in item.evidence if index != SOUND and item.words)]
    spans += item.sounds[:1] if SOUND in item.evidence else ()
    if not spans:
        return None
    start_s, end_s = players[int(np.argmax(values_p))].span_s
    return any(span.start_s <= (start_s + end_s) / 2 < span.end_s for span in spans)


def spans_of(players: Iterable[Player]) -> tuple[tuple[float, float], ...]:
    """Start and end of each player."""
    return tuple(player.span_s for player in players)


def _most_of(players: Players, spans: Sequence[tuple[str, float, float]], kind: str) -> int | None:
    overlaps = [
        (min(player.span_s[1], end_s) - max(player.span_s[0], start_s), index)
        for _, start_s, end_s in spans
        for index, player in enumerate(players)
        if player.kind == kind
    ]
    overlap, best = max(overlaps, default=(0.0, -1))
    return best if overlap > 0 else None
