"""All that a data set's run is: its manifest, its folder, its models, and what is asked of every item."""

from dataclasses import dataclass, field
from pathlib import Path

from sgpa_jax.api import Asked
from sgpa_jax.batch.manifest import Manifest, open_manifest


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a run is, as plain values: every process that is given the same runs the same.

    Attributes:
        manifest: what `open_manifest` takes, with `split`, `limit` and `allow_outside`.
        out: the folder.
        model, aligner, revision, dtype, mesh: as `explain` takes them.
        prompt: the question of rows that have none; empty asks what the model's world usually asks.
        transcript: `auto` or `auto:model`, for rows that do not tell what is said.
        given_responses: explain the manifest's answers, where it has some, and not the model's own.
        channel: of the recordings.
        asked: what is asked of every item.
    """

    manifest: str
    out: Path
    model: str = "pocket"
    aligner: str = "pocket"
    revision: str | None = None
    dtype: str | None = None
    mesh: str | None = None
    prompt: str = ""
    transcript: str | None = None
    given_responses: bool = False
    channel: str = "mix"
    split: str | None = None
    limit: int | None = None
    allow_outside: bool = False
    asked: Asked = field(default_factory=Asked)

    def open(self) -> Manifest:
        """Open the manifest.

        Raises:
            UsageError: as `open_manifest`.
        """
        return open_manifest(self.manifest, split=self.split, limit=self.limit, allow_outside=self.allow_outside)
