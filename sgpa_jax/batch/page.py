"""The page of a data set: what its words weigh, how surely that is known, what failed, and which items to look at.

Every page is one HTML file that opens from disk, asks no network, runs no script and trusts no text; the pages of items
are those of `report`, made for the items that it names alone.
"""

import hashlib
import html
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from sgpa_jax.audio import Clip
from sgpa_jax.batch.charts import charts
from sgpa_jax.batch.survey import Noted, Survey, Word, survey
from sgpa_jax.batch.tables import read_table
from sgpa_jax.errors import SgpaError
from sgpa_jax.explain import Explanation
from sgpa_jax.files import atomic_write
from sgpa_jax.report import DARK, LIGHT, document, number, readable, unit
from sgpa_jax.report import write_page as write_item_page

_WORDS = 25
_REASONS = 20
_LONGEST, _LONGEST_FACT = 300, 2000
_TOLD = ("schema", "items")
_OUTLIERS = {
    "gap": ("Largest efficiency gap", "The values' sum is farthest from what there was to share."),
    "error": ("Largest standard error", "Of one player's value, which is told beside it."),
    "confidence": ("Least confident word", "Its place in the recording may be wrong."),
    "outside": ("Out of domain", "The model was not made for speech or questions like these."),
}


def write_page(out: Path, *, clip_of: Callable[[str], Clip] | None = None) -> Path:
    """Write `OUT/index.html` and the pages of the items that it links to, and return its path.

    Args:
        out: the data set's folder.
        clip_of: gives the recording of an item by its id; None: what the file is that it was read from.

    Raises:
        UsageError: the folder holds no data set, a part of it is damaged, or it cannot be written to.
    """
    found = survey(out)
    measure = _write_items(Path(out), found, clip_of)
    path = Path(out) / "index.html"
    atomic_write(path, page(found, name=Path(out).resolve().name, measure=measure))
    return path


def page(found: Survey, *, name: str, measure: str) -> str:
    """Return the page of what was gathered.

    Args:
        found: from `survey`.
        name: of the data set.
        measure: the unit of its values, "" for values of one's own.
    """
    folder = resources.files("sgpa_jax.batch")
    template, style = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css"))
    style = Template(style).substitute(
        light_more=LIGHT.positive, light_less=LIGHT.negative, dark_more=DARK.positive, dark_less=DARK.negative
    )
    of_all = f" of {found.n_items:,}" if found.n_failed else ""
    pieces = {
        "kicker": " · ".join([readable(name), *(readable(model) for model in found.models)]),
        "heading": f"{found.n_explained:,}{of_all} {_plural(found.n_items, 'item')} explained",
        "finding": _finding(found),
    }
    sections = (
        _words(found, measure), charts(found), _worth_a_look(found), _failures(found), _facts(found),
    )  # fmt: skip
    body = Template(template).substitute(
        {name: html.escape(text) for name, text in pieces.items()},
        notices=_notices(found),
        sections="\n".join(section for section in sections if section),
    )
    return document(title=f"{readable(name)} · {found.n_items:,} items", style=style, body=body)


def page_name(id: str) -> str:
    """Return what the page of an item is called: its id as far as any file system takes that, and a digest of it."""
    plain = re.sub(r"[^a-z0-9]+", "-", id[:60].lower()).strip("-")
    known_by = hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{plain}-{known_by}.html".lstrip("-")


def _write_items(out: Path, found: Survey, clip_of: Callable[[str], Clip] | None) -> str:
    """Write the pages of all items worth a look; return the unit of their values."""
    measure, by_bundle = "", {}
    for noted in found.noted():
        by_bundle.setdefault(noted.bundle, set()).add(noted.id)
    for bundle, ids in sorted(by_bundle.items()):
        for row in read_table(out, "items", bundle, ["id", "explanation"]).to_pylist():
            if row["id"] in ids:
                x = Explanation.from_json(row["explanation"], f"the explanation of {row['id']!r}")
                measure = unit(x)
                write_item_page(_with_recording(x, row["id"], clip_of), out / "pages" / page_name(row["id"]))
    return measure


def _with_recording(explanation: Explanation, id: str, clip_of: Callable[[str], Clip] | None) -> Explanation:
    """The explanation with its recording; where that is not to be had any more, its page says so."""
    try:
        return explanation.with_wave(None if clip_of is None else clip_of(id))
    except SgpaError:
        return explanation


def _finding(found: Survey) -> str:
    if not found.methods:
        return "Nothing was explained."
    by_estimand: dict[str, list[str]] = {}
    for (estimand, estimator), n in found.methods.most_common():
        by_estimand.setdefault(estimand, []).append(f"{estimator} for {n:,} {_plural(n, 'item')}")
    values = "; ".join(f"{name.capitalize()} values ({', '.join(how)})" for name, how in by_estimand.items())
    return f"{readable(values)}, from {found.coalitions:,} coalitions{_rate(found)}."


def _rate(found: Survey) -> str:
    # What is estimated again asks no model: its seconds are of another work than its coalitions.
    if found.seconds <= 0 or found.run.get("refolded"):
        return ""
    return f" in {_duration(found.seconds)}: {found.coalitions / found.seconds:,.0f} a second"


