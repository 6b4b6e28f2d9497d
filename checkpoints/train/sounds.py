"""Train *pocket-sounds* from nothing: a pocket audio language model of sounds and voices, Qwen2-Audio in miniature.

    python -m train.sounds --work DIR [--seed 0] [--steps 4000]

Reads what `sounds_data.py` rendered into DIR, checkpoints every two minutes and resumes by itself; `--export FOLDER`
writes the Hugging Face folder. The trainer is *pocket*'s; every encoder frame is labelled with all that is heard in it.
"""

import argparse
from pathlib import Path

import numpy as np
from sgpa_checkpoints.sound_world import WORDS

from sgpa_jax.models.audio_lm import AudioLMConfig
from sgpa_jax.models.mel import WhisperMelConfig
from sgpa_jax.models.projector import ProjectorConfig
from sgpa_jax.models.qwen2 import Qwen2Config
from sgpa_jax.models.whisper_encoder import WhisperEncoderConfig
from train import world
from train.pocket import fit, trained
from train.pocket_export import export_folder
from train.recipe import POSITION_S, Recipe
from train.sounds_data import Batches, in_batches, load_examples

_HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAudio 1: <|audio_bos|>"


def _recipe() -> Recipe:
    chat = [token for token in [*world.tokenise(_HEAD), "assistant"] if token not in world.SPECIAL_TOKENS]
    tokens = (*world.SPECIAL_TOKENS, *sorted({*WORDS, *chat}))
    mel = WhisperMelConfig(n_mels=64, n_fft=512, hop_samples=320, window_s=10.0)
    return Recipe(
        AudioLMConfig(
            front_end=mel,
            encoder=WhisperEncoderConfig(
                n_mels=mel.n_mels, width=96, n_layers=2, n_heads=4, ffn_width=288,
                max_positions=int(mel.window_s * mel.rate_hz) // mel.hop_samples // 2,
            ),
            projector=ProjectorConfig(n_in=96, n_out=96),
            decoder=Qwen2Config(
                vocab_size=len(tokens), width=96, n_layers=3, n_heads=4, n_kv_heads=2, head_width=24,
                ffn_width=256, rope_theta=10000.0, norm_eps=1e-6, tied_head=False,
            ),
            audio_token_id=tokens.index("<|AUDIO|>"),
        ),
        tokens,
        _HEAD,
        "<|audio_eos|>",
        POSITION_S / 2,
        (POSITION_S / 4, POSITION_S / 2),
        4 * np.log(10.0),
    )  # fmt: skip


RECIPE = _recipe()


def main() -> None:
    """Train, or export what was trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with rendered data")
    parser.add_argument("--run", default="pocket-sounds", help="name of the run's folder in it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak-rate", type=float, default=3e-3)
    parser.add_argument("--export", type=Path, help="write the checkpoint reached so far as a Hugging Face folder")
    arguments = parser.parse_args()
    run = arguments.work / arguments.run
    if arguments.export:
        export_folder(arguments.export, RECIPE, trained(run, RECIPE))
        return
    train = load_examples(sorted(arguments.work.glob("train-*.npz")))
    test = load_examples(sorted(arguments.work.glob("test-*.npz")))
    batches = Batches(train, RECIPE, size=arguments.batch, seed=arguments.seed)
    fit(run, RECIPE, batches, lambda: in_batches(test, RECIPE, size=arguments.batch), steps=arguments.steps,
        peak_rate=arguments.peak_rate, seed=arguments.seed)  # fmt: skip


if __name__ == "__main__":
    main()
