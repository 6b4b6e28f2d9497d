"""What a report says in words: the finding in one sentence, what was computed, and how surely.

The table, the picture and the page all take their sentences and their numbers from here, so that they never disagree.
Axes: `P` players, `K` outputs.
"""

import json
import math
from typing import Any

from sgpa_jax.explain import Explanation
from sgpa_jax.report.palette import scale_limit

_UNITS = {
    "logprob": "nats",
    "mean_logprob": "nats per token",
    "tfidf": "cosine similarity",
    "tfidf_per_phase": "cosine similarity",
    "response_embedding": "cosine similarity",
}
_VALUES = {
    "logprob": "the log-probability of the answer",
    "mean_logprob": "the mean log-probability of the answer's tokens",
    "tfidf": "the likeness of what is then answered to the answer, by its rare tokens",
    "tfidf_per_phase": "the likeness of what is then answered to the answer, by its rare tokens",
    "response_embedding": "the likeness of what is then answered to the answer, by its tokens' embeddings",
}
_ABSENCES = {
    "silence": "Its samples are zero; the recording keeps its length.",
    "noise": "Its samples are replaced by noise as loud as the recording's own background.",
    "delete": "Its samples are cut out and the rest is joined.",
    "mel_delete": "Its frames of the spectrogram are cut out and the rest is joined.",
    "embedding": "A baseline vector stands in its place at the decoder's input.",
    "attention": "The decoder does not look at its positions.",
    "drop": "Its positions are taken out of the decoder's input, and the others close up.",
    "drop_keep": "Its positions are taken out of the decoder's input, and the others keep theirs.",
}
_TEXT_ABSENCES = {
    "attention": "The decoder does not look at it.",
    "drop": "It is taken out of the prompt, and what follows closes up.",
    "drop_keep": "It is taken out of the prompt, and the rest keeps its positions.",
    "replace": "A neutral token stands in its place.",
}
OUT_OF_DOMAIN = (
    "The model was not made for speech or questions like these: "
    "don't read its answer, or the values below, as facts about the recording."
)


def number(value: float, limit: float) -> str:
    """Return `value` with its sign and with as many decimals as tell apart hundredths of `limit`."""
    return _minus(f"{value:+.{_decimals(limit)}f}" if limit < 1e9 else f"{value:+.2e}")


def uncertain(explanation: Explanation, p: int, k: int) -> str:
    """Return value and standard error of player `p` for output `k`: "+4.12 ± 0.03", or "+4.12" when exact."""
    limit = scale_limit(explanation.values)
    value = number(float(explanation.values[p, k]), limit)
    if explanation.is_exact:
        return value
    return f"{value} ± {number(float(explanation.standard_errors[p, k]), limit).lstrip('+')}"


def unit(explanation: Explanation) -> str:
    """Return what the values are measured in, "" for values of one's own."""
    return _UNITS.get(explanation.game["value"], "")


def readable(text: str) -> str:
    """Return `text` on one line, with everything that could steer a terminal or turn the line around made visible."""
    return "".join(character if character.isprintable() else "�" for character in " ".join(text.split()))


def player_name(explanation: Explanation, p: int) -> str:
    """Return the label of player `p`, marked when it is text, or an audio position of the decoder."""
    mark = {"text": "✎ ", "native": "position "}.get(explanation.players[p].kind, "")
    return f"{mark}{short_name(explanation, p)}"


def short_name(explanation: Explanation, p: int) -> str:
    """Return the same without what its place tells; sounds stay marked."""
    player = explanation.players[p]
    mark = "♪ " if player.kind == "sound" else ""
    return f"{mark}{readable(player.label) or '␣'}"


def output_name(explanation: Explanation, k: int) -> str:
    """Return what to call output `k`."""
    output = explanation.outputs[k]
    if output["kind"] == "response":
        return "whole answer"
    return readable(output["name"]) or "␣"


def span(explanation: Explanation, p: int) -> str:
    """Return when player `p` is heard."""
    player = explanation.players[p]
    return "in the prompt" if player.is_text else "{:.2f}–{:.2f} s".format(*player.span_s)


def heard(explanation: Explanation) -> list[int]:
    """Return the players that are stretches of the recording; all others are text."""
    return [p for p, player in enumerate(explanation.players) if not player.is_text]


