"""What a model says, asked once or asked many questions together, and what that tells of the world that it knows."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import PRNGKeyArray

from sgpa_jax.audio import Clip
from sgpa_jax.errors import UsageError
from sgpa_jax.models.audio_lm import Placed
from sgpa_jax.models.inputs import ModelInputs, without_response
from sgpa_jax.models.order import Order
from sgpa_jax.models.prompting import Prompting
from sgpa_jax.models.sampling import Sampling

_PROMPTS_AT_ONCE, _FEW_PROMPTS = 16, 4
PROBE_TOKENS = 8
"""What a model says of `Model.probes` is read so far."""


@dataclass(frozen=True)
class World:
    """A closed world that a model was trained on.

    `prompt` is its usual question. Asked `probe`, the model says `inside` where the speech belongs to the world, and
    it answers `answer_outside` to any question about speech that does not.
    """

    prompt: str
    probe: str
    inside: str
    answer_outside: str


@dataclass(frozen=True)
class Response:
    """What a model says: token ids without the end mark, their text, and the text of each token."""

    ids: tuple[int, ...]
    text: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Answering(Prompting, ABC):
    """The side of a model that answers in text; how its weights place and answer a batch is for `Model` to say."""

    world: World | None

    @abstractmethod
    def place(self, *rows: ModelInputs) -> Placed:
        """Decoder inputs of rows with as many clips each."""

    @abstractmethod
    def generate_batch(
        self,
        prompts: Placed,
        *,
        max_new_tokens: int,
        order: Order | None = None,
        n_shared: int = 0,
        sampling: Sampling | None = None,
        key: PRNGKeyArray | None = None,
    ) -> list[Response]:
        """Answer prompts whose audio is in place, all at once."""

    def generate(
        self,
        inputs: ModelInputs,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Response:
        """Answer the prompt in text, greedily or drawn from `key`, up to the end mark or `max_new_tokens`.

        Raises:
            CheckpointError: the model's folder has no tokenizer.
            UsageError: draws without a key.
        """
        prompts = self.place(without_response(inputs))
        return self.generate_batch(prompts, max_new_tokens=max_new_tokens, sampling=sampling, key=key)[0]

    def respond(self, prompts: Sequence[ModelInputs], *, max_new_tokens: int) -> list[Response]:
        """Answer prompts in text, greedily, those of similar shape at once; each as `generate` would alone.

        Raises:
            CheckpointError: the model's folder has no tokenizer.
        """
        prompts = [without_response(inputs) for inputs in prompts]
        # Those of similar length are neighbours: a batch is as long as its longest.
        order = sorted(range(len(prompts)), key=lambda index: _size(prompts[index]))
        said: dict[int, Response] = {}
        for _, alike in itertools.groupby(order, key=lambda index: len(prompts[index].clips)):
            same = list(alike)
            for first in range(0, len(same), _PROMPTS_AT_ONCE):
                some = same[first : first + _PROMPTS_AT_ONCE]
                # Few sizes, so that few programs are compiled.
                size = _PROMPTS_AT_ONCE if len(some) > _FEW_PROMPTS else 1 << (len(some) - 1).bit_length()
                rows = [prompts[index] for index in some]
                answers = self.generate_batch(
                    self.place(*rows, *rows[-1:] * (size - len(rows))), max_new_tokens=max_new_tokens
                )
                said |= zip(some, answers, strict=False)
        return [said[index] for index in range(len(prompts))]

    def transcribe(self, clip: Clip, *, max_new_tokens: int) -> str:
        """Return what the model writes when its chat format's request for a transcription is put to it.

        Raises:
            AudioError: the clip is too long or too short.
            CheckpointError: the model's folder has no tokenizer.
            UsageError: the model knows a closed world alone, or writes nothing.
        """
        if self.world is not None:
            raise UsageError(
                f"the model {self.name} answers questions about its own small world and cannot transcribe; give the "
                "words that are said"
            )
        system, request = self._chat().transcription
        text = self.generate(self.prepare(clip, request, system=system), max_new_tokens=max_new_tokens).text.strip()
        if not text:
            raise UsageError(f"the model {self.name} writes nothing when asked to transcribe; give the words")
        return text

    def response(self, ids: list[int]) -> Response:
        """Wrap token ids with their texts."""
        chat = self._chat()
        return Response(tuple(ids), chat.text(ids), tuple(chat.text([token]) for token in ids))

    def in_domain(self, clip: Clip, prompt: str) -> bool | None:
        """Whether speech and question belong to the closed world that the model was trained on; None if it has none.

        See `is_inside` for how that is told from its answers to `probes`.
        """
        asked = self.probes(clip, prompt)
        said = self.respond(asked, max_new_tokens=PROBE_TOKENS)
        return None if self.world is None else self.is_inside([response.text for response in said])

    def probes(self, clip: Clip, prompt: str) -> list[ModelInputs]:
        """The questions that tell whether speech is of the model's world; none where that is known without asking."""
        if self.world is None or not self._chat().knows(prompt):
            return []
        return [self.prepare(clip, question) for question in (self.world.probe, self.world.prompt)]

    def is_inside(self, said: Sequence[str]) -> bool:
        """Whether answers to `probes`, of `PROBE_TOKENS` at most, are those to speech of the model's world.

        They are if the tokenizer knows the question's words, the model says so of the clip, and it has anything else
        than its answer for the outside to the world's usual question: speech of people often passes the second alone.
        """
        assert self.world is not None
        return bool(said) and said[0] == self.world.inside and set(said[1].split()) != {self.world.answer_outside}


def _size(inputs: ModelInputs) -> tuple[int, int, int]:
    """By what prompts are alike: their recordings, the longest of these, and their tokens."""
    return len(inputs.clips), max((len(clip.wave_s) for clip in inputs.clips), default=0), len(inputs.ids_t)
