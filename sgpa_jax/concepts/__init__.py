"""Concepts: the latents of a sparse autoencoder with their clips, their names, and how well these hold."""

from sgpa_jax.concepts.bank import Concept, ConceptBank, Representative, describe_sae, sae_digest
from sgpa_jax.concepts.baselines import principal_directions, raw_dimensions, untrained_sae
from sgpa_jax.concepts.captions import CaptionEmbedder
from sgpa_jax.concepts.clap import ClapEmbedder
from sgpa_jax.concepts.clips import SCORERS, ClipScores, clip_activations, clip_scores, half_scores
from sgpa_jax.concepts.controls import Activity, Method, activity, best_contrast, concept_shares, methods
from sgpa_jax.concepts.detection import CaptionJudge, Judge, area_under_curve, caption_judge, detect, embedding_judge
from sgpa_jax.concepts.dose import Dose, DoseResponse, Task, class_of, dose_response
from sgpa_jax.concepts.edits import MODES, OPERATIONS, Edit, LatentEdit, Push
from sgpa_jax.concepts.embedders import AudioEmbedder, embed_files
from sgpa_jax.concepts.evaluate import (
    Evaluation,
    average_precisions,
    evaluate_scores,
    match_names,
    protocol_a,
    protocol_b,
    protocol_c,
    with_intervals,
)
from sgpa_jax.concepts.firing import autoencoder_of, check_firing, fired_concepts, names_in
from sgpa_jax.concepts.fsd50k import FSD50K, implied_classes, read_fsd50k, truth
from sgpa_jax.concepts.games import ConceptValues, ablation_game, concept_values, latent_readout, strongest_latents
from sgpa_jax.concepts.human import Ratings, krippendorff_alpha, read_ratings, write_sheet
from sgpa_jax.concepts.measures import Predictions, average_precision, best_threshold, drawn_measures, measured
from sgpa_jax.concepts.monosemanticity import Monosemanticity, monosemanticity, pach_score, set_score
from sgpa_jax.concepts.naming import (
    Captioner,
    ConceptName,
    ConsensusNamer,
    Namer,
    ZeroShotCaptioner,
    caption_clips,
    name_concepts,
)
from sgpa_jax.concepts.probe import PooledClips, linear_probe, pooled_clips
from sgpa_jax.concepts.rank import rank_concepts
from sgpa_jax.concepts.retrieve import (
    bottom_clips,
    label_precision,
    matched_bottom_clips,
    split_half_overlap,
    top_clips,
)
from sgpa_jax.concepts.similarity import BertScore, name_consistency, name_similarity
from sgpa_jax.concepts.steer import Steered, steer, with_edit
from sgpa_jax.concepts.timelines import timelines
from sgpa_jax.concepts.words import matching_label, mentions
from sgpa_jax.concepts.writers import LanguageModel, ModelCaptioner, TransformersCaptioner

__all__ = [
    "FSD50K",
    "MODES",
    "OPERATIONS",
    "SCORERS",
    "Activity",
    "AudioEmbedder",
    "BertScore",
    "CaptionEmbedder",
    "CaptionJudge",
    "Captioner",
    "ClapEmbedder",
    "ClipScores",
    "Concept",
    "ConceptBank",
    "ConceptName",
    "ConceptValues",
    "ConsensusNamer",
    "Dose",
    "DoseResponse",
    "Edit",
    "Evaluation",
    "Judge",
    "LanguageModel",
    "LatentEdit",
    "Method",
    "ModelCaptioner",
    "Monosemanticity",
    "Namer",
    "PooledClips",
    "Predictions",
    "Push",
    "Ratings",
    "Representative",
    "Steered",
    "Task",
    "TransformersCaptioner",
    "ZeroShotCaptioner",
    "ablation_game",
    "activity",
    "area_under_curve",
    "autoencoder_of",
    "average_precision",
    "average_precisions",
    "best_contrast",
    "best_threshold",
    "bottom_clips",
    "caption_clips",
    "caption_judge",
    "check_firing",
    "class_of",
    "clip_activations",
    "clip_scores",
    "concept_shares",
    "concept_values",
    "describe_sae",
    "detect",
    "dose_response",
    "drawn_measures",
    "embed_files",
    "embedding_judge",
    "evaluate_scores",
    "fired_concepts",
    "half_scores",
    "implied_classes",
    "krippendorff_alpha",
    "label_precision",
    "latent_readout",
    "linear_probe",
    "match_names",
    "matched_bottom_clips",
    "matching_label",
    "measured",
    "mentions",
    "methods",
    "monosemanticity",
    "name_concepts",
    "name_consistency",
    "name_similarity",
    "names_in",
    "pach_score",
    "pooled_clips",
    "principal_directions",
    "protocol_a",
    "protocol_b",
    "protocol_c",
    "rank_concepts",
    "raw_dimensions",
    "read_fsd50k",
    "read_ratings",
    "sae_digest",
    "set_score",
    "split_half_overlap",
    "steer",
    "strongest_latents",
    "timelines",
    "top_clips",
    "truth",
    "untrained_sae",
    "with_edit",
    "with_intervals",
    "write_sheet",
]
