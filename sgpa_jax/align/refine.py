"""stage 3 (draft)"""
import numpy as np

from sgpa_jax.align.timing import Span


def refined_spans(clip, path, n_words):
    e = path.emissions
    out = {}
    for owner in sorted({r.owner for r in path.runs} - {-1}):
        own = [r for r in path.runs if r.owner == owner]
        a = min(max(e.offset_s + own[0].first*e.frame_s,0),clip.duration_s); b = min(max(0,e.offset_s + own[-1].end*e.frame_s), clip.duration_s)
        out[owner] = Span(a, b, a, b, float(np.mean([r.confidence for r in own])), False)
    return out
