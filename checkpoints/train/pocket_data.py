"""Batches for the *pocket* models: log-mels, packed questions, per-frame word labels, absence behind the projector.

Reads what `commands.py` rendered. Every batch is drawn from (seed, step) alone, so a resumed run sees the batches
that an uninterrupted one would have seen. Axes: B examples, F mel frames, G labelled frames, A audio positions,
Q questions, N tokens a question.
"""

import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgpa_jax.models.audio_lm import Layout, layout_of_ids
from sgpa_jax.models.mel import WhisperMelConfig, hz_to_mel, mel_to_hz
from sgpa_jax.models.nemo_mel import NemoMelConfig, log_power
from train import world
from train.recipe import POSITION_S, Recipe

BUCKETS_S = (2.56, 3.2, 3.84, 4.48, 5.12)
QUESTION_TOKENS = 14
QUESTIONS = 4
TURN_END_ID = world.TOKEN_IDS["<|im_end|>"]
ASSISTANT = world.token_ids("<|im_end|>\n<|im_start|>assistant\n")


class Batch(NamedTuple):
    """One training batch; audio positions in `gone_ba` become the baseline that `baseline_b` names (0 zero, 1 mean).

    `frame_labels_bgj`, up to J words for every frame, is -1 where there are fewer and behind a clip's end. Arrays are
    numpy's on the host and traced ones inside of the jitted step.
    """

    mel_bfm: Any
    n_frames_b: Any
    frame_labels_bgj: Any
    prefix: Layout
    questions_bqn: Any
    answer_mask_bqn: Any
    gone_ba: Any
    baseline_b: Any


@dataclass(frozen=True, eq=False)
class Example:
    """One rendered utterance: its log-mel in half precision, its words and sounds, and its questions."""

    mel_fm: np.ndarray
    word_ids: np.ndarray
    word_spans_s: np.ndarray
    word_present: np.ndarray
    sound: int
    sound_span_s: tuple[float, float]
    sound_present: bool
    in_world: bool
    absence: int
    record: dict[str, Any]


def load_examples(paths: list[Path], recipe: Recipe) -> list[Example]:
    """Read shards (`.npz` beside `.jsonl`) and compute log-mels; examples past the largest bucket are left out."""
    longest = bucket_frames(recipe)[-1]
    examples: list[Example] = []
    for path in paths:
        shard = np.load(path)
        waves, offsets, word_offsets = shard["waves"], shard["offsets"], shard["word_offsets"]
        records = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        mels = log_mels([waves[a:b].astype(np.float32) / 32768 for a, b in itertools.pairwise(offsets)], recipe)
        columns = {name: shard[name] for name in shard.files if name not in ("waves", "offsets")}
        for e, record in enumerate(records):
            if len(mels[e]) > longest:
                continue
            words = slice(word_offsets[e], word_offsets[e + 1])
            examples.append(
                Example(
                    mels[e],
                    columns["word_ids"][words],
                    np.stack([columns["word_start_s"][words], columns["word_end_s"][words]], axis=-1),
                    columns["word_present"][words],
                    int(columns["sound"][e]),
                    (float(columns["sound_start_s"][e]), float(columns["sound_end_s"][e])),
                    bool(columns["sound_present"][e]),
                    bool(columns["in_world"][e]),
                    int(columns["absence"][e]),
                    record,
                )
            )
    return examples


class Batches:
    """Draws batches of similar length; of `embedding_absence` of the examples, words are absent at the projector."""

    def __init__(self, examples: list[Example], recipe: Recipe, *, size: int, seed: int, embedding_absence: float):
        self.examples, self.recipe, self.size, self.seed = examples, recipe, size, seed
        self.embedding_absence = embedding_absence
        lengths = np.array([len(example.mel_fm) for example in examples])
        self.buckets = np.searchsorted(bucket_frames(recipe), lengths)

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        bucket = self.buckets[rng.integers(len(self.examples))]
        members = np.flatnonzero(self.buckets == bucket)
        chosen = rng.choice(members, size=self.size, replace=len(members) < self.size)
        n_frames = bucket_frames(self.recipe)[bucket]
        batch, _ = make_batch(
            [self.examples[i] for i in chosen], n_frames, rng, self.recipe, embedding_absence=self.embedding_absence
        )
        return batch._replace(mel_bfm=other_voices(batch.mel_bfm, rng, self.recipe))


def bucket_frames(recipe: Recipe) -> tuple[int, ...]:
    """Mel frames of the buckets."""
    front_end = recipe.config.front_end
    return tuple(round(length_s * front_end.rate_hz / front_end.hop_samples) for length_s in BUCKETS_S)


