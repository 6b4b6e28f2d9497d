"""Our network beside the reference implementation, on one recording: which stage is the first to give something else.

Every stage is fed with what the reference fed its own, so that a fault shows where it is and rounding does not add up;
the logits and the answer are those of the whole, run as always. The reference runs first and is gone before our weights
are loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import sgpa_checkpoints
from flax import nnx

from sgpa_jax.audio import Clip
from sgpa_jax.errors import AudioError, CheckpointError, unknown_name
from sgpa_jax.models import orbax_cache
from sgpa_jax.models.answering import World
from sgpa_jax.models.chat import chat_format
from sgpa_jax.models.comparison import Stage, compare, compare_choices, compare_ids
from sgpa_jax.models.emissions import Emissions
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import DTYPES, Target, fill, target
from sgpa_jax.models.hub import SHIPPED_MODELS, resolve
from sgpa_jax.models.load import load_model
from sgpa_jax.models.mel import WhisperMelConfig
from sgpa_jax.models.model import Model
from sgpa_jax.models.reference import Request, libraries, run_audio_lm, run_wav2vec2
from sgpa_jax.models.reference_lfm2 import run_lfm2_audio
from sgpa_jax.models.stages import Step, audio_codes_logits, audio_lm_stages, wav2vec2_stages
from sgpa_jax.models.survey import Architecture, architecture_of
from sgpa_jax.models.wav2vec2_aligner import Wav2Vec2Aligner

_ANSWER_TOKENS = 64


class Tolerance(NamedTuple):
    """How far off may be the features, a single stage behind them, and the whole."""

    features: float
    stage: float
    whole: float


TOLERANCES = {"float32": Tolerance(1e-4, 2e-5, 1e-3), "bfloat16": Tolerance(1e-2, 3e-2, 1e-1)}
"""What is allowed in a dtype. Where a bin's power all but cancels, one float32 transform is off from another; GELU by
its approximation, which is no rounding, is off by more than a stage may be."""


@dataclass(frozen=True)
class Verification:
    """What came of a comparison.

    Attributes:
        name: the model's name, or the hub id with its commit.
        architecture: its `model_type`, or what stands for one.
        dtype: of weights and computation, on both sides.
        reference: what ours was compared with.
        stages: in the order of computation.
        request: what the model was asked about the clip, None if it is not asked anything.
        heard: what our model answered; None where `emissions` tell it.
        emissions: what our acoustic model heard.
        notes: what was not compared, in sentences.
    """

    name: str
    architecture: str
    dtype: str
    reference: str
    stages: tuple[Stage, ...]
    request: Request | None = None
    heard: str | None = None
    emissions: Emissions | None = None
    notes: tuple[str, ...] = ()

    @property
    def first_divergence(self) -> Stage | None:
        """The first stage that is not within its tolerance."""
        return next((stage for stage in self.stages if not stage.within), None)


def verify_model(
    name_or_folder: str | Path, clip: Clip, *, revision: str | None = None, dtype: str = "float32"
) -> Verification:
    """Compare a checkpoint in our network with the same in the reference's, stage by stage, on one recording.

    Args:
        name_or_folder: a shipped model, a folder or a hub id of an audio language model or a wav2vec2.
        clip: speech, which the model is asked to transcribe (one of a closed world: what it is usually asked).
        revision: the hub's branch, tag or commit.
        dtype: `float32` or `bfloat16`, on both sides; the reference runs on the CPU.

    Raises:
        AudioError: the clip is too long or too short for the model.
        CheckpointError: the folder is incomplete, damaged or of another architecture, or the reference refuses it.
        UsageError: an unknown name or dtype, or torch is not installed.
    """
    libraries()
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    name, folder = resolve(name_or_folder, "model", SHIPPED_MODELS, revision=revision)
    if orbax_cache.is_converted(folder):
        raise CheckpointError(f"{folder} is in our own layout, which no reference reads; give what it was made from")
    # A GPU rounds float32 products to fewer bits unless it is told not to.
    with jax.default_matmul_precision("highest"):
        try:
            config = sgpa_checkpoints.read_json(folder / "config.json")
            preprocessor = sgpa_checkpoints.read_optional_json(folder / "preprocessor_config.json")
            network = architecture_of(config, preprocessor)
            empty = _empty(name, folder, config, network, dtype)
            if network.name == "wav2vec2":
                return _verify_wav2vec2(name, folder, clip, network, dtype)
            world = sgpa_checkpoints.read_optional_json(folder / "world.json")
            bare = Model(
                name,
                "",
                dtype,
                family_of(config).read_config(config, preprocessor),
                chat_format(network.name, folder),
                None if world is None else World(**world),
                empty.graphdef,
                empty.state,
            )
            return _verify_audio_lm(bare, folder, clip, network.name)
        except sgpa_checkpoints.FormatError as error:
            raise CheckpointError(str(error)) from error


def _empty(name: str, folder: Path, config: Mapping[str, Any], network: Architecture, dtype: str) -> Target:
    """Return the network without values; find out by headers, before anything big is read, that they would fill it."""
    empty = target(network.build, dtype=dtype)
    headers = {
        name: header for shard in sgpa_checkpoints.read_headers(folder).values() for name, header in shard.items()
    }
    shapes = {path: slot.shape for path, slot in empty.slots.items()}
    problems = sgpa_checkpoints.check(headers, network.rules, shapes, normalise=network.normalise, config=config)
    if problems:
        raise CheckpointError(f"{name} does not fit its config.json ({problems[0]}); `sgpa doctor --model` tells all")
    return empty


def _verify_audio_lm(bare: Model, folder: Path, clip: Clip, family: str) -> Verification:
    """Compare an audio language model; `bare` is ours without weights, which lays out a prompt all the same."""
    name, dtype, chat = bare.name, bare.dtype, bare.chat
    assert chat is not None
    request = Request(bare.world.prompt) if bare.world else Request(chat.transcription[1], chat.transcription[0])
    front_end = bare.config.front_end
    if isinstance(front_end, WhisperMelConfig) and clip.duration_s > front_end.chunk_s:
        raise AudioError(
            f"the recording lasts {clip.duration_s:.1f} s, but a checkpoint is verified on one window of its encoder, "
            f"{front_end.chunk_s:.0f} s at most; give a shorter one"
        )
    inputs = bare.prepare(clip, request.text, system=request.system)
    options = {"dtype": dtype, "end_ids": chat.end_ids, "n_new": _ANSWER_TOKENS}
    if family == "lfm2_audio":
        reference = run_lfm2_audio(folder, inputs, request, **options)
    else:
        reference = run_audio_lm(family, folder, inputs, request, **options)
    model = load_model(folder, dtype=dtype)
    tolerance = TOLERANCES[dtype]
    stages = [] if reference.ids is None else [compare_ids(inputs.ids_t.tolist(), reference.ids)]
    stages += _compare(audio_lm_stages(model, inputs), reference.stages, tolerance)
    logits = np.asarray(model.logits(inputs))
    stages.append(compare("logits", logits, reference.stages["logits"], tolerance.whole))
    if reference.codes is not None:
        codes_logits = audio_codes_logits(model, reference.stages["decoder.norm"][:, -1], reference.codes)
        stages.append(
            compare_choices(
                "audio codes", codes_logits, codes_logits.argmax(-1).tolist(), reference.codes, tolerance.whole
            )
        )
    answer = model.generate(inputs, max_new_tokens=_ANSWER_TOKENS)
    assert reference.answer_logits_nv is not None
    theirs = tuple(chat.end_ids[0] if token in chat.end_ids else token for token in reference.answer)
    ours = (*answer.ids, chat.end_ids[0])[: len(theirs)]
    stages.append(compare_choices("answer", reference.answer_logits_nv, ours, theirs, tolerance.whole))
    return Verification(
        name,
        family,
        dtype,
        reference.label,
        tuple(stages),
        request,
        answer.text,
        notes=reference.notes,
    )


def _verify_wav2vec2(name: str, folder: Path, clip: Clip, network: Architecture, dtype: str) -> Verification:
    aligner = Wav2Vec2Aligner.from_folder(folder, name=name, dtype=dtype)
    clip = clip.at_rate(aligner.rate_hz)
    emissions = aligner.emissions([clip])[0]["character"]
    reference = run_wav2vec2(folder, clip.wave_s, rate_hz=aligner.rate_hz, dtype=dtype)
    filled = nnx.merge(*fill(network.build, folder, network.rules, normalise=network.normalise, dtype=dtype))
    steps = wav2vec2_stages(filled, clip, normalise=aligner.normalise)
    tolerance = TOLERANCES[dtype]
    stages = _compare(steps, reference.stages, tolerance)
    theirs_tv, ours_tv = reference.stages["logits"], emissions.log_probs_tv[None]
    stages.append(compare("logits", ours_tv, theirs_tv, tolerance.whole))
    stages.append(
        compare_choices("answer", theirs_tv[0], ours_tv[0].argmax(-1).tolist(), reference.answer, tolerance.whole)
    )
    return Verification(name, "wav2vec2", dtype, reference.label, tuple(stages), emissions=emissions)


def _compare(steps: Iterable[Step], theirs: Mapping[str, np.ndarray], tolerance: Tolerance) -> list[Stage]:
    """Run our stages, each on what the reference's was given and on what ours gave, and compare both."""
    stages, ours, given = [], None, None
    for step in steps:
        reference = theirs[step.name]
        alone, ours = np.asarray(step.run(given), np.float32), np.asarray(step.run(ours), np.float32)
        given = reference
        allowed = tolerance.features if step.name == "features" else tolerance.stage
        stages.append(compare(step.name, alone, reference, allowed, carried=ours, n=step.n))
    return stages
