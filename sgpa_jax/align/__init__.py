"""Alignment: a recording and its transcript become timed words; alignments can be given and taken out as well."""

from sgpa_jax.align.aligner import EMISSIONS, RULES, align, align_batch
from sgpa_jax.align.alignment import AcousticModel, Alignment, Emissions, Word
from sgpa_jax.align.formats import FORMATS, check_format, format_alignment, write_alignment
from sgpa_jax.align.given import read_alignment, read_tiers
from sgpa_jax.align.greedy import greedy_transcript, transcribe
from sgpa_jax.align.spectral import loudness_and_change
from sgpa_jax.align.transcript import UNSPELLABLE

__all__ = [
    "EMISSIONS",
    "FORMATS",
    "RULES",
    "UNSPELLABLE",
    "AcousticModel",
    "Alignment",
    "Emissions",
    "Word",
    "align",
    "align_batch",
    "check_format",
    "format_alignment",
    "greedy_transcript",
    "loudness_and_change",
    "read_alignment",
    "read_tiers",
    "transcribe",
    "write_alignment",
]
