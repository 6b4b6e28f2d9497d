"""Render the world of sounds and voices to disk, and draw batches from it, for *pocket-sounds*.

    python -m train.sounds_data --out DIR --clips 12000 [--split train | test] [--seed 0]

writes `train-0000.npz`, `train-0001.npz`, … of a thousand clips each: log-mels in half precision (`mel`, `offsets`) and
what is true of each clip (`facts`, a JSON text for each). It goes on where it was stopped. Test clips have another seed
and only such parameters as training leaves out. From a third of the training clips events were taken. Every batch is
drawn from (seed, step) alone. Axes as in `pocket_data.py`.
"""

import argparse
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sgpa_checkpoints.sound_world import (
    FEEL,
    FIRST,
    GENDERS,
    LAST,
    LEAVES,
    MODES,
    WHAT,
    WHO,
    Event,
    SoundClip,
    among,
    questions,
    sound_clip,
    without,
)

from sgpa_jax.files import atomic_write
from train.pocket_data import QUESTION_TOKENS, QUESTIONS, Batch, audio_prefix, log_mels
from train.recipe import POSITION_S, Recipe

BUCKETS_S = (1.92, 2.88, 4.48)
LABELS = 4
ABSENT_SHARE = 0.35
_IN_SHARD = 1000
_TEST_SEED = 1_000_000


@dataclass(frozen=True, eq=False)
class Example:
    """A rendered clip: its log-mel, and the clip without its waveform."""

    mel_fm: np.ndarray
    clip: SoundClip


def render(seed: int, index: int, *, test: bool) -> SoundClip:
    """Make a clip; in training, now and then without some of its events."""
    if test:
        return sound_clip(seed + _TEST_SEED, index, held_out=True)
    clip, rng = sound_clip(seed, index), np.random.default_rng([seed, index, 2])
    # From most clips with one sound it is not taken: otherwise too many would hold nothing.
    if rng.random() >= (ABSENT_SHARE if len(clip.events) > 1 else 0.2):
        return clip
    gone = set(np.flatnonzero(rng.random(len(clip.events)) < 0.5).tolist()) or {int(rng.integers(len(clip.events)))}
    return without(clip, gone, mode=str(rng.choice(MODES)), seed=index)


def write_shard(path: Path, clips: list[SoundClip], recipe: Recipe) -> None:
    """Write clips as log-mels and facts."""
    mels = log_mels([clip.wave_s for clip in clips], recipe)
    facts = [{"id": clip.id, "events": [asdict(event) for event in clip.events], "voice": clip.voice} for clip in clips]
    offsets = np.concatenate([[0], np.cumsum([len(mel) for mel in mels])])
    buffer = io.BytesIO()
    np.savez(buffer, mel=np.concatenate(mels), offsets=offsets, facts=np.array([json.dumps(fact) for fact in facts]))
    atomic_write(path, buffer.getvalue())


def load_examples(paths: list[Path]) -> list[Example]:
    """Read shards."""
    examples = []
    for path in paths:
        shard = np.load(path)
        mel = shard["mel"]
        for (first, last), told in zip(itertools.pairwise(shard["offsets"]), shard["facts"].tolist(), strict=True):
            fact = json.loads(told)
            events = tuple(Event(**event) for event in fact["events"])
            bare = SoundClip(
                fact["id"], np.zeros(0, np.float32), 16000, (), (), "", fact["voice"] and tuple(fact["voice"])
            )
            examples.append(Example(mel[first:last], among(bare, events)))
    return examples


class Batches:
    """Draws training batches of similar length; of `embedding_absence` of the clips, events go at the projector."""

    def __init__(
        self, examples: list[Example], recipe: Recipe, *, size: int, seed: int, embedding_absence: float = 0.15
    ):
        self.examples, self.recipe, self.size, self.seed = examples, recipe, size, seed
        self.embedding_absence = embedding_absence
        self.buckets = np.searchsorted(_bucket_frames(recipe), [len(example.mel_fm) for example in examples])

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        bucket = self.buckets[rng.integers(len(self.examples))]
        members = np.flatnonzero(self.buckets == bucket)
        chosen = rng.choice(members, size=self.size, replace=len(members) < self.size)
        n_frames = _bucket_frames(self.recipe)[bucket]
        some = [self.examples[i] for i in chosen]
        batch, _ = make_batch(some, n_frames, rng, self.recipe, embedding_absence=self.embedding_absence)
        return batch._replace(mel_bfm=_other_channels(batch.mel_bfm, rng))


def in_batches(examples: list[Example], recipe: Recipe, *, size: int) -> Iterator[tuple[Batch, list[list[str]]]]:
    """Yield examples of any length in batches, with the categories of the questions drawn for each."""
    rng = np.random.default_rng(0)
    for shortest, longest in itertools.pairwise((0, *_bucket_frames(recipe))):
        members = [example for example in examples if shortest < len(example.mel_fm) <= longest]
        for start in range(0, len(members), size):
            some = members[start : start + size]
            padded = some + [some[0]] * (size - len(some))
            batch, categories = make_batch(padded, longest, rng, recipe, embedding_absence=0.0)
            yield batch, categories[: len(some)]