def _notices(found: Survey) -> str:
    n_missing = max(found.run["bundles"] - found.n_bundles, 0)
    lines = []
    if n_missing:
        lines.append(f"{n_missing:,} of {found.run['bundles']:,} bundles are missing: this is a part of the data set.")
    if found.n_outside:
        lines.append(
            f"{found.n_outside:,} {_plural(found.n_outside, 'item')} out of the model's domain: don't read its answers "
            "to them, or their values, as facts about the recordings."
        )
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f'<div class="notices" role="note">{paragraphs}</div>' if lines else ""


def _words(found: Survey, measure: str) -> str:
    least, words = found.top_words(_WORDS)
    if not words:
        return ""
    limit = words[0][1].mean_size or 1.0
    told = (
        f"Mean size of a word's value{f', in {measure}' if measure else ''}, wherever it is said"
        + (f", of words that are said at least {least} times" if least > 1 else "")
        + ". A bar shows how much of that makes answers more likely, and how much less."
    )
    rows = "\n".join(_word(label, word, limit) for label, word in words)
    key = "".join(
        f'<span><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{name}" width="10" height="10"/></svg>'
        f"{name} likely</span>"
        for name in ("more", "less")
    )
    return (
        f'<section><h2>Words that weigh most</h2><p class="quiet">{html.escape(told)}</p><div class="key">{key}</div>'
        f'<ul class="rows">{rows}</ul></section>'
    )


def _word(label: str, word: Word, limit: float) -> str:
    more, less = (100 * abs(part) / word.n / limit for part in (word.more, word.less))
    return (
        f'<li><span class="label">{html.escape(readable(label) or "␣")}</span>'
        f'<span class="amount">{html.escape(number(word.mean_size, limit).lstrip("+"))}</span>'
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="more" width="{more:.2f}" height="10"/>'
        f'<rect class="less" x="{more:.2f}" width="{less:.2f}" height="10"/></svg>'
        f'<span class="count">n = {word.n:,}</span></li>'
    )


def _worth_a_look(found: Survey) -> str:
    lists = [(*_OUTLIERS[what], found.outliers[what]) for what in _OUTLIERS if found.outliers.get(what)]
    lists.append(("From all over the data set", "Items that are outliers in nothing in particular.", found.examples))
    parts = "".join(
        f'<h3>{title}</h3><p class="quiet">{about}</p><ul class="index">{"".join(map(_link, items))}</ul>'
        for title, about, items in lists
        if items
    )
    return f"<section><h2>Items to look at and listen to</h2>{parts}</section>" if parts else ""


def _link(noted: Noted) -> str:
    words = _short(noted.transcript) or readable(noted.id)
    return (
        f'<li><a href="pages/{page_name(noted.id)}"><span><span class="label">{html.escape(words)}</span> '
        f'<span class="answer">→ {html.escape(_short(noted.response))}</span></span>'
        f'<span class="told">{html.escape(readable(noted.told))}</span>'
        f'<span class="id quiet">{html.escape(_short(noted.id))}</span></a></li>'
    )


def _failures(found: Survey) -> str:
    if not found.n_failed:
        return ""
    often = sorted(found.reasons.values(), key=lambda entry: (-entry[0], entry[1]))
    n_told = sum(n for n, _, _ in often[:_REASONS])
    rest = f" {found.n_failed - n_told:,} more failed for other reasons." if n_told < found.n_failed else ""
    rows = "".join(
        f"<dt>{n:,} {_plural(n, 'item')}</dt><dd>{html.escape(_short(sentence))}<br>"
        f'<span class="quiet">first: {html.escape(_short(id))}</span></dd>'
        for n, id, sentence in often[:_REASONS]
    )
    return (
        '<section><h2>What failed, and why</h2><p class="quiet">One sentence stands for all that differ from it in '
        f"names and numbers alone.{rest}</p><dl>{rows}</dl></section>"
    )


def _facts(found: Survey) -> str:
    n_players = sum(n * items for n, items in found.players.items())
    rows = [
        ("Items", f"{found.n_items:,}, of which {found.n_failed:,} failed"),
        ("Players", f"{n_players:,}"),
        ("Speech", _duration(found.duration_s)),
        ("Largest efficiency gap", f"{found.largest_gap:.2g}"),
        ("Evaluations", f"{found.coalitions:,} different coalitions, {found.model_forwards:,} forward passes"),
        ("Took", f"{_duration(found.seconds)}, summed over items"),
        ("Values", _counted(found.values)),
        ("Models", _counted(found.models)),
        *(
            (name.replace("_", " ").capitalize(), _plain(value))
            for name, value in found.run.items()
            if name not in _TOLD
        ),
    ]
    told = "".join(
        f"<dt>{html.escape(readable(name))}</dt><dd>{html.escape(readable(text)[:_LONGEST_FACT])}</dd>"
        for name, text in rows
    )
    return f"<section><h2>What all of this was made from</h2><dl>{told}</dl></section>"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    told = str(value)
    return f"{told[:12]}…" if re.fullmatch("[0-9a-f]{40,}", told) else told


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({n:,})" for name, n in counts.items())


def _short(text: str) -> str:
    told = readable(text)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"


def _plural(n: int, noun: str) -> str:
    return noun if n == 1 else f"{noun}s"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
