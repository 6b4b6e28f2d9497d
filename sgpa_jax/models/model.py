"""A loaded audio language model: weights, front end and chat format behind four verbs.

`prepare` turns a clip and a question into `ModelInputs`; `logits`, `generate` and `in_domain` run them. Everything is
functional inside: `graphdef` and `state` go into jitted functions as arguments, and nothing here changes them.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from sgpa_jax.audio import SAMPLES_STEP_S, TOKEN_STEP, Clip, round_up
from sgpa_jax.errors import AudioError
from sgpa_jax.models.audio_lm import AudioLM, Placed
from sgpa_jax.models.chat import ChatFormat
from sgpa_jax.models.config import AudioLMConfig, MelConfig
from sgpa_jax.models.generate import generate_greedily
from sgpa_jax.models.mel import log_mel
from sgpa_jax.models.whisper_encoder import n_audio_tokens

_RESPONSE_STEP = 64
_PROBE_TOKENS = 8


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


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """One prompt with its audio, and optionally a response to be scored.

    `ids_t` holds the prompt's and then the response's token ids (int32[T]), with one placeholder for each audio
    position of the whole clip; the response begins at `response_start`. `clip` is at the model's rate.
    """

    ids_t: np.ndarray
    response_start: int
    clip: Clip


@dataclass(frozen=True)
class Response:
    """What a model says: token ids without the end mark, their text, and the text of each token."""

    ids: tuple[int, ...]
    text: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """An audio language model of the Qwen2-Audio architecture, ready to run."""

    name: str
    digest: str
    dtype: str
    config: AudioLMConfig
    mel: MelConfig
    chat: ChatFormat
    world: World | None
    graphdef: nnx.GraphDef
    state: nnx.State

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the front end."""
        return self.mel.rate_hz

    @property
    def window_s(self) -> float:
        """The longest clip in seconds."""
        return self.mel.window_s

    @property
    def minimum_samples(self) -> int:
        """The shortest waveform that still gives one audio position to the decoder."""
        return 3 * self.mel.hop_samples

    def prepare(
        self, clip: Clip, prompt: str, *, system: str | None = None, response: str | None = None
    ) -> ModelInputs:
        """Resample the clip and lay out the prompt, with the response's tokens behind it if one is given.

        Raises:
            AudioError: the clip is longer than the model's window, or too short to be heard.
            UsageError: a text contains a marker of the chat format, or a response cannot be spelled.
        """
        if clip.duration_s > self.window_s:
            raise AudioError(
                f"the recording lasts {clip.duration_s:.1f} s, but the model {self.name} hears "
                f"{self.window_s:.0f} s at most; cut it into shorter pieces"
            )
        clip = clip.at_rate(self.rate_hz)
        if len(clip.wave_s) < self.minimum_samples:
            raise AudioError(
                f"the recording lasts {1000 * clip.duration_s:.0f} ms, but the model {self.name} needs at least "
                f"{1000 * self.minimum_samples / self.rate_hz:.0f} ms; give a longer one"
            )
        n_audio = n_audio_tokens(self.n_frames(len(clip.wave_s)))
        ids = self.chat.prompt_ids(prompt, system=system, n_audio=n_audio)
        answer = [] if response is None else self.chat.response_ids(response)
        return ModelInputs(np.asarray(ids + answer, np.int32), len(ids), clip)

    def logits(self, inputs: ModelInputs) -> Float[Array, "1 T V"]:
        """Next-token logits at every position, float32."""
        placed = self._place(inputs.ids_t, inputs.clip)
        return _logits(self.graphdef, self.state, placed)[:, : len(inputs.ids_t)]

    def generate(self, inputs: ModelInputs, *, max_new_tokens: int) -> Response:
        """Answer greedily, up to the end mark or `max_new_tokens`."""
        placed = self._place(inputs.ids_t[: inputs.response_start], inputs.clip)
        graphdef, state = nnx.split(nnx.merge(self.graphdef, self.state).decoder)
        room = round_up(max_new_tokens, _RESPONSE_STEP)
        ids = generate_greedily(
            graphdef, state, placed, jnp.asarray(max_new_tokens), room=room, end_id=self.chat.end_id
        )
        row = np.asarray(ids)[0].tolist()
        return self.response(row[: row.index(self.chat.end_id)] if self.chat.end_id in row else row)

    def response(self, ids: list[int]) -> Response:
        """Wrap token ids with their texts."""
        return Response(tuple(ids), self.chat.text(ids), tuple(self.chat.text([token]) for token in ids))

    def in_domain(self, clip: Clip, prompt: str) -> bool | None:
        """Whether speech and question belong to the closed world that the model was trained on; None if it has none.

        They do if the tokenizer knows the question's words, the model says so of the clip, and it has anything else
        than its answer for the outside to the world's usual question: speech of people often passes the second alone.
        """
        if self.world is None:
            return None
        if not self.chat.knows(prompt):
            return False
        said, usual = (
            self.generate(self.prepare(clip, question), max_new_tokens=_PROBE_TOKENS).text
            for question in (self.world.probe, self.world.prompt)
        )
        return said == self.world.inside and set(usual.split()) != {self.world.answer_outside}

    def n_frames(self, n_samples: int) -> int:
        """Mel frames of a waveform."""
        return -(-n_samples // self.mel.hop_samples)

    def padded_samples(self, n_samples: int) -> int:
        """Samples of a waveform's bucket: behind its end the window and the two frames that the stem looks at fit."""
        room = self.mel.n_fft + 3 * self.mel.hop_samples
        return round_up(n_samples + room, int(SAMPLES_STEP_S * self.rate_hz))

    def _place(self, ids_t: np.ndarray, clip: Clip) -> Placed:
        n_samples, n_tokens = len(clip.wave_s), len(ids_t)
        wave = np.zeros((1, self.padded_samples(n_samples)), np.float32)
        wave[0, :n_samples] = clip.wave_s
        ids = np.zeros((1, round_up(n_tokens, TOKEN_STEP)), np.int32)
        ids[0, :n_tokens] = ids_t
        exists = np.arange(ids.shape[1])[None, :] < n_tokens
        frames = np.asarray([self.n_frames(n_samples)], np.int32)
        return _place(self.graphdef, self.state, self.mel, wave, frames, ids, exists)


def place_audio(
    model: AudioLM,
    mel: MelConfig,
    wave_bs: Float[Array, "B S"],
    n_frames_b: Int[Array, " B"],
    ids_bt: Int[Array, "B T"],
    exists_bt: Array,
) -> Placed:
    """From waveforms (zeros behind their ends) and token ids to decoder inputs, all inside one trace."""
    audio = model.encode(log_mel(wave_bs, mel), n_frames_b)
    return model.place(ids_bt, exists_bt, audio, n_audio_tokens(n_frames_b))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _place(
    graphdef: nnx.GraphDef, state: nnx.State, mel: MelConfig, wave: Array, n_frames: Array, ids: Array, exists: Array
) -> Placed:
    return place_audio(nnx.merge(graphdef, state), mel, wave, n_frames, ids, exists)


@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef: nnx.GraphDef, state: nnx.State, placed: Placed) -> Array:
    model: AudioLM = nnx.merge(graphdef, state)
    return model.decoder.logits(model.hidden(placed))