def make_batch(
    examples: list[Example], n_frames: int, rng: np.random.Generator, recipe: Recipe, *, embedding_absence: float
) -> tuple[Batch, list[list[dict[str, Any]]]]:
    """Pad examples to `n_frames`, draw their questions, lay out tokens and labels; also return the questions drawn."""
    config, bucket_s = recipe.config, n_frames * recipe.config.front_end.hop_samples / recipe.config.front_end.rate_hz
    size, n_audio = len(examples), round(bucket_s / POSITION_S)
    mel = np.zeros((size, n_frames, config.front_end.n_mels), np.float32)
    labels = np.full((size, round(bucket_s / recipe.frame_s)), -1, np.int32)
    questions = np.zeros((size, QUESTIONS, QUESTION_TOKENS), np.int32)
    answers = np.zeros((size, QUESTIONS, QUESTION_TOKENS), bool)
    gone = np.zeros((size, n_audio), bool)
    drawn: list[list[dict[str, Any]]] = []
    for b, example in enumerate(examples):
        length = len(example.mel_fm)
        mel[b, :length] = example.mel_fm
        # Behind the end Whisper's front end would see silence: the floor that it clamps to. NeMo's does not look.
        mel[b, length:] = max(float(example.mel_fm.max()) - 2.0, -1.5)
        n_labels = int(length * config.front_end.hop_samples / config.front_end.rate_hz / recipe.frame_s)
        labels[b, :n_labels] = _frame_labels(example, recipe.frame_centres_s(n_labels))
        present = set(np.flatnonzero(example.word_present).tolist())
        sound_present = example.sound_present
        if example.in_world and example.absence == 0 and rng.random() < embedding_absence:
            present, sound_present = _take_away(example, rng)
            gone[b] = _gone(example, present, sound_present, recipe.position_centres_s(n_audio))
        drawn.append(_draw_questions(example.record["questions"], rng))
        for q, question in enumerate(drawn[b]):
            answer = question["answer"].split()
            if gone[b].any():
                asked = world.Question(
                    question["text"],
                    tuple(question["full_answer"].split()),
                    tuple(map(tuple, question["evidence"])),
                    question["category"],
                )
                answer = list(world.answer_given(asked, present, sound_present))
            head = world.token_ids(question["text"]) + ASSISTANT
            tokens = head + [world.TOKEN_IDS[word] for word in answer] + [TURN_END_ID]
            questions[b, q, : len(tokens)] = tokens
            answers[b, q, len(head) : len(tokens)] = True
    # NeMo counts one frame more than a clip has whole hops.
    extra = isinstance(config.front_end, NemoMelConfig)
    lengths = np.array([len(example.mel_fm) + extra for example in examples], np.int32)
    prefix = audio_prefix(recipe, size, n_audio)
    baseline = rng.integers(0, 2, size).astype(np.float32)
    return Batch(mel, lengths, labels[:, :, None], prefix, questions, answers, gone, baseline), drawn


def audio_prefix(recipe: Recipe, size: int, n_audio: int) -> Layout:
    """What stands before a question, in `size` rows alike: the head, `n_audio` positions of audio, the tail."""
    head, tail = recipe.ids(recipe.head), recipe.ids(recipe.tail)
    ids = np.array([*head, *[recipe.config.audio_token_id or 0] * n_audio, *tail], np.int32)
    is_audio = (np.arange(len(ids)) >= len(head)) & (np.arange(len(ids)) < len(head) + n_audio)
    return jax.tree.map(lambda row: np.repeat(row, size, axis=0), layout_of_ids(ids, is_audio))


def other_voices(mel_bfm: np.ndarray, rng: np.random.Generator, recipe: Recipe) -> np.ndarray:
    """Vary speakers and channels: a stretched frequency axis (vocal tract length), a smooth tilt, a masked band, noise.

    Synthesisers have few voices; without this a model learns those few.
    """
    size, _, n_mels = mel_bfm.shape
    front_end = recipe.config.front_end
    all_warps, one = _warps(n_mels, front_end.rate_hz), 9.2 / recipe.mel_unit
    warps = all_warps[rng.integers(len(all_warps), size=size)]
    mel_bfm = np.einsum("bfm,bmn->bfn", mel_bfm, warps)
    waves = np.cos(np.pi * np.arange(1, 5)[:, None] * (np.arange(n_mels) + 0.5) / n_mels)
    tilt = rng.normal(0.0, 0.06 * one, (size, 4)) @ waves + rng.normal(0.0, 0.1 * one, (size, 1))
    mel_bfm = mel_bfm + tilt[:, None, :] + rng.normal(0.0, 0.02 * one, mel_bfm.shape)
    for b in np.flatnonzero(rng.random(size) < 0.5):
        first, width = rng.integers(n_mels - 10), rng.integers(2, 10)
        mel_bfm[b, :, first : first + width] = mel_bfm[b].mean()
    return mel_bfm.astype(np.float32)


