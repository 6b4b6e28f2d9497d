"""A loaded audio language model: weights, front end and chat format behind a few verbs.

`prepare` turns a clip and a question, or a whole conversation, into `ModelInputs`; `logits`, `residuals`, `generate`,
`speak` and `in_domain` run them. Everything is functional inside: `graphdef` and `state` go into jitted functions as
arguments, and nothing here changes them.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sgpa_jax.audio import SAMPLES_STEP_S, TOKEN_STEP, Clip, round_up
from sgpa_jax.errors import AudioError, CheckpointError, UsageError, unknown_name
from sgpa_jax.models.audio_lm import AudioLM, AudioLMConfig, Layout, Placed, layout_of_ids
from sgpa_jax.models.chat import ChatFormat, LFM2AudioChat, Messages, clips_of
from sgpa_jax.models.decoder import Decoder, decoder_of
from sgpa_jax.models.generate import generate_text
from sgpa_jax.models.inputs import ModelInputs, layout_row, with_response, without_response
from sgpa_jax.models.order import Order
from sgpa_jax.models.sampling import Sampling
from sgpa_jax.models.sharding import gathered
from sgpa_jax.models.speech import Speech, SpeechMarks, generate_speech, speech_of
from sgpa_jax.models.stacked_encoder import StackedEncoder

_RESPONSE_STEP = 32
_PROMPTS_AT_ONCE, _FEW_PROMPTS = 16, 4
PROBE_TOKENS = 8
"""What a model says of `Model.probes` is read so far."""

MODES = ("sequential", "interleaved")
"""How text and audio follow one another in a spoken answer."""

Edit = Callable[[int, Array], Array]
"""Called with (i, residual stream after layer i), returns the residual stream that goes on; pure."""


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
class Model:
    """An audio language model, ready to run; `chat` is None where a folder has no tokenizer: ids in, logits out.

    The weights lie on `mesh` if there is one, spread along its axis `model`, and else on the first device.
    """

    name: str
    digest: str
    dtype: str
    config: AudioLMConfig
    chat: ChatFormat | None
    world: World | None
    graphdef: nnx.GraphDef
    state: nnx.State
    mesh: Mesh | None = None

    @functools.cached_property
    def decoder(self) -> Decoder:
        """The decoder as the coalition engines take it: a second copy of its layers, made when first asked for."""
        return decoder_of(nnx.merge(self.graphdef, self.state).decoder)

    @functools.cached_property
    def stacked_encoder(self) -> StackedEncoder:
        """All but the decoder as the coalition engines take it: a second copy of its layers, made when first asked."""
        return StackedEncoder.of(nnx.merge(self.graphdef, self.state))

    @property
    def platform(self) -> str:
        """What it runs on: `cpu`, `gpu` or `tpu`."""
        return next(iter(jax.tree.leaves(self.state)[0].devices())).platform

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the front end."""
        return self.config.front_end.rate_hz

    @property
    def window_s(self) -> float:
        """The longest clip in seconds."""
        return self.config.front_end.window_s

    @property
    def minimum_samples(self) -> int:
        """The shortest waveform that still gives an audio position to the decoder."""
        return self.config.front_end.minimum_samples

    def prepare(
        self,
        clip_or_messages: Clip | Messages,
        prompt: str = "",
        *,
        system: str | None = None,
        response: str | None = None,
    ) -> ModelInputs:
        """Resample the clips and lay out the conversation, with the response's tokens behind it if one is given.

        Args:
            clip_or_messages: one clip, asked `prompt` under the turn `system`; or a conversation, a list of turns
                `{"role": ..., "content": text or parts}` with parts `{"type": "text", "text": ...}` and
                `{"type": "audio", "audio": Clip}`.
            prompt: the question about a clip.
            system: the system turn beside a clip, if not the format's own.
            response: what the assistant is to say.

        Raises:
            AudioError: a clip is longer than the model's window, or too short to be heard.
            CheckpointError: the model's folder has no tokenizer.
            UsageError: malformed messages, no recording among them, a text that contains a marker of the chat
                format, or a response that cannot be spelled.
        """
        messages = clip_or_messages
        if isinstance(messages, Clip):
            parts = [{"type": "audio", "audio": messages}, {"type": "text", "text": prompt}]
            first = [] if system is None else [{"role": "system", "content": system}]
            messages = [*first, {"role": "user", "content": parts}]
        elif prompt or system is not None:
            raise UsageError("a conversation brings its own texts: leave prompt and system out, or give one clip")
        clips = tuple(self._heard(clip) for clip in clips_of(messages))
        if not clips:
            raise UsageError("the conversation holds no recording; give at least one part of type 'audio'")
        inputs = self._laid(messages, clips)
        return inputs if response is None else with_response(inputs, self._chat().response_ids(response))

    def prepare_text(self, messages: Messages) -> ModelInputs:
        """Lay out a conversation that is all text.

        Raises:
            CheckpointError: the model's folder has no tokenizer.
            UsageError: malformed messages, a recording among them, or a text that contains a marker of the chat format.
        """
        if clips_of(messages):
            raise UsageError("the conversation holds a recording, but text alone was expected; use prepare")
        return self._laid(messages, ())

    def prepare_ids(
        self, ids_t: Int[np.ndarray, " T"], clips: Sequence[Clip], *, is_audio_t: Bool[np.ndarray, " T"] | None = None
    ) -> ModelInputs:
        """Take token ids as they are; every unbroken run of audio positions is the next clip.

        Args:
            ids_t: the whole sequence.
            clips: the recordings, in order.
            is_audio_t: where audio stands; None: where the ids are the model's placeholder.

        Raises:
            AudioError: a clip is longer than the model's window, or too short to be heard.
            UsageError: the runs of audio positions are not those of the clips.
        """
        ids_t = np.asarray(ids_t, np.int32)
        if is_audio_t is None:
            is_audio_t = ids_t == (-1 if self.config.audio_token_id is None else self.config.audio_token_id)
        heard = tuple(self._heard(clip) for clip in clips)
        layout = layout_of_ids(ids_t, np.asarray(is_audio_t, bool))
        clip_t, place_t = layout.clip_bt[0], layout.place_bt[0]
        wanted = [self.config.n_audio(len(clip.wave_s)) for clip in heard]
        found = [int((clip_t == clip).sum()) for clip in range(int(clip_t.max()) + 1)]
        if found != wanted:
            raise UsageError(
                f"the sequence has runs of {found} audio positions, but the recordings take {wanted}; give one run for "
                "each recording"
            )
        nowhere, text = np.full(len(ids_t), -1, np.int32), np.zeros(len(ids_t), bool)
        return ModelInputs(ids_t, clip_t, place_t, nowhere, text, len(ids_t), heard)

    def logits(self, inputs: ModelInputs, *, edit: Edit | None = None) -> Float[Array, "1 T V"]:
        """Next-token logits at every position, float32; `edit` may change the residual stream after every layer."""
        return _logits(self.graphdef, self.state, self.place(inputs), edit)[:, : len(inputs.ids_t)]

    def residuals(self, inputs: ModelInputs, after_layers: Sequence[int]) -> Float[Array, "L T D"]:
        """Residual stream after each of the given decoder layers, counted from 0, in the compute dtype.

        Raises:
            UsageError: there is no such layer.
        """
        n_layers = self.config.decoder.n_layers
        if not all(0 <= layer < n_layers for layer in after_layers):
            raise UsageError(f"after_layers {list(after_layers)} are not all from 0 to {n_layers - 1}")
        return _residuals(self.graphdef, self.state, self.place(inputs), tuple(after_layers))[:, : len(inputs.ids_t)]

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
        """Answer prompts whose audio is in place, all at once; each as `generate` would alone.

        Their tokens follow each other in `order`, without it as they stand; the first `n_shared`, fewer than any
        prompt has, are the same in all of them and are read once.

        Raises:
            CheckpointError: the model's folder has no tokenizer.
            UsageError: draws without a key.
        """
        chat = self._chat()
        _check_key(key, sampling)
        graphdef, state = nnx.split(nnx.merge(self.graphdef, self.state).decoder)
        ids_bn = generate_text(
            graphdef, state, prompts, jnp.asarray(max_new_tokens), room=round_up(max_new_tokens, _RESPONSE_STEP),
            end_ids=chat.end_ids, order=order, n_shared=n_shared, sampling=sampling, key=key,
        )  # fmt: skip
        end_id = chat.end_ids[0]
        rows = np.asarray(gathered(ids_bn)).tolist()
        return [self.response(row[: row.index(end_id)] if end_id in row else row) for row in rows]

    def speak(
        self,
        inputs: ModelInputs,
        *,
        max_new_tokens: int,
        mode: str = "sequential",
        text_sampling: Sampling | None = None,
        audio_sampling: Sampling | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Speech:
        """Answer the prompt in text and in frames of audio codes, up to the end mark or `max_new_tokens` of both.

        Args:
            inputs: the prompt; a response in it is left out.
            max_new_tokens: text tokens and frames together, at least one.
            mode: `sequential`, text until the model turns to audio; or `interleaved`, so many text tokens and so many
                frames in turn as the checkpoint says.
            text_sampling: how text tokens are drawn; None: greedily.
            audio_sampling: how codes are drawn; None: greedily.
            key: decides every draw.

        Raises:
            CheckpointError: the model's folder has no tokenizer.
            UsageError: the model does not speak, an unknown mode, no room for a token, or draws without a key.
        """
        prompts = self.place(without_response(inputs))
        return self.speak_batch(
            prompts, max_new_tokens=max_new_tokens, mode=mode, text_sampling=text_sampling,
            audio_sampling=audio_sampling, key=key,
        )[0]  # fmt: skip

    def speak_batch(
        self,
        prompts: Placed,
        *,
        max_new_tokens: int,
        mode: str = "sequential",
        order: Order | None = None,
        n_shared: int = 0,
        text_sampling: Sampling | None = None,
        audio_sampling: Sampling | None = None,
        key: PRNGKeyArray | None = None,
    ) -> list[Speech]:
        """Answer prompts whose audio is in place, all at once; each as `speak` would alone.

        Their tokens follow each other in `order`, without it as they stand; the first `n_shared`, fewer than any
        prompt has, are the same in all of them and are read once.

        Raises:
            CheckpointError: the model's folder has no tokenizer.
            UsageError: as `speak`.
        """
        if self.config.audio_out is None:
            raise UsageError(f"the model {self.name} answers in text alone; ask for text, or give an LFM2-Audio")
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        if max_new_tokens < 1:
            raise UsageError(f"max_new_tokens is {max_new_tokens}, but an answer takes at least one; give more")
        _check_key(key, text_sampling, audio_sampling)
        chat = self._chat()
        assert isinstance(chat, LFM2AudioChat)
        tokens = generate_speech(
            self.graphdef, self.state, prompts, jnp.asarray(max_new_tokens),
            room=round_up(max_new_tokens, _RESPONSE_STEP),
            marks=SpeechMarks(chat.id_of(chat.turn_end), chat.audio_start_id, chat.text_end_id),
            interleave=self.config.audio_out.interleave if mode == "interleaved" else None,
            order=order, n_shared=n_shared, text_sampling=text_sampling, audio_sampling=audio_sampling, key=key,
        )  # fmt: skip
        tokens = jax.tree.map(np.asarray, gathered(tokens))
        return [speech_of(tokens, row, chat.text) for row in range(len(tokens.n_b))]

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

    def padded_samples(self, n_samples: int) -> int:
        """Samples of a waveform's bucket, with what the front end wants behind the waveform's end."""
        return round_up(n_samples + self.config.front_end.room_samples, int(SAMPLES_STEP_S * self.rate_hz))

    def place(self, *rows: ModelInputs) -> Placed:
        """Decoder inputs of rows with as many clips each: the prompts' embeddings with the audio in its places."""
        n_tokens = round_up(max(len(inputs.ids_t) for inputs in rows), TOKEN_STEP)
        layout = jax.tree.map(lambda *parts: np.concatenate(parts), *(layout_row(inputs, n_tokens) for inputs in rows))
        lengths = np.array([[len(clip.wave_s) for clip in inputs.clips] for inputs in rows], np.int32)
        waves = np.zeros((*lengths.shape, self.padded_samples(lengths.max(initial=0))), np.float32)
        for b, inputs in enumerate(rows):
            for n, clip in enumerate(inputs.clips):
                waves[b, n, : len(clip.wave_s)] = clip.wave_s
        return _place(self.graphdef, self.state, layout, waves, lengths)

    def _laid(self, messages: Messages, clips: tuple[Clip, ...]) -> ModelInputs:
        laid = self._chat().layout(messages, [self.config.n_audio(len(clip.wave_s)) for clip in clips])
        return ModelInputs(
            laid.ids_t, laid.clip_t, laid.place_t, laid.turn_t, laid.is_content_t, len(laid.ids_t), clips, laid.roles
        )

    def _chat(self) -> ChatFormat:
        if self.chat is None:
            raise CheckpointError(
                f"the folder of the model {self.name} holds no tokenizer.json (or tekken.json), so that it takes token "
                "ids only; fetch the complete checkpoint"
            )
        return self.chat

    def _heard(self, clip: Clip) -> Clip:
        if clip.duration_s > self.window_s:
            raise AudioError(
                f"the recording lasts {clip.duration_s:.1f} s, but the model {self.name} hears "
                f"{self.window_s:.0f} s at most; cut it into shorter pieces, or explain it with --long windows"
            )
        clip = clip.at_rate(self.rate_hz)
        if len(clip.wave_s) < self.minimum_samples:
            raise AudioError(
                f"the recording lasts {1000 * clip.duration_s:.0f} ms, but the model {self.name} needs at least "
                f"{1000 * self.minimum_samples / self.rate_hz:.0f} ms; give a longer one"
            )
        return clip


def _size(inputs: ModelInputs) -> tuple[int, int, int]:
    """By what prompts are alike: their recordings, the longest of these, and their tokens."""
    return len(inputs.clips), max((len(clip.wave_s) for clip in inputs.clips), default=0), len(inputs.ids_t)


def _check_key(key: PRNGKeyArray | None, *samplings: Sampling | None) -> None:
    if key is None and any(samplings):
        raise UsageError("tokens are to be drawn, but no key was given; give key=jax.random.key(...)")


@functools.partial(jax.jit, static_argnums=0)
def _place(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    layout: Layout,
    wave_bns: Float[Array, "B N S"],
    n_samples_bn: Int[Array, "B N"],
) -> Placed:
    model: AudioLM = nnx.merge(graphdef, state)
    if not wave_bns.shape[1]:
        nothing = jnp.zeros((len(wave_bns), 1, 1, model.config.decoder.width), model.projector.first.kernel.dtype)
        return model.place(layout, nothing, jnp.zeros((len(wave_bns), 1), jnp.int32))
    return model.place(layout, *model.hear(wave_bns, n_samples_bn))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _logits(graphdef: nnx.GraphDef, state: nnx.State, placed: Placed, edit: Edit | None) -> Array:
    model: AudioLM = nnx.merge(graphdef, state)
    return model.decoder.logits(model.hidden(placed, edit=edit))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _residuals(graphdef: nnx.GraphDef, state: nnx.State, placed: Placed, after_layers: tuple[int, ...]) -> Array:
    seen: dict[int, Array] = {}

    def read(layer: int, residual: Array) -> Array:
        seen[layer] = residual[0]
        return residual

    model: AudioLM = nnx.merge(graphdef, state)
    model.hidden(placed, edit=read)
    return jnp.stack([seen[layer] for layer in after_layers])
