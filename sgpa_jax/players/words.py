"""Words and sounds as players: the words of an alignment, and whatever else is heard around them."""

from typing import TYPE_CHECKING

from sgpa_jax.audio import Clip
from sgpa_jax.players.player import Player, Players
from sgpa_jax.players.sounds import sound_events

if TYPE_CHECKING:
    from sgpa_jax.align import Alignment


def word_players(alignment: "Alignment", clip: Clip, *, sounds: bool = True) -> Players:
    """Return the words of `alignment` and, unless `sounds` is false, the sounds around them, ordered by time.

    Raises:
        PlayerError: there is neither a word nor a sound, or words are empty, overlap or lie outside of the clip.
    """
    words = [
        Player(word.text, "word", word.start_s, word.end_s, word.confidence, word.boundary_refined)
        for word in alignment.words
    ]
    events = sound_events(clip, [word.span_s for word in words]) if sounds else ()
    players = sorted([*words, *events], key=lambda player: player.span_s)
    return Players(tuple(players), clip.wave_s.size, clip.rate_hz)


def spoken_players(alignment: "Alignment", clip: Clip) -> Players:
    """Return the words of `alignment` alone, as SGPA's paper has them: sounds beside them belong to nobody.

    Where a word runs into the next one, as the authors' rules let it grow, the next one keeps the samples.

    Raises:
        PlayerError: nothing of a word is left.
    """
    next_s = [*(word.start_s for word in alignment.words[1:]), clip.duration_s]
    players = [
        Player(word.text, "word", word.start_s, min(word.end_s, limit_s), word.confidence, word.boundary_refined)
        for word, limit_s in zip(alignment.words, next_s, strict=True)
    ]
    return Players(tuple(players), clip.wave_s.size, clip.rate_hz)