def make_batch(
    examples: list[Example], n_frames: int, rng: np.random.Generator, recipe: Recipe, *, embedding_absence: float
) -> tuple[Batch, list[list[str]]]:
    """Pad examples to `n_frames`, draw their questions, lay out tokens and labels; also return their categories."""
    mel = np.zeros((len(examples), n_frames, recipe.config.front_end.n_mels), np.float32)
    n_audio, n_labelled = n_frames // 4, n_frames // 2
    labels = np.full((len(examples), n_labelled, LABELS), -1, np.int32)
    asked = np.zeros((len(examples), QUESTIONS, QUESTION_TOKENS), np.int32)
    answers = np.zeros((len(examples), QUESTIONS, QUESTION_TOKENS), bool)
    gone = np.zeros((len(examples), n_audio), bool)
    categories = []
    for b, example in enumerate(examples):
        length = len(example.mel_fm)
        mel[b, :length] = example.mel_fm
        # Behind the end the front end would see silence: the floor that it clamps to.
        mel[b, length:] = max(float(example.mel_fm.max()) - 2.0, -1.5)
        labels[b, : length // 2] = _frame_labels(example.clip, recipe.frame_centres_s(length // 2), recipe)
        heard = example.clip
        if heard.events and rng.random() < embedding_absence:
            heard, gone[b] = _take_away(heard, recipe.position_centres_s(n_audio), rng)
        drawn = _draw_questions(heard, rng)
        categories.append([_category(prompt) for prompt, _ in drawn])
        for q, (prompt, answer) in enumerate(drawn):
            head = recipe.ids(f"{prompt}<|im_end|>\n<|im_start|>assistant\n")
            tokens = head + recipe.ids(f"{answer}<|im_end|>")
            asked[b, q, : len(tokens)] = tokens
            answers[b, q, len(head) : len(tokens)] = True
    n_frames_b = np.array([len(example.mel_fm) for example in examples], np.int32)
    prefix = audio_prefix(recipe, len(examples), n_audio)
    baseline = rng.integers(0, 2, len(examples)).astype(np.float32)
    return Batch(mel, n_frames_b, labels, prefix, asked, answers, gone, baseline), categories


def _bucket_frames(recipe: Recipe) -> tuple[int, ...]:
    return tuple(round(length_s / POSITION_S) * 4 for length_s in BUCKETS_S)


def _frame_labels(clip: SoundClip, centre_s: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Words of what is heard at the centre of every frame, an emotion among them; the first is 0 where nothing is."""
    labels = np.full((len(centre_s), LABELS), -1, np.int32)
    labels[:, 0] = 0
    heard = np.zeros(len(centre_s), int)
    for event in clip.events:
        word = LEAVES[event.label]
        for said in (word, clip.voice[1]) if clip.voice and word in GENDERS else (word,):
            inside = np.flatnonzero((centre_s >= event.start_s) & (centre_s < event.end_s))
            labels[inside, heard[inside]] = recipe.ids(said)[0]
            heard[inside] += 1
    return labels


def _take_away(clip: SoundClip, centre_s: np.ndarray, rng: np.random.Generator) -> tuple[SoundClip, np.ndarray]:
    """Draw events that go, and the positions that go with them; what is left of the others decides what is heard."""
    gone = np.zeros(len(centre_s), bool)
    for number in np.flatnonzero(rng.random(len(clip.events)) < 0.5):
        event = clip.events[number]
        gone |= (centre_s >= event.start_s) & (centre_s < event.end_s)
    left = []
    for event in clip.events:
        inside = (centre_s >= event.start_s) & (centre_s < event.end_s)
        if 2 * (inside & ~gone).sum() >= inside.sum():
            left.append(event)
    return among(clip, tuple(left)), gone


def _draw_questions(clip: SoundClip, rng: np.random.Generator) -> list[tuple[str, str]]:
    """What is heard, and three others, drawn so that yes and no are alike and voices are asked about."""
    everything = questions(clip)
    plain = {prompt: answer for prompt, answer in everything if not prompt.startswith("is there")}
    present = [pair for pair in everything if pair[1] == "yes"]
    absent = [pair for pair in everything if pair[1] == "no"]
    spoken, several = clip.voice is not None, len(clip.events) > 1
    pool = [(WHO, 1.2 if spoken else 0.3), (FEEL, 2.0 if spoken else 0.3)]
    pool += [(prompt, 0.9 if several else 0.2) for prompt in (FIRST, LAST) if prompt in plain]
    pairs, weights = [(prompt, plain[prompt]) for prompt, _ in pool], [weight for _, weight in pool]
    for some in (present, absent):
        if some:
            pairs.append(some[rng.integers(len(some))])
            weights.append(0.8)
    chosen = rng.choice(len(pairs), size=QUESTIONS - 1, replace=False, p=np.array(weights) / sum(weights))
    return [(WHAT, plain[WHAT]), *(pairs[i] for i in chosen)]


def _category(prompt: str) -> str:
    return {WHAT: "what", WHO: "who", FEEL: "feel", FIRST: "first", LAST: "last"}.get(prompt, "is there")


def _other_channels(mel_bfm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary the recordings' channels: a smooth tilt over frequencies, and noise."""
    n_mels = mel_bfm.shape[2]
    shapes = np.cos(np.pi * np.arange(1, 4)[:, None] * (np.arange(n_mels) + 0.5) / n_mels)
    tilt = rng.normal(0.0, 0.03, (len(mel_bfm), 3)) @ shapes + rng.normal(0.0, 0.05, (len(mel_bfm), 1))
    return (mel_bfm + tilt[:, None, :] + rng.normal(0.0, 0.02, mel_bfm.shape)).astype(np.float32)


def main() -> None:
    """Render a split."""
    from train.sounds import RECIPE

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    test = arguments.split == "test"
    for number, first in enumerate(range(0, arguments.clips, _IN_SHARD)):
        path = arguments.out / f"{arguments.split}-{number:04d}.npz"
        if not path.is_file():
            last = min(first + _IN_SHARD, arguments.clips)
            write_shard(path, [render(arguments.seed, i, test=test) for i in range(first, last)], RECIPE)
            print(path, flush=True)


if __name__ == "__main__":
    main()