@functools.cache
def _warps(n_mels: int, rate_hz: int) -> np.ndarray:
    """Matrices `[N, M, M]` that stretch the frequencies under a mel axis by 0.84 to 1.19, interpolating linearly."""
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(rate_hz / 2), n_mels + 2))
    centre_hz = edges[1:-1]
    warps = []
    for factor in np.geomspace(0.84, 1.19, 15):
        source = np.interp(centre_hz * factor, centre_hz, np.arange(n_mels))
        low = np.minimum(source.astype(int), n_mels - 2)
        matrix = np.zeros((n_mels, n_mels), np.float32)
        matrix[low, np.arange(n_mels)] += 1 - (source - low)
        matrix[low + 1, np.arange(n_mels)] += source - low
        warps.append(matrix)
    return np.stack(warps)


def _draw_questions(questions: list[dict[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Draw a batch row's questions; those whose answer is always `unknown` teach little, so they are drawn last."""
    late = np.array([question["category"] == "unmentioned" for question in questions])
    order = np.argsort(rng.random(len(questions)) + 0.7 * late)
    return [questions[order[q % len(order)]] for q in range(QUESTIONS)]


def log_mels(waves: list[np.ndarray], recipe: Recipe) -> list[np.ndarray]:
    """Log-mels of waves of any lengths, computed in a few shapes; NeMo's before its normalisation."""
    front_end = recipe.config.front_end
    step, size = 10240, 32
    shapes: dict[int, list[int]] = {}
    for i, wave in enumerate(waves):
        shapes.setdefault(-(-(len(wave) + front_end.n_fft) // step) * step, []).append(i)
    mels: list[np.ndarray] = [np.empty(0)] * len(waves)
    for length, members in shapes.items():
        for start in range(0, len(members), size):
            some = members[start : start + size]
            block, lengths = np.zeros((size, length), np.float32), np.zeros(size, np.int32)
            for row, i in enumerate(some):
                block[row, : len(waves[i])], lengths[row] = waves[i], len(waves[i])
            values = np.asarray(_log_mel(block, lengths, front_end), np.float16)
            for row, i in enumerate(some):
                rest = len(waves[i]) % front_end.hop_samples and isinstance(front_end, WhisperMelConfig)
                mels[i] = values[row, : len(waves[i]) // front_end.hop_samples + bool(rest)]
    return mels


@functools.partial(jax.jit, static_argnums=2)
def _log_mel(wave_bs: np.ndarray, n_samples_b: np.ndarray, front_end: WhisperMelConfig | NemoMelConfig) -> jax.Array:
    if isinstance(front_end, NemoMelConfig):
        return log_power(jnp.asarray(wave_bs), jnp.asarray(n_samples_b), front_end)
    return front_end.features(jnp.asarray(wave_bs), jnp.asarray(n_samples_b))


def _frame_labels(example: Example, centre_s: np.ndarray) -> np.ndarray:
    """Vocabulary id of the word or sound heard at the centre of every frame, 0 where there is none."""
    labels = np.zeros(len(centre_s), np.int32)
    heard = [
        (word_id, span)
        for word_id, span, present in zip(example.word_ids, example.word_spans_s, example.word_present, strict=True)
        if present
    ]
    if example.sound_present and example.sound >= 0:
        heard.append((world.TOKEN_IDS[world.SOUNDS[example.sound]], example.sound_span_s))
    for label, (start_s, end_s) in heard:
        labels[(centre_s >= start_s) & (centre_s < end_s)] = label
    return labels


def _take_away(example: Example, rng: np.random.Generator) -> tuple[set[int], bool]:
    """Draw which words stay, and whether the sound does."""
    keep = rng.random(len(example.word_ids)) >= rng.uniform(0.1, 0.9)
    return set(np.flatnonzero(keep).tolist()), example.sound >= 0 and bool(rng.random() < 0.7)


def _gone(example: Example, present: set[int], sound_present: bool, centre_s: np.ndarray) -> np.ndarray:
    gone = np.zeros(len(centre_s), bool)
    for i, (start_s, end_s) in enumerate(example.word_spans_s):
        if i not in present:
            gone |= (centre_s >= start_s) & (centre_s < end_s)
    if example.sound >= 0 and not sound_present:
        gone |= (centre_s >= example.sound_span_s[0]) & (centre_s < example.sound_span_s[1])
    return gone
