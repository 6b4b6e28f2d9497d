"""Looking at and listening to explanations: a table for terminals, a picture, and a self-contained page."""

from sgpa_jax.report.concept_page import FiringWord, concept_index, concept_page, firing_words, write_concept_pages
from sgpa_jax.report.document import base64_of, document
from sgpa_jax.report.facts import notices, number, readable, unit
from sgpa_jax.report.page import notebook_frame, page, write_page
from sgpa_jax.report.palette import DARK, LIGHT
from sgpa_jax.report.picture import draw_figure, draw_heat, save_picture
from sgpa_jax.report.table import plain_table, table

__all__ = [
    "DARK",
    "LIGHT",
    "FiringWord",
    "base64_of",
    "concept_index",
    "concept_page",
    "document",
    "draw_figure",
    "draw_heat",
    "firing_words",
    "notebook_frame",
    "notices",
    "number",
    "page",
    "plain_table",
    "readable",
    "save_picture",
    "table",
    "unit",
    "write_concept_pages",
    "write_page",
]
