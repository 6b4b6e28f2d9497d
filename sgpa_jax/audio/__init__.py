"""Recordings: files and arrays become mono `Clip`s at the rate that a model wants."""

from sgpa_jax.audio.buckets import SAMPLES_STEP_S, TOKEN_STEP, round_up, round_up_in_octaves
from sgpa_jax.audio.clip import Clip, wav_bytes, write_wav
from sgpa_jax.audio.read import read_clip
from sgpa_jax.audio.rows import Place, RowFile, read_rows

__all__ = [
    "SAMPLES_STEP_S",
    "TOKEN_STEP",
    "Clip",
    "Place",
    "RowFile",
    "read_clip",
    "read_rows",
    "round_up",
    "round_up_in_octaves",
    "wav_bytes",
    "write_wav",
]
