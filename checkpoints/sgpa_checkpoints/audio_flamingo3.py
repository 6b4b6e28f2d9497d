"""Tensor names of Audio Flamingo 3 and Voxtral checkpoints, and our paths for them.

Upstream: transformers `AudioFlamingo3ForConditionalGeneration` and `VoxtralForConditionalGeneration` (5.23). Both go by
Qwen2-Audio's names, in all of its layouts, but for a projector of two layers. Voxtral's has no biases, nor has its
decoder: the configuration leaves no place for them.
"""

from sgpa_checkpoints.qwen2_audio import QWEN2_AUDIO
from sgpa_checkpoints.rules import AnyRule, Rule
from sgpa_checkpoints.transforms import Transpose

AUDIO_FLAMINGO3: tuple[AnyRule, ...] = (
    *(rule for rule in QWEN2_AUDIO if not rule.sources[0].startswith("multi_modal_projector.")),
    Rule("multi_modal_projector.linear_1.weight", "projector.first.kernel", Transpose),
    Rule("multi_modal_projector.linear_1.bias", "projector.first.bias"),
    Rule("multi_modal_projector.linear_2.weight", "projector.second.kernel", Transpose),
    Rule("multi_modal_projector.linear_2.bias", "projector.second.bias"),
)
