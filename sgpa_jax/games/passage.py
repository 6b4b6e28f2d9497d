"""What the token engines run on: a prompt's and a response's embeddings, each token with its player.

The audio is encoded once, whole; an absent player is absent at the decoder's input. Absences (other names are other
games): `embedding` puts a baseline vector in a token's place, `attention` hides the token as a key and, with zeros, as
a convolution's input, `drop_keep` takes it out and keeps the others' positions, `drop` closes the positions up as well.
Axes: `T` tokens, `R` tokens of the response, `P` players, `C` coalitions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.players import NOBODY

TOKEN_ABSENCES = ("embedding", "attention", "drop", "drop_keep")
"""The ways in which a player's tokens can be absent from the decoder's input."""


@dataclass(frozen=True, eq=False)
class Passage:
    """A prompt and its response without the response's last token, which no other token looks at.

    Attributes:
        x_td: embeddings; the last R rows predict the response's tokens.
        targets_r: the response's token ids, int[R].
        owner_t: each token's player, `NOBODY` (-1) where it is always there.
        absence_p: how each player is absent, one of `TOKEN_ABSENCES`.
        baseline_td: what stands in the place of a token absent by `embedding`; None where there is no such player.
        is_text_p: which players are text; none of them, if not told. Readouts at audio positions leave theirs out.

    Raises:
        UsageError: shapes that do not fit together, an unknown absence, or a missing baseline.
    """

    x_td: Float[Array | np.ndarray, "T D"]
    targets_r: Int[np.ndarray, " R"]
    owner_t: Int[np.ndarray, " T"]
    absence_p: tuple[str, ...]
    baseline_td: Float[Array | np.ndarray, "T D"] | None = None
    is_text_p: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        """Check what the engines rely on."""
        n_tokens, n_targets = len(self.x_td), len(self.targets_r)
        for absence in self.absence_p:
            if absence not in TOKEN_ABSENCES:
                raise unknown_name("absence", absence, TOKEN_ABSENCES)
        if not 0 < n_targets <= n_tokens or self.owner_t.shape != (n_tokens,):
            raise UsageError(
                f"{n_tokens} embeddings, {n_targets} targets and owners {list(self.owner_t.shape)}: expected an owner "
                "for each embedding, and from one target to as many as embeddings"
            )
        if not (self.owner_t >= NOBODY).all() or not (self.owner_t < len(self.absence_p)).all():
            raise UsageError(f"owners reach from {self.owner_t.min()} to {self.owner_t.max()}: expected -1 to P - 1")
        if (self.owner_t[n_tokens - n_targets + 1 :] != NOBODY).any():
            raise UsageError("a token of the response belongs to a player: expected players of the prompt alone")
        if "embedding" in self.absence_p and self.baseline_td is None:
            raise UsageError("the absence 'embedding' came without a baseline: give baseline_td")

    @property
    def n_players(self) -> int:
        """P."""
        return len(self.absence_p)

    @property
    def is_audio_t(self) -> Bool[np.ndarray, " T"]:
        """Which tokens belong to players that are heard."""
        is_text_p = np.array([*(self.is_text_p or (False,) * self.n_players), True])
        return ~is_text_p[self.owner_t]

    def absent_t(self, absence: str) -> Bool[np.ndarray, " T"]:
        """Which tokens have players who are absent in this way, when they are."""
        kinds = np.array([kind == absence for kind in self.absence_p] + [False])
        return kinds[self.owner_t]
