"""The study: a corpus of recordings and some models in; tables, figures and a page out, every number with its n."""

from sgpa_jax.study.corpus import Item, read_corpus
from sgpa_jax.study.records import Record, RecordFolder
from sgpa_jax.study.settings import Settings
from sgpa_jax.study.study import shipped_corpus, study_corpus

__all__ = ["Item", "Record", "RecordFolder", "Settings", "read_corpus", "shipped_corpus", "study_corpus"]
