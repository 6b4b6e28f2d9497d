"""A recording as an aligner hears it, once, and its words as each set of rules places them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgpa_jax.align import AcousticModel, Alignment, Emissions, align
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import AlignmentError
from sgpa_jax.study.corpus import Item


class HeardOnce:
    """An acoustic model that hears its latest clip once, whatever is then asked of it."""

    def __init__(self, model: AcousticModel) -> None:
        self.name, self.digest = model.name, model.digest
        self.rate_hz, self.lexicon, self.transcribes = model.rate_hz, model.lexicon, model.transcribes
        self._model = model
        self._latest: tuple[str, dict[str, Emissions]] = ("", {})

    def emissions(self, clips: Sequence[Clip]) -> list[dict[str, Emissions]]:
        """Return what the model would."""
        return [self._emissions(clip) for clip in clips]

    def _emissions(self, clip: Clip) -> dict[str, Emissions]:
        if self._latest[0] != clip.sha256:
            self._latest = (clip.sha256, self._model.emissions([clip])[0])
        return self._latest[1]


@dataclass(frozen=True, eq=False)
class Heard:
    """An item with its samples, and its alignments, each computed when it is first asked for.

    Attributes:
        item: what is known about it.
        clip: its samples.
        aligner: hears the words.
    """

    item: Item
    clip: Clip
    aligner: HeardOnce

    @classmethod
    def of(cls, item: Item, aligner: HeardOnce) -> "Heard":
        """Read an item's recording.

        Raises:
            AudioError: it cannot be read.
        """
        return cls(item, read_clip(item.path), aligner)

    @functools.cached_property
    def sgpa(self) -> Alignment:
        """The words by our rules."""
        return align(self.clip, self.item.transcript, model=self.aligner)

    @functools.cached_property
    def authors(self) -> Alignment:
        """The words by the rules of the authors' package, over letters."""
        return align(self.clip, self.item.transcript, model=self.aligner, rules="authors")

    @functools.cached_property
    def ctc(self) -> Alignment:
        """The words where the path over letters has them, without any refinement.

        Raises:
            AlignmentError: a word has no letter of its own.
        """
        found = align(self.clip, self.item.transcript, model=self.aligner, emission="character")
        words = []
        for word in found.words:
            if word.ctc_start_s is None or word.ctc_end_s is None:
                raise AlignmentError(f"{word.text!r} has no letters, and so no edges before refinement")
            words.append(replace(word, start_s=word.ctc_start_s, end_s=word.ctc_end_s, boundary_refined=False))
        return replace(found, words=tuple(words), rules="none")
