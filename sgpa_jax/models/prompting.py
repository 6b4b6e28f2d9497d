"""What a model makes of a conversation before any weight is touched: `ModelInputs`, position by position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from sgpa_jax.audio import SAMPLES_STEP_S, Clip, round_up
from sgpa_jax.errors import AudioError, CheckpointError, UsageError
from sgpa_jax.models.audio_lm import AudioLMConfig, layout_of_ids
from sgpa_jax.models.audio_out import N_CODES
from sgpa_jax.models.chat_layout import ChatFormat
from sgpa_jax.models.inputs import ModelInputs, with_response
from sgpa_jax.models.messages import Messages, clips_of, spoken_in
from sgpa_jax.models.speech import Speech


@dataclass(frozen=True, eq=False)
class Prompting:
    """The side of a model that lays prompts out; `chat` is None where a folder has no tokenizer: ids in, logits out."""

    name: str
    digest: str
    dtype: str
    config: AudioLMConfig
    chat: ChatFormat | None

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

    def padded_samples(self, n_samples: int) -> int:
        """Samples of a waveform's bucket, with what the front end wants behind the waveform's end."""
        return round_up(n_samples + self.config.front_end.room_samples, int(SAMPLES_STEP_S * self.rate_hz))

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
                `{"type": "audio", "audio": Clip}`, and in turns of the assistant also `{"type": "speech", "speech":
                Speech}`, what `Model.speak` said before.
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

    def _laid(self, messages: Messages, clips: tuple[Clip, ...]) -> ModelInputs:
        for spoken in spoken_in(messages):
            self._check_speech(spoken)
        laid = self._chat().layout(messages, [self.config.n_audio(len(clip.wave_s)) for clip in clips])
        return ModelInputs(
            laid.ids_t, laid.clip_t, laid.place_t, laid.turn_t, laid.is_content_t, len(laid.ids_t), clips, laid.roles,
            codes_tk=laid.codes_tk,
        )  # fmt: skip

    def _check_speech(self, speech: Speech) -> None:
        """Refuse what this model cannot have spoken."""
        audio_out, n_ids = self.config.audio_out, self.config.decoder.vocab_size
        if audio_out is None:
            raise UsageError(f"the model {self.name} answers in text alone; put the words of earlier turns as text")
        if not all(0 <= token < n_ids for token in speech.ids) or any(
            codes and (len(codes) != audio_out.n_codebooks or not all(0 <= code < N_CODES for code in codes))
            for codes in speech.codes
        ):
            raise UsageError(
                f"a turn holds speech that the model {self.name} cannot have spoken: expected ids below {n_ids}, and "
                f"frames of {audio_out.n_codebooks} codes below {N_CODES}; give what its speak returned"
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
