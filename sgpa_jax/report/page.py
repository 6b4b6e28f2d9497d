"""The page: one HTML file to look at and to listen to, that opens from disk, asks no network and trusts no text.

Everything is inlined: the recording as a 16-bit WAV, the spectrogram as bytes, values and sentences as JSON.
"""

import html
import json
import os
from importlib import resources
from string import Template
from typing import Any

from sgpa_jax.audio import Clip, wav_bytes
from sgpa_jax.explain import Explanation
from sgpa_jax.files import atomic_write
from sgpa_jax.players import ambient_noise
from sgpa_jax.report.document import base64_of, document
from sgpa_jax.report.facts import (
    balance,
    direction,
    facts,
    finding,
    has_text,
    heard,
    notices,
    number,
    output_name,
    player_name,
    readable,
    short_name,
    span,
    uncertain,
    unit,
)
from sgpa_jax.report.fired import concepts_in_words
from sgpa_jax.report.palette import DARK, LIGHT, Paper, colours, ink, scale_limit
from sgpa_jax.report.spectrogram import spectrogram
from sgpa_jax.report.together import group_totals, strongest_interactions

_RATES_HZ = (8_000, 48_000)
"""What every browser plays; more would only make the page larger."""

_ABSENCES = {"silence": "silent", "delete": "cut out", "noise": "replaced by noise"}
_LONG = 40
"""Answers of more characters are set smaller."""


