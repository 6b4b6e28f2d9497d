"""What differs between the two *pocket* models, which hear the same world: architecture, front end and prompt.

*pocket* is Qwen2-Audio in miniature, *pocket-lfm2* is LFM2-Audio in miniature, without the side that speaks. Both have
one audio position every 80 ms.
"""

from dataclasses import dataclass

import numpy as np

from sgpa_jax.models.audio_lm import AudioLMConfig
from sgpa_jax.models.fastconformer import FastConformerConfig
from sgpa_jax.models.lfm2 import Lfm2Config
from sgpa_jax.models.mel import WhisperMelConfig
from sgpa_jax.models.nemo_mel import NemoMelConfig
from sgpa_jax.models.projector import ProjectorConfig
from sgpa_jax.models.qwen2 import Qwen2Config
from sgpa_jax.models.whisper_encoder import WhisperEncoderConfig
from train import world

POSITION_S = 0.08
"""Seconds between the audio positions of either decoder."""

_COMMANDS = {"prompt": "what to do ?", "probe": world.PROBE, "inside": "yes", "answer_outside": world.UNKNOWN}


@dataclass(frozen=True)
class Recipe:
    """One pocket model.

    Attributes:
        config: its architecture.
        tokens: its vocabulary; words have the same ids in both models.
        head: what stands before the audio, as text.
        tail: what stands between the audio and the question.
        frame_s: seconds between the frames that the auxiliary head labels.
        first_s: where the first of them, and the first audio position, has its centre.
        mel_unit: natural logarithms of power in one unit of the stored log-mel.
        closed_world: the usual question, and what tells whether speech belongs to the model's world; None: no probe.
    """

    config: AudioLMConfig
    tokens: tuple[str, ...]
    head: str
    tail: str
    frame_s: float
    first_s: tuple[float, float]
    mel_unit: float
    closed_world: dict[str, str] | None = None

    def ids(self, text: str) -> list[int]:
        """Token ids of text."""
        index = {token: i for i, token in enumerate(self.tokens)}
        return [index.get(token, index["<unk>"]) for token in world.tokenise(text)]

    def frame_centres_s(self, n: int) -> np.ndarray:
        """Centres of the first n labelled frames."""
        return self.first_s[0] + self.frame_s * np.arange(n)

    def position_centres_s(self, n: int) -> np.ndarray:
        """Centres of the first n audio positions."""
        return self.first_s[1] + POSITION_S * np.arange(n)


def _pocket() -> Recipe:
    mel = WhisperMelConfig(n_mels=80, n_fft=512, hop_samples=320)
    return Recipe(
        AudioLMConfig(
            front_end=mel,
            encoder=WhisperEncoderConfig(
                n_mels=mel.n_mels, width=128, n_layers=3, n_heads=4, ffn_width=512,
                max_positions=int(mel.window_s * mel.rate_hz) // mel.hop_samples // 2,
            ),
            projector=ProjectorConfig(n_in=128, n_out=128),
            decoder=Qwen2Config(
                vocab_size=len(world.TOKENS), width=128, n_layers=3, n_heads=4, n_kv_heads=2, head_width=32,
                ffn_width=384, rope_theta=10000.0, norm_eps=1e-6, tied_head=False,
            ),
            audio_token_id=world.TOKEN_IDS["<|AUDIO|>"],
        ),
        world.TOKENS,
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAudio 1: <|audio_bos|>",
        "<|audio_eos|>",
        POSITION_S / 2,
        (POSITION_S / 4, POSITION_S / 2),
        4 * np.log(10.0),
        _COMMANDS,
    )  # fmt: skip


def _pocket_lfm2() -> Recipe:
    markers = {"<|audio_bos|>": "<|startoftext|>", "<|audio_eos|>": "<|audio_start|>", "<|AUDIO|>": "<|text_end|>"}
    return Recipe(
        AudioLMConfig(
            front_end=NemoMelConfig(n_mels=80),
            encoder=FastConformerConfig(
                n_mels=80, width=128, n_layers=3, n_heads=4, ffn_width=256, n_channels=32, n_taps=9
            ),
            projector=ProjectorConfig(n_in=128, n_out=128, hidden_width=128, norm=True),
            decoder=Lfm2Config(
                vocab_size=len(world.TOKENS), width=128, attends=(False, True, False, True), n_heads=4, n_kv_heads=2,
                head_width=32, n_taps=3, ffn_width=384, rope_theta=10000.0, norm_eps=1e-5, tied_head=True,
            ),
        ),
        tuple(markers.get(token, token) for token in world.TOKENS),
        "<|startoftext|><|im_start|>user\n",
        "",
        POSITION_S,
        # Three convolutions of stride two, padded by one: output i is centred on mel frame 8 i.
        (0.0, 0.0),
        1.0,
        _COMMANDS,
    )  # fmt: skip


RECIPES = {"pocket": _pocket(), "pocket-lfm2": _pocket_lfm2()}
