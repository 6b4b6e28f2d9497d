"""What is known of a model's concepts, in one folder: which latents they are, their clips, their scores, their names.

The folder holds `bank.json`, with all texts and facts, and one safetensors file with all numbers, which is called after
its digest: `bank.json` names it, and is written last, so that an interrupted save leaves the old bank whole. Axes: `C`
concepts, `P` clips of a concept.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sgpa_jax.concepts.words import mentions
from sgpa_jax.errors import UsageError
from sgpa_jax.files import atomic_write
from sgpa_jax.sae import TrainedSAE

BANK = "bank.json"
SCHEMA = "sgpa-jax/concepts/1"


@dataclass(frozen=True)
class Representative:
    """A clip of a concept: its id, its file if there is one, how long it is and its score."""

    id: str
    path: Path | None
    seconds: float
    score: float


@dataclass(frozen=True)
class Concept:
    """A latent, and what is known of it; what was not asked for, or cannot be told, is None.

    Attributes:
        latent: its number in the autoencoder.
        name: what it is about; None where nobody has named it, or the namer abstained.
        confidence: of the name, from 0 to 1.
        density: share of the corpus's tokens for which it fires.
        n_firing: clips in which it does.
        mean, coverage: averages over its top clips of μ and c.
        monosemanticity, held_out, pach: see `monosemanticity`.
        overlap: see `split_half_overlap`.
        detection: area under the curve of a judge who tells held-out firing clips by the name.
        top, bottom: the most and the least representative clips, extremes first.
        captions: of the top clips, as the namer was given them.
    """

    latent: int
    name: str | None = None
    confidence: float | None = None
    density: float | None = None
    n_firing: int | None = None
    mean: float | None = None
    coverage: float | None = None
    monosemanticity: float | None = None
    held_out: float | None = None
    pach: float | None = None
    overlap: float | None = None
    detection: float | None = None
    top: tuple[Representative, ...] = ()
    bottom: tuple[Representative, ...] = ()
    captions: tuple[str, ...] = ()


_NUMBERS = tuple(f.name for f in fields(Concept) if f.type in (float | None, int | None))
_SIDES = ("top", "bottom")


@dataclass(frozen=True, eq=False)
class ConceptBank:
    """Concepts of one autoencoder, the most monosemantic first.

    Attributes:
        model: name, digest and dtype of the model.
        sae: digest, layer, latents and training steps of the autoencoder.
        concepts: what is known of each.
        facts: how it was made (corpus, scorer, p, seed, who embedded, captioned, named, judged) and what came out
            overall; anything that JSON holds.
    """

    model: dict[str, Any]
    sae: dict[str, Any]
    concepts: tuple[Concept, ...] = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def latents(self) -> tuple[int, ...]:
        """Numbers of the concepts' latents."""
        return tuple(concept.latent for concept in self.concepts)

    @property
    def names(self) -> tuple[str | None, ...]:
        """Names of the concepts."""
        return tuple(concept.name for concept in self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)

    def of(self, latent: int) -> Concept:
        """The concept of a latent.

        Raises:
            UsageError: the bank has none.
        """
        found = next((concept for concept in self.concepts if concept.latent == latent), None)
        if found is None:
            raise UsageError(f"the bank holds {len(self)} concepts, but none of latent {latent}; give one of those")
        return found

    def named(self, name: str) -> tuple[Concept, ...]:
        """All concepts with these words in their names, in order: "male speech" is in "sad male speech"."""
        has_c = mentions([concept.name or "" for concept in self.concepts], [name])[:, 0]
        return tuple(concept for concept, has in zip(self.concepts, has_c, strict=True) if has)

    def check(self, trained: TrainedSAE) -> None:
        """Raise a UsageError unless the concepts are those of this autoencoder."""
        if self.sae["digest"] != sae_digest(trained):
            raise UsageError(
                "the concepts are those of another autoencoder than the one given; rank the clips of this one"
            )

    def with_columns(self, **columns: Iterable[Any]) -> "ConceptBank":
        """The same with some attributes of all concepts set, one value for each."""
        rows = zip(self.concepts, *columns.values(), strict=True)
        return replace(
            self,
            concepts=tuple(replace(row[0], **dict(zip(columns, map(_plain, row[1:]), strict=True))) for row in rows),
        )

    def with_facts(self, **facts: Any) -> "ConceptBank":
        """The same with some facts set."""
        return replace(self, facts=self.facts | facts)

    def save(self, folder: str | Path) -> None:
        """Write the bank; one that was there before stays whole until the new one is.

        Raises:
            UsageError: the folder cannot be written to.
        """
        from safetensors.numpy import save

        folder, concepts = Path(folder), self.concepts
        arrays: dict[str, np.ndarray] = {"latent": np.array([concept.latent for concept in concepts], np.int64)}
        for name in _NUMBERS:
            values = (getattr(concept, name) for concept in concepts)
            arrays[name] = np.array([np.nan if value is None else value for value in values], np.float64)
        for side in _SIDES:
            clips = [clip for concept in concepts for clip in getattr(concept, side)]
            arrays[f"{side}_score"] = np.array([clip.score for clip in clips], np.float64)
            arrays[f"{side}_seconds"] = np.array([clip.seconds for clip in clips], np.float64)
        data = save(arrays)
        digest = hashlib.sha256(data).hexdigest()
        told = {
            "schema": SCHEMA, "model": self.model, "sae": self.sae, "facts": finite(self.facts),
            "numbers": {"file": f"bank-{digest[:16]}.safetensors", "sha256": digest},
            "concepts": [
                {"latent": concept.latent, "name": concept.name, "captions": list(concept.captions)}
                | {side: [[clip.id, _from(folder, clip.path)] for clip in getattr(concept, side)] for side in _SIDES}
                for concept in concepts
            ],
        }  # fmt: skip
        atomic_write(folder / told["numbers"]["file"], data)
        atomic_write(folder / BANK, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        for old in folder.glob("bank-*.safetensors"):
            if old.name != told["numbers"]["file"]:
                old.unlink()

    @classmethod
    def load(cls, folder: str | Path) -> "ConceptBank":
        """Read a bank.

        Raises:
            UsageError: the folder holds none, a newer or a damaged one.
        """
        folder = Path(folder)
        try:
            told = json.loads((folder / BANK).read_text(encoding="utf-8"))
            schema = told["schema"]
        except FileNotFoundError:
            raise UsageError(f"{folder} holds no concepts; give a folder that `sgpa concepts rank` wrote") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{folder / BANK} is damaged; rank the clips again") from error
        if schema != SCHEMA:
            raise UsageError(f"{folder / BANK} is of schema {schema!r}, but this version reads {SCHEMA}; rank again")
        try:
            arrays = _arrays(folder, told["numbers"])
            concepts = tuple(_concepts(folder, told["concepts"], arrays))
            return cls(told["model"], told["sae"], concepts, told["facts"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError) as error:
            raise UsageError(f"the concepts in {folder} are damaged or incomplete; rank the clips again") from error


def sae_digest(trained: TrainedSAE) -> str:
    """A sha256 of an autoencoder's weights, as they take the residual stream."""
    digest, sae = hashlib.sha256(json.dumps(asdict(trained.sae.config), sort_keys=True).encode()), trained.folded
    for array in (sae.w_enc_md, sae.b_enc_m, sae.w_dec_md, sae.b_dec_d, sae.threshold_m):
        digest.update(np.asarray(array, "<f4").tobytes())
    return digest.hexdigest()


def describe_sae(trained: TrainedSAE) -> dict[str, Any]:
    """What a bank says of its autoencoder."""
    config = trained.sae.config
    return {
        "digest": sae_digest(trained), "layer": trained.layer, "kind": config.kind, "k": config.k,
        "n_latents": config.n_latents, "width": config.width, "step": trained.step,
    }  # fmt: skip


def finite(value: Any) -> Any:
    """The same for JSON, which holds no number that is none or infinite: None in its place."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _arrays(folder: Path, numbers: Mapping[str, str]) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    data = (folder / Path(numbers["file"]).name).read_bytes()
    if hashlib.sha256(data).hexdigest() != numbers["sha256"]:
        raise ValueError("the numbers are not those that were written")
    return load(data)


def _concepts(folder: Path, rows: list[dict[str, Any]], arrays: Mapping[str, np.ndarray]) -> Iterable[Concept]:
    scores = {side: iter(zip(arrays[f"{side}_seconds"], arrays[f"{side}_score"], strict=True)) for side in _SIDES}
    columns = [arrays[name].tolist() for name in _NUMBERS]
    for row, latent, *values in zip(rows, arrays["latent"].tolist(), *columns, strict=True):
        if row["latent"] != latent:
            raise ValueError("texts and numbers are of different concepts")
        known = {name: _plain(value) for name, value in zip(_NUMBERS, values, strict=True)}
        if known["n_firing"] is not None:
            known["n_firing"] = int(known["n_firing"])
        clips: dict[str, Any] = {
            side: tuple(
                Representative(name, None if path is None else folder / path, *map(float, next(scores[side])))
                for name, path in row[side]
            )
            for side in _SIDES
        }
        yield Concept(latent, row["name"], captions=tuple(row["captions"]), **known, **clips)


def _from(folder: Path, path: Path | None) -> str | None:
    """A path as it is from a folder, so that both may move together."""
    return None if path is None else os.path.relpath(path, folder)


def _plain(value: Any) -> Any:
    """A number as Python's own; None for one that is not a number."""
    if isinstance(value, (np.floating, float)):
        return None if np.isnan(value) else float(value)
    return int(value) if isinstance(value, np.integer) else value
