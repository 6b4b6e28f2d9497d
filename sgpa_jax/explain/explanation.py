"""The one result object: who made which output likelier, by how much and how surely, and how that was computed.

Axes: `P` players in the order of the conversation, `K` outputs; the first is the whole response, the others its tokens.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import ExplanationError
from sgpa_jax.explain.schema import from_json, to_json
from sgpa_jax.explain.source import ClipInfo, Transcript
from sgpa_jax.files import atomic_write
from sgpa_jax.players import Player


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation:
    """An answer of a model to a recording, shared out among what is heard there, and what is asked in text.

    Attributes:
        clip: which recording.
        wave: its samples, to look at and listen to; never saved (see `with_wave`).
        transcript: its words.
        messages: what the model was told, each a dict of "role" and "content".
        response: what the model answered, and what the values explain.
        in_domain: whether the model was made for this speech and this question; None when it can't tell.
        model: "name", "digest", "dtype".
        aligner: "name", "digest", "rules", "emission", "notes".
        game: "value", "readout", "absence" and their parameters.
        estimand: what the values are, e.g. "shapley".
        estimator: "name", "budget", "seed".
        engine: what evaluated the coalitions.
        outputs: for each output "name" and "kind" ("response" or "token").
        players: words and sounds or other stretches in the order of time, and text of the prompt around them.
        values: float64[P,K], what each player adds to each output.
        standard_errors: float64[P,K], of the estimate; zero when exact.
        empty_value, full_value: float64[K], the value with all players absent and with all of them there.
        efficiency_gap: float64[K], the values' sum less (full − empty).
        evaluations: how many coalitions were "requested", "unique", and "model_forwards".
        groups: each player's group, where the estimand respects groups; else empty.
        interactions: values of sets of players: "index", "order", "players", and "values" for each output.
        concepts: which player fires which latent of a sparse autoencoder, and what these carry of the answer, as
            `concepts.fired_concepts` returns it; None where nobody asked.
        timings: seconds of each stage.
        versions: of the software that took part.
        warnings: plain sentences for whoever reads the values.

    Raises:
        ExplanationError: the arrays don't fit the players and outputs, or hold numbers that are not finite.
    """

    clip: ClipInfo
    wave: Clip | None = None
    transcript: Transcript
    messages: tuple[dict[str, str], ...]
    response: str
    in_domain: bool | None
    model: dict[str, Any]
    aligner: dict[str, Any]
    game: dict[str, Any]
    estimand: str
    estimator: dict[str, Any]
    engine: str
    outputs: tuple[dict[str, str], ...]
    players: tuple[Player, ...]
    values: Float[np.ndarray, "P K"]
    standard_errors: Float[np.ndarray, "P K"]
    empty_value: Float[np.ndarray, "K"]
    full_value: Float[np.ndarray, "K"]
    efficiency_gap: Float[np.ndarray, "K"]
    evaluations: dict[str, int]
    groups: tuple[int, ...] = ()
    interactions: tuple[dict[str, Any], ...] = ()
    concepts: dict[str, Any] | None = None
    timings: dict[str, float]
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check and freeze what was given."""
        for name in ("messages", "outputs", "players", "groups", "interactions", "warnings"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        n_players, n_outputs = len(self.players), len(self.outputs)
        if n_players == 0 or n_outputs == 0:
            raise ExplanationError(
                f"an explanation came with {n_players} players and {n_outputs} outputs: expected at least one of each"
            )
        if self.groups and len(self.groups) != n_players:
            raise ExplanationError(f"an explanation came with {len(self.groups)} groups for {n_players} players")
        for entry in self.interactions:
            if len(entry["values"]) != n_outputs or not all(0 <= p < n_players for p in entry["players"]):
                raise ExplanationError("an explanation came with interactions of other players or outputs than its own")
        for entry in () if self.concepts is None else self.concepts["concepts"]:
            for name in ("values", "standard_errors"):
                _checked(f"{name} of latent {entry['latent']}", entry[name], (n_players,))
        shapes = {
            "values": (n_players, n_outputs),
            "standard_errors": (n_players, n_outputs),
            "empty_value": (n_outputs,),
            "full_value": (n_outputs,),
            "efficiency_gap": (n_outputs,),
        }
        for name, shape in shapes.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), shape))

    @property
    def question(self) -> str:
        """What the model was last asked in text; empty when it was not."""
        asked = (message["content"] for message in reversed(self.messages) if message["role"] == "user")
        return next(asked, "")

    @property
    def is_exact(self) -> bool:
        """Whether the values are computed from all coalitions, without any sampling."""
        return self.estimator["name"] == "exact"

    def to_json(self) -> str:
        """Return everything but the samples as JSON of the schema "sgpa-jax/explanation/1"."""
        return to_json(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json()` to `path`.

        Raises:
            UsageError: the file cannot be written.
        """
        atomic_write(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Explanation":
        """Read what `save` wrote; the samples stay where they are (see `with_wave`).

        Raises:
            ExplanationError: the file is missing, damaged, no explanation, or of a newer schema.
        """
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            raise ExplanationError(
                f"cannot open {str(path)!r} ({error}): expected a saved explanation; check the path"
            ) from error
        return cls.from_json(data, str(path))

    @classmethod
    def from_json(cls, data: bytes | str, name: str) -> "Explanation":
        """Read what `to_json` returned; `name` is what complaints call it.

        Raises:
            ExplanationError: it is damaged, no explanation, or of a newer schema.
        """
        return cls(**from_json(data, name))

    def with_wave(self, source: str | os.PathLike[str] | Clip | None = None) -> "Explanation":
        """Return this explanation with its recording, read from `source` or from where it was found at the time.

        Raises:
            AudioError: the recording cannot be read.
            ExplanationError: it is another recording, or there is no path to read it from.
        """
        source = self.clip.path if source is None else source
        if source is None:
            raise ExplanationError("the explanation names no file for its recording: give the recording")
        wave = read_clip(source, rate_hz=self.clip.rate_hz)
        if wave.sha256 != self.clip.sha256:
            raise ExplanationError(
                f"{wave.path or 'the recording'} is not the one that was explained (its digest differs): "
                "give that one, or explain again"
            )
        return replace(self, wave=wave)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained page to `path`: look, listen, and see how the values were computed.

        Raises:
            UsageError: the file cannot be written.
        """
        from sgpa_jax.report import write_page

        write_page(self, path)

    def plot(self, ax: Any = None) -> Any:
        """Draw the recording and its values with matplotlib; return the figure, or `ax` when that was given."""
        from sgpa_jax.report import draw_figure, draw_heat

        return draw_figure(self) if ax is None else draw_heat(self, ax)

    def to_shap(self) -> Any:
        """Return the values as a `shap.Explanation`, with a column for every output where there are several."""
        from sgpa_jax.interop import to_shap

        return to_shap(self)

    def to_shapiq(self, output: int = 0) -> Any:
        """Return the values of one output as a `shapiq.InteractionValues`."""
        from sgpa_jax.interop import to_shapiq

        return to_shapiq(self, output)

    def summary(self) -> str:
        """Return the answer, the values with bars, and how they were computed, as plain text."""
        from sgpa_jax.report import plain_table

        return plain_table(self)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from sgpa_jax.report import notebook_frame

        return notebook_frame(self)


def _checked(name: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(given, dtype=np.float64)
    if array.shape != shape:
        raise ExplanationError(
            f"an explanation came with {name} of shape {array.shape}: expected {shape}, from its players and outputs"
        )
    if not np.isfinite(array).all():
        raise ExplanationError(
            f"an explanation came with {name} that are not finite: expected finite numbers; "
            "check what the game returns for every coalition"
        )
    array.setflags(write=False)
    return array
