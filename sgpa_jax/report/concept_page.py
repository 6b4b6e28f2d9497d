"""Pages of concepts: for each its name and scores, its clips to listen to, and the words that fire it; and an index.

Axes: `T` audio positions.
"""

import html
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from sgpa_jax.audio import Clip, read_clip, wav_bytes
from sgpa_jax.errors import AudioError
from sgpa_jax.explain import Explanation
from sgpa_jax.files import atomic_write
from sgpa_jax.report.document import base64_of, document
from sgpa_jax.report.facts import number, player_name, readable
from sgpa_jax.report.palette import DARK, LIGHT

if TYPE_CHECKING:
    from sgpa_jax.concepts import Concept, ConceptBank, Representative

Timelines = Mapping[tuple[str, int], Float[np.ndarray, " T"]]
"""Activations over a clip, by the clip's id and the latent."""

_MOST_RATE_HZ = 16_000
_MOST_WORDS = 12
_WIDTH, _HEIGHT = 1000, 100
_SOUND_POINTS = 250


class FiringWord(NamedTuple):
    """A player that fires a concept in an explanation: its label, its share, and of what question and answer."""

    label: str
    value: float
    where: str


def write_concept_pages(
    bank: "ConceptBank",
    folder: str | os.PathLike[str],
    timelines: Timelines,
    *,
    explanations: Sequence[Explanation] = (),
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a page for each of a bank's first concepts, and then `index.html`; return all paths, the index first.

    Args:
        bank: the concepts.
        folder: where the pages go.
        timelines: of the clips of these concepts; a clip without one has no chart.
        explanations: in which `concepts` say which words fire them.
        limit: how many pages; None: all.
        progress: called with (pages done, pages in all).

    Raises:
        UsageError: the folder cannot be written to.
    """
    folder, shown = Path(folder), bank.concepts[:limit]
    heard: dict[Path, Clip | None] = {}
    for place, concept in enumerate(shown):
        words = firing_words(concept.latent, explanations)
        atomic_write(folder / file_name(concept), concept_page(bank, concept, timelines, words=words, heard=heard))
        if progress is not None:
            progress(place + 1, len(shown))
    atomic_write(folder / "index.html", concept_index(bank, shown))
    return [folder / "index.html", *(folder / file_name(concept) for concept in shown)]


def concept_page(
    bank: "ConceptBank",
    concept: "Concept",
    timelines: Timelines,
    *,
    words: Sequence[FiringWord] = (),
    heard: dict[Path, Clip | None] | None = None,
) -> str:
    """Return the page of one concept; recordings that are not where they were are told of, and nothing plays.

    `heard` keeps what was read from one page to the next.
    """
    heard = {} if heard is None else heard
    peak = max((float(timelines[key].max()) for key in _keys(concept) if key in timelines), default=0.0) or 1.0
    n = len(concept.top)
    sections = [
        _clips("Most representative", concept, concept.top, timelines, peak, heard, 0),
        _clips("Least representative", concept, concept.bottom, timelines, peak, heard, n),
        _words(words),
        _facts(bank, concept),
    ]
    place = bank.latents.index(concept.latent) + 1
    return _page(
        title=f"{_name(concept)} · latent {concept.latent}",
        kicker=f'<a href="index.html">Concept {place:,} of {len(bank):,}</a> · latent {concept.latent} · after layer '
        f"{bank.sae['layer']} of {html.escape(readable(str(bank.model['name'])))}",
        heading=_name(concept),
        finding=_finding(concept),
        sections=sections,
    )


def concept_index(bank: "ConceptBank", shown: "Sequence[Concept]") -> str:
    """Return the page that links to those of concepts."""
    rows = []
    for concept in shown:
        about = [f"latent {concept.latent}"]
        for name, value in (("monosemanticity", concept.monosemanticity), ("detection", concept.detection)):
            about += [] if value is None else [f"{name} {value:.2f}"]
        rows.append(
            f'<li><a href="{file_name(concept)}"><span class="label">{html.escape(_name(concept))}</span>'
            f'<span class="quiet">{html.escape(" · ".join(about))}</span></a></li>'
        )
    n_named = sum(concept.name is not None for concept in bank.concepts)
    model = readable(str(bank.model["name"]))
    return _page(
        title=f"Concepts of {model}",
        kicker=html.escape(f"after layer {bank.sae['layer']} of {model}"),
        heading="Concepts",
        finding=f"{len(bank):,} of {bank.sae['n_latents']:,} latents, {n_named:,} with a name"
        + (f"; the first {len(shown):,} have a page." if len(shown) < len(bank) else "."),
        sections=[f'<ul class="index">{"".join(rows)}</ul>'],
    )


def file_name(concept: "Concept") -> str:
    """Return what the page of a concept is called."""
    return f"latent-{concept.latent:06d}.html"


def firing_words(latent: int, explanations: Sequence[Explanation]) -> list[FiringWord]:
    """Return the players that fire a latent in explanations, strongest first."""
    found = []
    for x in explanations:
        for entry in () if x.concepts is None else x.concepts["concepts"]:
            if entry["latent"] != latent:
                continue
            where = f"{readable(x.question)} → {readable(x.response)}".strip()
            words = [(player_name(x, p), float(value)) for p, value in enumerate(entry["values"])]
            found += [FiringWord(label, value, where) for label, value in words if value > 0]
    return sorted(found, key=lambda word: -word.value)[:_MOST_WORDS]


def _page(*, title: str, kicker: str, heading: str, finding: str, sections: Sequence[str]) -> str:
    """`kicker` and `sections` are HTML, all else is text."""
    folder = resources.files("sgpa_jax.report")
    template, style, script = (folder.joinpath(f"concept.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    style = Template(style).substitute(light=LIGHT.positive, dark=DARK.positive)
    texts = {name: html.escape(text) for name, text in (("heading", heading), ("finding", finding))}
    body = Template(template).substitute(texts, kicker=kicker, sections="\n".join(sections))
    return document(title=title, style=style, body=body, script=script)


def _keys(concept: "Concept") -> list[tuple[str, int]]:
    return [(clip.id, concept.latent) for clip in (*concept.top, *concept.bottom)]


def _name(concept: "Concept") -> str:
    return readable(concept.name) if concept.name else f"Latent {concept.latent}"


def _finding(concept: "Concept") -> str:
    parts = [] if concept.name else ["Nobody has named it."]
    if concept.n_firing is not None and concept.density is not None:
        clips = "clip" if concept.n_firing == 1 else "clips"
        parts.append(f"It fires in {concept.n_firing:,} {clips}, at {_share(concept.density)} of all audio positions.")
    return " ".join(parts)


def _share(value: float) -> str:
    return f"{value:.1%}" if value >= 0.001 else f"{value:.2g}"


def _clips(
    title: str, concept: "Concept", clips: "Sequence[Representative]", timelines: Timelines, peak: float,
    heard: dict[Path, Clip | None], first: int,
) -> str:  # fmt: skip
    if not clips:
        return ""
    captions = concept.captions if first == 0 else ()
    figures = []
    for place, clip in enumerate(clips):
        activation_t, wave = timelines.get((clip.id, concept.latent)), _heard(clip.path, heard)
        caption = readable(captions[place]) if place < len(captions) else ""
        chart = _chart(clip, activation_t, wave, peak)
        audio = '<p class="quiet">The recording is not where it was.</p>'
        if wave is not None:
            audio = f'<audio controls preload="none" src="data:audio/wav;base64,{base64_of(wav_bytes(wave))}"></audio>'
        figures.append(
            f'<figure class="clip" data-place="{first + place}" data-seconds="{clip.seconds:.4f}">'
            f"<figcaption><b>{html.escape(readable(clip.id))}</b>"
            f'<span class="quiet">{clip.seconds:.1f} s · score {clip.score:.3g}</span></figcaption>'
            + (f'<p class="caption">{html.escape(caption)}</p>' if caption else "")
            + f"{chart}{audio}</figure>"
        )
    note = "Grey is the sound, orange how strongly the concept fires, on one scale for all clips."
    return (
        f'<section><h2>{title}</h2><p class="quiet">{note if first == 0 else ""}</p>'
        f'<div class="clips">{"".join(figures)}</div></section>'
    )


def _heard(path: Path | None, heard: dict[Path, Clip | None]) -> Clip | None:
    """A recording at a rate that pages can afford; None where it cannot be read any more."""
    if path is None:
        return None
    if path not in heard:
        try:
            clip = read_clip(path)
        except AudioError:
            clip = None
        heard[path] = None if clip is None else clip.at_rate(min(clip.rate_hz, _MOST_RATE_HZ))
    return heard[path]


def _chart(clip: "Representative", activation_t: Float[np.ndarray, " T"] | None, wave: Clip | None, peak: float) -> str:
    told, paths = "no activation is known", ""
    if wave is not None:
        parts = np.array_split(np.abs(wave.wave_s), min(_SOUND_POINTS, len(wave.wave_s)))
        level = np.array([part.max() for part in parts])
        level = level / (float(level.max()) or 1.0)
        x = (np.arange(len(level)) + 0.5) * _WIDTH / len(level)
        upper = [f"{at:.1f},{_HEIGHT / 2 - _HEIGHT / 2 * value:.1f}" for at, value in zip(x, level, strict=True)]
        lower = [f"{at:.1f},{_HEIGHT / 2 + _HEIGHT / 2 * value:.1f}" for at, value in zip(x, level, strict=True)]
        paths += f'<polygon class="sound" points="{" ".join([*upper, *reversed(lower)])}"/>'
    if activation_t is not None and len(activation_t):
        step, most = _WIDTH / len(activation_t), int(np.argmax(activation_t))
        steps = "".join(
            f"L{t * step:.1f},{_HEIGHT * (1 - value / peak):.1f}H{(t + 1) * step:.1f}"
            for t, value in enumerate(activation_t)
        )
        paths += f'<path class="activation" d="M0,{_HEIGHT}{steps}V{_HEIGHT}Z"/>'
        told = "silent throughout"
        if activation_t[most] > 0:
            told = f"strongest, {activation_t[most]:.3g}, at {(most + 0.5) * clip.seconds / len(activation_t):.1f} s"
    drawn = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{paths}</svg>'
        '<span class="cursor" hidden></span>'
    )
    label = html.escape(f"{readable(clip.id)}: {told}")
    if wave is None:
        return f'<div class="chart" role="img" aria-label="{label}">{drawn}</div>'
    return f'<button type="button" class="chart" aria-label="Play {label}">{drawn}</button>'


def _words(words: Sequence[FiringWord]) -> str:
    if not words:
        return ""
    limit = words[0].value
    places = {word.where for word in words}
    told = "Shapley values of its activation, summed over the recording"
    told = html.escape(f"{told}: {places.pop()}" if len(places) == 1 else f"{told}.")
    rows = [
        f'<li><span class="label">{html.escape(word.label)}</span>'
        f'<span class="amount">{html.escape(number(word.value, limit))}</span>'
        f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="bar" width="{100 * word.value / limit:.1f}" height="10"/></svg>'
        + (f'<span class="where">{html.escape(word.where)}</span></li>' if places else "</li>")
        for word in words
    ]
    return (
        "<section><h2>Words that fire it</h2>"
        f'<p class="quiet">{told}</p><ul class="rows">{"".join(rows)}</ul></section>'
    )


def _facts(bank: "ConceptBank", concept: "Concept") -> str:
    scores = [
        ("Monosemanticity", concept.monosemanticity, "of its clips, by their embeddings"),
        ("… held out", concept.held_out, "of clips that it was not chosen by"),
        ("… over all clips", concept.pach, "pairs weighted by their scores"),
        ("Detection", concept.detection, "area under the curve of telling firing clips by the name; 0.5 by chance"),
        ("Confidence", concept.confidence, "of the name"),
        ("Mean activation", concept.mean, "of its most representative clips"),
        ("Coverage", concept.coverage, "share of these at which it fires"),
        ("Overlap", concept.overlap, "of the most representative clips by either half of the positions"),
    ]
    rows = [(name, f"{value:.3g}, {about}") for name, value, about in scores if value is not None]
    rows += [
        (name, readable(str(bank.facts[key])))
        for name, key in (("Embedder", "embedder"), ("Namer", "namer"), ("Clips", "clips"), ("Seed", "seed"))
        if bank.facts.get(key) is not None
    ]
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in rows)
    return f"<section><h2>Scores, and how it was found</h2><dl>{listed}</dl></section>"