def has_text(explanation: Explanation) -> bool:
    """Whether text of the prompt is among the players."""
    return len(heard(explanation)) < len(explanation.players)


def is_log_prob(explanation: Explanation) -> bool:
    """Whether the values are shares of a log-probability, and not of a likeness of what is answered."""
    return explanation.game["value"] in ("logprob", "mean_logprob")


def direction(explanation: Explanation) -> tuple[str, str, str]:
    """Return what a negative and what a positive share do to the answer, and the latter in one word."""
    if is_log_prob(explanation):
        return "less likely", "more likely", "likelier"
    return "farther from it", "nearer to it", "nearer"


def finding(explanation: Explanation, k: int = 0) -> str:
    """Return in one sentence who made output `k` likelier, and say so where the leaders can't be told apart."""
    answer = "the answer" if explanation.outputs[k]["kind"] == "response" else f"“{output_name(explanation, k)}”"
    values = [float(value) for value in explanation.values[:, k]]
    errors = [float(error) for error in explanation.standard_errors[:, k]]
    order = sorted(range(len(values)), key=lambda p: -values[p])
    first = order[0]
    if values[first] <= 0:
        where = "in the recording" if not has_text(explanation) else "among the players"
        return f"Nothing {where} made {answer} {direction(explanation)[2]}."
    measure = f" {unit(explanation)}".rstrip()
    effect = f"did most to make {answer} likely" if is_log_prob(explanation) else f"did most for {answer}"
    # Two standard errors of the difference: closer than that, the order of the two is a matter of chance.
    tied = [
        p
        for p in order
        if values[p] > 0
        and values[first] - values[p] <= max(2 * math.hypot(errors[first], errors[p]), 1e-3 * values[first])
    ]
    if len(tied) == 1:
        name = player_name(explanation, first)
        return f"“{name}” {effect}: {uncertain(explanation, first, k)}{measure}."
    names = _joined([f"“{player_name(explanation, p)}”" for p in tied])
    if explanation.is_exact:
        return f"{names} {effect}: {uncertain(explanation, first, k)}{measure} each."
    leader = f"“{player_name(explanation, first)}” has {uncertain(explanation, first, k)}{measure}"
    return f"{names} {effect}, too close to tell apart: {leader}."


def certainty(explanation: Explanation) -> str:
    """Return whether the values are exact or estimated, and from how much."""
    unique = explanation.evaluations["unique"]
    if explanation.is_exact:
        return (
            f"Exact: all {unique:,} coalitions of {len(explanation.players)} players were evaluated; no sampling error."
        )
    name, budget, seed = (explanation.estimator[key] for key in ("name", "budget", "seed"))
    told = (
        f"Estimated by {readable(name)} sampling from {unique:,} different coalitions "
        f"(budget {budget:,}, seed {seed}); ± is one standard error."
    )
    facts = explanation.estimator
    if "tolerance" in facts:
        met = "met" if facts["settled"] else "not met within the budget"
        told += f" The tolerance {readable(str(facts['tolerance']))} was {met}."
    if "control" in facts:
        told += (
            f" The cheap game {readable(str(facts['control']))}, known from {facts['control_evaluations']:,} "
            f"coalitions, cut the variance {facts['control_variance_reduction']:.1f} times."
        )
    return told


def estimand(explanation: Explanation) -> str:
    """Return what the values are, in words."""
    value = explanation.game["value"]
    of = _VALUES.get(value, f"the value “{readable(value)}”")
    come = "come in" if has_text(explanation) else "be heard"
    if explanation.estimand == "banzhaf":
        return f"Banzhaf values: what each player adds to {of}, averaged over all coalitions of the others."
    if explanation.estimand == "owen":
        return (
            f"Owen values: what each player adds to {of}, averaged over all orders in which they could {come} that "
            "keep groups together."
        )
    return f"Shapley values: what each player adds to {of}, averaged over all orders in which they could {come}."


def balance(explanation: Explanation, k: int = 0) -> str:
    """Return what output `k` is worth with everything absent and with everything there."""
    empty, full = float(explanation.empty_value[k]), float(explanation.full_value[k])
    limit = max(abs(empty), abs(full), 1e-3)
    return (
        f"{_minus(f'{empty:.{_decimals(limit)}f}')} with everything absent, "
        f"{_minus(f'{full:.{_decimals(limit)}f}')} with everything there: "
        f"{number(full - empty, limit)} {unit(explanation)}".rstrip()
        + f" to share among {len(explanation.players)} players."
    )


