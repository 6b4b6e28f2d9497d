"""Language models that caption and name: an audio language model of ours or of transformers, and one of texts.

AR&D uses SeaLLMs-Audio-7B, which is of Qwen2-Audio's architecture, and Llama-3-70B-Instruct. Its prompts are not
published; these are ours. All answer greedily.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip
from sgpa_jax.concepts.hugging_face import loaded
from sgpa_jax.concepts.naming import ConceptName
from sgpa_jax.models import Model

CAPTION_PROMPT = "Describe in one sentence every sound that you hear, and the voice of whoever speaks."
_NAME_PROMPT = (
    "Each line below describes a recording. All recordings of group A share one sound, voice or manner of sounding "
    "that the recordings of group B lack.\n\nGroup A:\n{group}\n\nGroup B:\n{others}\n\nName what group A shares, in "
    "one to four words, without an explanation. If it shares nothing, say NONE."
)
_JUDGE_PROMPT = 'A recording is described as: "{caption}"\nDoes it hold this: "{name}"? Answer yes or no.'
_MOST_WORDS = 6


class ModelCaptioner:
    """An audio language model that `load_model` loads (Qwen2-Audio and its kin among them), asked to describe."""

    def __init__(self, model: Model, prompt: str = CAPTION_PROMPT, *, max_new_tokens: int = 96):
        """Ask `prompt` of every clip."""
        self.name = f"{model.name}, {prompt!r}"
        self._model, self._prompt, self._n_tokens = model, prompt, max_new_tokens

    def caption(self, clip: Clip) -> str:
        """What the model says; a clip longer than its window is described by its beginning."""
        most = int(self._model.window_s * clip.rate_hz)
        clip = clip if len(clip.wave_s) <= most else Clip(clip.wave_s[:most], clip.rate_hz, clip.path)
        inputs = self._model.prepare(clip, self._prompt)
        return self._model.generate(inputs, max_new_tokens=self._n_tokens).text.strip()


class TransformersCaptioner:
    """Any audio language model of transformers with a chat template, in torch."""

    def __init__(self, name: str, model: Any, processor: Any, prompt: str, max_new_tokens: int):
        self.name = f"{name}, {prompt!r}"
        self._model, self._processor, self._prompt, self._n_tokens = model, processor, prompt, max_new_tokens

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path,
        prompt: str = CAPTION_PROMPT,
        *,
        max_new_tokens: int = 96,
        dtype: str = "bfloat16",
    ) -> "TransformersCaptioner":
        """Load a folder or a hub id, `organisation/name` or `organisation/name@revision`.

        Raises:
            CheckpointError: torch is not installed, or there is no such complete checkpoint.
        """
        found = loaded(name_or_folder, "AutoModelForMultimodalLM", "AutoProcessor", dtype=dtype)
        return cls(*found, prompt, max_new_tokens)

    def caption(self, clip: Clip) -> str:
        """What the model says."""
        extractor = self._processor.feature_extractor
        wave_s = clip.at_rate(extractor.sampling_rate).wave_s
        parts = [{"type": "audio", "audio": wave_s}, {"type": "text", "text": self._prompt}]
        text = self._processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        inputs = self._processor(
            text=text, audio=[wave_s], sampling_rate=extractor.sampling_rate, return_tensors="pt"
        ).to(self._model.dtype)
        ids = self._model.generate(**inputs, max_new_tokens=self._n_tokens, do_sample=False)
        return self._processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()


class LanguageModel:
    """A language model of transformers, in torch: it names concepts, and judges whether captions go with a name."""

    def __init__(self, name: str, model: Any, tokenizer: Any):
        self.name, self._model, self._tokenizer = name, model, tokenizer

    @classmethod
    def load(cls, name_or_folder: str | Path, *, dtype: str = "bfloat16") -> "LanguageModel":
        """Load a folder or a hub id, `organisation/name` or `organisation/name@revision`.

        Raises:
            CheckpointError: torch is not installed, or there is no such complete checkpoint.
        """
        return cls(*loaded(name_or_folder, "AutoModelForCausalLM", "AutoTokenizer", dtype=dtype))

    def name_concept(self, captions: Sequence[str], others: Sequence[str] = ()) -> ConceptName:
        """A name in a few words; the confidence is the mean probability (geometric) of its tokens."""
        group, contrast = ("\n".join(f"- {text}" for text in texts) or "- (none)" for texts in (captions, others))
        ids = self._prompt_ids(_NAME_PROMPT.format(group=group, others=contrast))
        out = self._model.generate(
            ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=16, do_sample=False,
            return_dict_in_generate=True, output_logits=True, pad_token_id=self._tokenizer.eos_token_id,
        )  # fmt: skip
        new = out.sequences[0, ids.shape[1] :]
        chances = [
            float(logits[0].float().log_softmax(dim=-1)[token]) for logits, token in zip(out.logits, new, strict=True)
        ]
        said = cleaned_name(self._tokenizer.decode(new, skip_special_tokens=True))
        return ConceptName(said, math.exp(sum(chances) / max(len(chances), 1)))

    def judge(self, name: str, captions: Sequence[str]) -> Float[np.ndarray, " N"]:
        """How much likelier yes is than no (log odds) to whether each caption goes with the name."""
        answers = [{self._first_id(word) for word in (said, said.title(), f" {said}")} for said in ("yes", "no")]
        odds = []
        for caption in captions:
            ids = self._prompt_ids(_JUDGE_PROMPT.format(caption=caption, name=name))
            logits = self._model(ids).logits[0, -1].float()
            yes, no = (logits[sorted(first)].logsumexp(dim=0) for first in answers)
            odds.append(float(yes - no))
        return np.array(odds)

    def _first_id(self, text: str) -> int:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"][0]

    def _prompt_ids(self, prompt: str) -> Any:
        turns = [{"role": "user", "content": prompt}]
        text = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return self._tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(self._model.device)


def cleaned_name(answer: str) -> str | None:
    """The name in a language model's answer: its first line, without quotes, at most a few words; None for NONE."""
    line = next((line for line in answer.splitlines() if line.strip()), "")
    words = re.sub(r"[\"“”'*.:]|^[-\s]+", " ", line).split()
    name = " ".join(words[:_MOST_WORDS])
    return None if not name or name.casefold() == "none" else name
