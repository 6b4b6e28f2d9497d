"""What an acoustic model hears, frame by frame: the input of forced alignment."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Emissions:
    """How likely each label is in each frame of a recording.

    Attributes:
        log_probs_tv: float32[T, V], natural log; up to a constant per label where a prior was divided out.
        frame_s: duration of a frame.
        offset_s: time of the left edge of frame 0.
        labels: the V names.
        blank: index of the CTC blank, or None where every frame has the label that is heard in it (phones).
    """

    log_probs_tv: Float[np.ndarray, "T V"]
    frame_s: float
    offset_s: float
    labels: tuple[str, ...]
    blank: int | None