def facts(explanation: Explanation) -> list[tuple[str, str]]:
    """Return everything that was recorded about an explanation, as pairs of a heading and a sentence."""
    x = explanation
    counts = {key: x.evaluations[key] for key in ("requested", "unique", "model_forwards")}
    rows = [
        ("What", estimand(x)),
        ("How surely", certainty(x)),
        ("Empty and full value", balance(x)),
        ("Efficiency gap", f"{_minus(f'{x.efficiency_gap[0]:+.1e}')}: the values' sum less what there was to share."),
        (
            "Evaluations",
            f"{counts['requested']:,} requested, {counts['unique']:,} different, "
            f"{counts['model_forwards']:,} forward passes of the model.",
        ),
        ("An absent player", absence(x)),
        *([("Preset", _preset(x))] if "preset" in x.game else []),
        ("Model", f"{readable(x.model['name'])}, {readable(x.model['dtype'])}, digest {_short(x.model['digest'])}"),
        ("In its domain", {True: "Yes.", False: f"No. {OUT_OF_DOMAIN}", None: "The model can't tell."}[x.in_domain]),
        ("Alignment", " ".join([_aligner(x), *map(readable, x.aligner["notes"])])),
        ("Transcript", f"“{readable(x.transcript.text)}” ({readable(x.transcript.source)})."),
        ("Recording", f"{readable(x.clip.path or 'from memory')}, {x.clip.duration_s:.2f} s at {x.clip.rate_hz:,} Hz, "
         f"digest {_short(x.clip.sha256)}"),
        ("Engine", f"{readable(x.engine)}, readout {_readout(x)}."),
    ]  # fmt: skip
    if x.timings:
        rows.append(
            ("Took", ", ".join(f"{readable(name)} {seconds:.2f} s" for name, seconds in x.timings.items()) + ".")
        )
    if x.versions:
        rows.append(("Versions", ", ".join(readable(f"{name} {v}") for name, v in x.versions.items()) + "."))
    return rows


def absence(explanation: Explanation) -> str:
    """Return what was done to the recording, and to the prompt's text, where a player is absent."""
    game, told = explanation.game, []
    if heard(explanation):
        told.append(f"{readable(game['absence']).capitalize()}. {_ABSENCES.get(game['absence'], '')}".strip())
    if has_text(explanation):
        name = str(game.get("text_absence", ""))
        named = f"Text: {readable(name)}" if told else readable(name).capitalize()
        told.append(f"{named}. {_TEXT_ABSENCES.get(name, '')}".strip())
    return " ".join(told)


def notices(explanation: Explanation) -> list[str]:
    """Return what a reader must know before the values, most important first."""
    first = [OUT_OF_DOMAIN] if explanation.in_domain is False else []
    return first + [readable(warning) for warning in explanation.warnings]


def _preset(explanation: Explanation) -> str:
    """Name a preset and what it came to; of a file that somebody else wrote, whatever it says."""
    told = explanation.game["preset"]
    if not isinstance(told, dict):
        return f"{readable(str(told))}."
    name = readable(str(told.get("name", "")))
    options = [f"{key.replace('_', ' ')} {value}" for key, value in told.items() if key != "name" and value is not None]
    return f"{name}: {readable(', '.join(options))}."


def _aligner(explanation: Explanation) -> str:
    a: dict[str, Any] = explanation.aligner
    return f"{readable(a['name'])}, rules {readable(a['rules'])}, emissions {readable(a['emission'])}."


def _readout(explanation: Explanation) -> str:
    readout = explanation.game["readout"]
    return readable(readout if isinstance(readout, str) else json.dumps(readout, ensure_ascii=False))


def _decimals(limit: float) -> int:
    return min(max(2 - math.floor(math.log10(limit)), 0), 6) if limit < 10 else 1 if limit < 100 else 0


def _joined(names: list[str]) -> str:
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _short(digest: str) -> str:
    return f"{readable(digest)[:12]}…" if len(digest) > 12 else readable(digest)
