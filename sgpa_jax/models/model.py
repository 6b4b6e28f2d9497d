"""A loaded audio language model: weights, front end and chat format behind a few verbs.

`prepare` turns a clip and a question, or a whole conversation, into `ModelInputs`; `logits`, `residuals`, `generate`,
`speak` and `in_domain` run them. Everything is functional inside: `graphdef` and `state` go into jitted functions as
arguments, and nothing here changes them.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sgpa_jax.audio import TOKEN_STEP, round_up
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.models.answering import Answering, Response
from sgpa_jax.models.audio_lm import AudioLM, Layout, Placed
from sgpa_jax.models.chat import LFM2AudioChat
from sgpa_jax.models.decoder import Decoder, decoder_of
from sgpa_jax.models.generate import generate_text
from sgpa_jax.models.inputs import ModelInputs, layout_row, without_response
from sgpa_jax.models.order import Order
from sgpa_jax.models.sampling import Sampling
from sgpa_jax.models.sharding import gathered
from sgpa_jax.models.speech import Speech, SpeechMarks, generate_speech, speech_of
from sgpa_jax.models.stacked_encoder import StackedEncoder

_RESPONSE_STEP = 32

MODES = ("sequential", "interleaved")
"""How text and audio follow one another in a spoken answer."""

Edit = Callable[[int, Array], Array]
"""Called with (i, residual stream after layer i), returns the residual stream that goes on; pure."""


@dataclass(frozen=True, eq=False)
class Model(Answering):
    """An audio language model, ready to run.

    The weights lie on `mesh` if there is one, spread along its axis `model`, and else on the first device.
    """

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

    def place(self, *rows: ModelInputs) -> Placed:
        """Decoder inputs of rows with as many clips each: the prompts' embeddings with the audio in its places."""
        n_tokens = round_up(max(len(inputs.ids_t) for inputs in rows), TOKEN_STEP)
        layouts = [layout_row(inputs, n_tokens) for inputs in rows]
        codes = next((row.codes_btk for row in layouts if row.codes_btk is not None), None)
        if codes is not None:  # in all rows, where one has any
            none = np.full_like(codes, -1)
            layouts = [row._replace(codes_btk=none) if row.codes_btk is None else row for row in layouts]
        layout = jax.tree.map(lambda *parts: np.concatenate(parts), *layouts)
        lengths = np.array([[len(clip.wave_s) for clip in inputs.clips] for inputs in rows], np.int32)
        waves = np.zeros((*lengths.shape, self.padded_samples(lengths.max(initial=0))), np.float32)
        for b, inputs in enumerate(rows):
            for n, clip in enumerate(inputs.clips):
                waves[b, n, : len(clip.wave_s)] = clip.wave_s
        return _place(self.graphdef, self.state, layout, waves, lengths)

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
