"""Coalitions of a recording's words in torch: rendered, encoded anew and answered, or asked for a response, in batches.

transformers' Qwen2-Audio pads every recording to its window of thirty seconds (`trims` false). It hides what is behind
a recording's end as attention keys, so an encoder with fewer positions gives the same numbers: `trims` takes for each
batch one that holds its longest recording, after sorting by length. Nothing else is changed.
"""

import copy
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _speech_toys import SpeechToy

_POSITIONS_STEP = 25


@dataclass(frozen=True)
class SpeechSettings:
    """Coalitions a batch, torch's threads, and whether the encoder's window is cut to the batch."""

    batch: int
    threads: int
    trims: bool

    def __str__(self) -> str:
        encoder = "encoder cut to the batch" if self.trims else "whole window"
        return f"batch {self.batch}, threads {self.threads}, {encoder}"


class SpeechPeer:
    """transformers' network on the coalitions of a toy's recording under one absence."""

    def __init__(self, toy: SpeechToy, absence: str):
        self.toy, self.absence = toy, absence
        self.windows: dict[int, Any] = {}

    @torch.inference_mode()
    def generate(self, masks_cp: np.ndarray, settings: SpeechSettings, n_new: int) -> np.ndarray:
        """Return the ids of every coalition's greedy answer, int[C, n_new]."""
        found = np.zeros((len(masks_cp), n_new), np.int64)
        for rows, network, inputs in self._batches(masks_cp, settings, response=False):
            ids = network.generate(**inputs, max_new_tokens=n_new, do_sample=False, pad_token_id=0)
            found[rows] = ids[:, inputs["input_ids"].shape[1] :].numpy()
        return found

    @torch.inference_mode()
    def log_probs(self, masks_cp: np.ndarray, settings: SpeechSettings) -> np.ndarray:
        """Return the log-probabilities of the response's tokens, float32[C, R]."""
        targets_r = torch.from_numpy(self.toy.inputs.ids_t[self.toy.inputs.response_start :].astype(np.int64))
        found = np.zeros((len(masks_cp), len(targets_r)), np.float32)
        for rows, network, inputs in self._batches(masks_cp, settings, response=True):
            hidden = network.model(**inputs).last_hidden_state[:, -len(targets_r) :]
            log_probs = network.lm_head(hidden).log_softmax(dim=2)
            found[rows] = log_probs.gather(2, targets_r[None, :, None].expand(len(rows), -1, 1))[:, :, 0].numpy()
        return found

    def _batches(self, masks_cp: np.ndarray, settings: SpeechSettings, *, response: bool) -> Any:
        """Rows, network and inputs of one batch after another, those of like length together."""
        torch.set_num_threads(settings.threads)
        waves = [self._rendered(mask) for mask in masks_cp]
        order = np.argsort([len(wave) for wave in waves], kind="stable")
        for start in range(0, len(order), settings.batch):
            rows = order[start : start + settings.batch]
            some = [waves[row] for row in rows]
            network = self._window(max(map(len, some))) if settings.trims else self.toy.network
            n_samples = 2 * network.config.audio_config.max_source_positions * self.toy.extractor.hop_length
            heard = self.toy.extractor(
                some, sampling_rate=self.toy.extractor.sampling_rate, return_attention_mask=True, return_tensors="pt",
                padding="max_length", max_length=n_samples,
            )  # fmt: skip
            yield (
                rows,
                network,
                {
                    **self._prompts(some, response),
                    "input_features": heard["input_features"],
                    "feature_attention_mask": heard["attention_mask"],
                },
            )

    def _rendered(self, mask_p: np.ndarray) -> np.ndarray:
        (clip,) = self.toy.inputs.clips
        keep_s = np.append(mask_p, True)[self._owner_s]
        if self.absence == "delete":
            return clip.wave_s[keep_s]
        return np.where(keep_s, clip.wave_s, np.float32(0))

    @functools.cached_property
    def _owner_s(self) -> np.ndarray:
        return self.toy.players.owner_s()

    def _prompts(self, waves: list[np.ndarray], response: bool) -> dict[str, torch.Tensor]:
        """Token ids with as many placeholders as each recording has positions, padded on the left."""
        inputs, config = self.toy.inputs, self.toy.model.config
        end = len(inputs.ids_t) - 1 if response else inputs.response_start
        audio = np.flatnonzero(inputs.clip_t >= 0)
        before, behind = inputs.ids_t[: audio[0]], inputs.ids_t[audio[-1] + 1 : end]
        rows = [
            np.concatenate([before, np.full(config.n_audio(len(wave)), inputs.ids_t[audio[0]]), behind])
            for wave in waves
        ]
        longest = max(map(len, rows))
        ids = torch.from_numpy(np.stack([np.pad(row, (longest - len(row), 0)) for row in rows]).astype(np.int64))
        there = torch.from_numpy(np.stack([np.arange(longest) >= longest - len(row) for row in rows])).long()
        prompts = {"input_ids": ids, "attention_mask": there}
        return prompts | ({"position_ids": (there.cumsum(1) - 1).clamp(min=0)} if response else {})

    def _window(self, n_samples: int) -> Any:
        """The same network with an encoder for recordings of so many samples and the two frames behind them."""
        n_frames = -(-n_samples // self.toy.extractor.hop_length) + 2
        n_positions = -(-n_frames // (2 * _POSITIONS_STEP)) * _POSITIONS_STEP
        whole = self.toy.network
        if n_positions >= whole.config.audio_config.max_source_positions:
            return whole
        if n_positions not in self.windows:
            config = copy.deepcopy(whole.config)
            config.audio_config.max_source_positions = n_positions
            state = dict(whole.state_dict())
            name = next(name for name in state if name.endswith("embed_positions.weight"))
            state[name] = state[name][:n_positions]
            with torch.device("meta"):
                network = type(whole)(config)
            network.load_state_dict(state, assign=True)
            # Computed and not loaded: rotary frequencies are in no checkpoint.
            network.model.language_model.rotary_emb = whole.model.language_model.rotary_emb
            self.windows[n_positions] = network.eval()
        return self.windows[n_positions]