def page(explanation: Explanation) -> str:
    """Return the page of `explanation`; it plays nothing without the samples (see `Explanation.with_wave`)."""
    x = explanation
    folder = resources.files("sgpa_jax.report")
    template, style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    wave = None if x.wave is None else x.wave.at_rate(min(max(x.wave.rate_hz, _RATES_HZ[0]), _RATES_HZ[1]))
    measure, (less, more, _) = unit(x), direction(x)
    hint = "The recording is not part of this page, so nothing can be played."
    if wave:
        hint = f"Click a {'spoken ' if has_text(x) else ''}word to hear it." if heard(x) else ""
    pieces = {
        "kicker": f"{readable(os.path.basename(x.clip.path or 'recording'))} · {x.clip.duration_s:.2f} s · "
        f"answered by {readable(x.model['name'])}",
        "question": readable(x.question),
        "answer": readable(x.response),
        "long": " long" if len(x.response) > _LONG else "",
        "finding": finding(x),
        "hint": f"Colour shows what a word adds to the answer{f', in {measure}' if measure else ''}. {hint}".strip(),
        "legend": f"Colour scale: blue makes the answer {less}, orange {more}",
        "less": less,
        "more": more,
        "unit": f" in {measure}" if measure else "",
    }
    body = Template(template).substitute(
        {name: html.escape(text) for name, text in pieces.items()},
        notices=_notices(x),
        audio=_audio(wave),
        facts="\n".join(f"  <dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in _told(x)),
        data=_embedded(_data(x, wave)),
    )
    return document(title=f"{readable(x.response)} · {readable(x.question)}", style=style, body=body, script=script)


def write_page(explanation: Explanation, path: str | os.PathLike[str]) -> None:
    """Write `page` to `path`.

    Raises:
        UsageError: the file cannot be written.
    """
    atomic_write(path, page(explanation))


def notebook_frame(explanation: Explanation) -> str:
    """Return the page in a frame of its own, for notebooks: it neither sees nor styles what is around it."""
    document = html.escape(page(explanation))
    return (
        f'<iframe title="Explanation" srcdoc="{document}" sandbox="allow-scripts" '
        'style="width: 100%; height: 56rem; border: 0"></iframe>'
    )


def _told(explanation: Explanation) -> list[tuple[str, str]]:
    """Everything that was recorded, and what players are worth together."""
    together = (
        ("Groups", group_totals(explanation)),
        ("Together", strongest_interactions(explanation)),
        ("Concepts", concepts_in_words(explanation)),
    )
    return [*facts(explanation)[:1], *((name, text) for name, text in together if text), *facts(explanation)[1:]]


def _data(explanation: Explanation, wave: Clip | None) -> dict[str, Any]:
    x = explanation
    indices_p, indices_k = range(len(x.players)), range(len(x.outputs))
    limit = scale_limit(x.values)
    players = [
        {
            "label": player_name(x, p),
            "chip": short_name(x, p),
            "text": player.is_text,
            "when": span(x, p),
            "title": f"{player_name(x, p)}, {span(x, p)}" + _confidence(player.confidence),
            "start_s": player.start_s,
            "end_s": player.end_s,
        }
        | (_samples(*player.span_s, wave) if wave and not player.is_text else {})
        for p, player in enumerate(x.players)
    ]
    data = {
        "duration_s": x.clip.duration_s,
        "players": players,
        "outputs": [output_name(x, k) for k in indices_k],
        "values": x.values.tolist(),
        "errors": x.standard_errors.tolist(),
        "numbers": [[number(float(x.values[p, k]), limit) for k in indices_k] for p in indices_p],
        "texts": [[uncertain(x, p, k) for k in indices_k] for p in indices_p],
        "findings": [finding(x, k) for k in indices_k],
        "balances": [balance(x, k) for k in indices_k],
        "limit": limit,
        "reach": _reach(x),
        "ends": [number(-limit, limit), number(limit, limit)],
        "palette": {"light": _scale(LIGHT), "dark": _scale(DARK)},
    }
    return data | (_sound(x, wave) if wave else {})


def _sound(explanation: Explanation, wave: Clip) -> dict[str, Any]:
    level, _ = spectrogram(wave)
    absence = explanation.game["absence"]
    offered = [name for name in _ABSENCES if name != "noise" or absence == "noise"]
    noise = None
    if absence == "noise" and explanation.wave is not None:
        # Drawn at the rate of the game and resampled with the recording, so that it is the very noise the model heard.
        noise = _url(Clip(ambient_noise(explanation.wave), explanation.wave.rate_hz).at_rate(wave.rate_hz))
    return {
        "rate_hz": wave.rate_hz,
        "spectrogram": {"bins": level.shape[0], "frames": level.shape[1], "data": base64_of(level.tobytes())},
        "absence": absence if absence in offered else "silence",
        "absences": {name: _ABSENCES[name] + (" (as in the game)" if name == absence else "") for name in offered},
        "noise": noise,
    }


def _samples(start_s: float, end_s: float, wave: Clip) -> dict[str, int]:
    n_samples = wave.wave_s.size
    return {
        "first": min(max(round(start_s * wave.rate_hz), 0), n_samples - 1),
        "last": min(max(round(end_s * wave.rate_hz), 1), n_samples),
    }


def _confidence(confidence: float | None) -> str:
    return "" if confidence is None else f", alignment confidence {confidence:.2f}"


def _reach(explanation: Explanation) -> tuple[float, float]:
    low = min(float((explanation.values - explanation.standard_errors).min()), 0.0)
    high = max(float((explanation.values + explanation.standard_errors).max()), 0.0)
    return (low, high) if low < high else (-1.0, 1.0)


def _scale(paper: Paper) -> dict[str, list[str]]:
    shades = list(colours(paper))
    return {"colours": shades, "inks": [ink(shade) for shade in shades]}


def _notices(explanation: Explanation) -> str:
    lines = notices(explanation)
    if not lines:
        return ""
    kinds = ["first" if explanation.in_domain is False else "", *[""] * (len(lines) - 1)]
    paragraphs = [f'<p class="{kind}">{html.escape(line)}</p>' for kind, line in zip(kinds, lines, strict=True)]
    return f'<div class="notices" role="note">{"".join(paragraphs)}</div>'


def _audio(wave: Clip | None) -> str:
    return "" if wave is None else f'<audio id="recording" controls preload="none" src="{_url(wave)}"></audio>'


def _url(clip: Clip) -> str:
    return f"data:audio/wav;base64,{base64_of(wav_bytes(clip))}"


def _embedded(data: dict[str, Any]) -> str:
    # Inside of a script element only "<" could end or comment out what follows.
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
