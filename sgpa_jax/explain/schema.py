"""The file format of an explanation: JSON that names its schema, with every number finite, and read with suspicion.

A player of the kind "text" has times that are null and, alone, `tokens`: its half-open place in the prompt. Whatever is
wrong with a file ends in one `ExplanationError` that says where. Axes: `P` players, `K` outputs.
"""

import json
import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np

from sgpa_jax.errors import ExplanationError
from sgpa_jax.explain.source import ClipInfo, Transcript
from sgpa_jax.players import KINDS, Player

if TYPE_CHECKING:
    from sgpa_jax.explain.explanation import Explanation

SCHEMA = "sgpa-jax/explanation/1"
"""Name and major version of the format; readers refuse a newer one."""

_LARGEST = float(np.finfo(np.float32).max)
_DEEPEST = 8
_SLACK_S = 0.05
"""How far a player may run over the recording's ends, as aligners round their times."""


def to_json(explanation: "Explanation") -> str:
    """Return `explanation` as a JSON text; its samples are left out."""
    x = explanation
    players = [
        {
            "label": player.label,
            "kind": player.kind,
            "start_s": None if player.start_s is None else float(player.start_s),
            "end_s": None if player.end_s is None else float(player.end_s),
            "confidence": None if player.confidence is None else float(player.confidence),
            "boundary_refined": bool(player.boundary_refined),
            "value": float(x.values[i, 0]),
            "standard_error": float(x.standard_errors[i, 0]),
        }
        | ({} if player.tokens is None else {"tokens": [int(place) for place in player.tokens]})
        for i, player in enumerate(x.players)
    ]
    record = {
        "schema": SCHEMA,
        "clip": vars(x.clip),
        "transcript": vars(x.transcript),
        "messages": x.messages,
        "response": x.response,
        "in_domain": x.in_domain,
        "model": x.model,
        "aligner": x.aligner,
        "game": x.game,
        "estimand": x.estimand,
        "estimator": x.estimator,
        "engine": x.engine,
        "outputs": x.outputs,
        "values": x.values.tolist(),
        "standard_errors": x.standard_errors.tolist(),
        "players": players,
        "groups": x.groups,
        "interactions": x.interactions,
        "empty_value": x.empty_value.tolist(),
        "full_value": x.full_value.tolist(),
        "efficiency_gap": x.efficiency_gap.tolist(),
        "evaluations": x.evaluations,
        "timings": x.timings,
        "versions": x.versions,
        "warnings": x.warnings,
    } | ({} if x.concepts is None else {"concepts": x.concepts})
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(data: bytes | str, name: str) -> dict[str, Any]:
    """Return the fields of an `Explanation` from a JSON text.

    Args:
        data: what was read.
        name: what to call it in a complaint.

    Raises:
        ExplanationError: it is not JSON, not an explanation, of a newer schema, or not consistent.
    """
    try:
        record = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ExplanationError(
            f"{name} cannot be read as JSON ({str(error)[:120]}): expected a saved explanation; explain again"
        ) from error
    root = _Node(record, name, "")
    _check_schema(root["schema"].text(), name)
    fields = _fields(root)
    for p, node in enumerate(root["players"].items()):
        for key, array in (("value", "values"), ("standard_error", "standard_errors")):
            if node[key].number() != fields[array][p, 0]:
                raise node[key].error(f"what {array} says of that player")
    return fields


def _fields(root: "_Node") -> dict[str, Any]:
    clip = root["clip"]
    info = ClipInfo(
        clip["path"].maybe_text(), clip["sha256"].text(), clip["duration_s"].positive(), clip["rate_hz"].count()
    )
    outputs = [
        {"name": node["name"].text(), "kind": node["kind"].one_of("response", "token")}
        for node in root["outputs"].items(at_least=1)
    ]
    players = [_player(node, info.duration_s) for node in root["players"].items(at_least=1)]
    shape_pk = (len(players), len(outputs))
    return {
        "clip": info,
        "transcript": Transcript(root["transcript"]["text"].text(), root["transcript"]["source"].text()),
        "messages": [
            {"role": node["role"].text(), "content": node["content"].text()} for node in root["messages"].items()
        ],
        "response": root["response"].text(),
        "in_domain": root["in_domain"].maybe_flag(),
        "model": root["model"].record(texts=("name", "digest", "dtype")),
        "aligner": root["aligner"].record(texts=("name", "digest", "rules", "emission"))
        | {"notes": root["aligner"]["notes"].texts()},
        "game": root["game"].record(texts=("value", "absence")) | {"readout": root["game"]["readout"].value},
        "estimand": root["estimand"].text(),
        "estimator": root["estimator"].record(texts=("name",), integers=("budget", "seed")),
        "engine": root["engine"].text(),
        "outputs": outputs,
        "players": players,
        "values": root["values"].numbers(*shape_pk),
        "standard_errors": root["standard_errors"].numbers(*shape_pk),
        "empty_value": root["empty_value"].numbers(len(outputs)),
        "full_value": root["full_value"].numbers(len(outputs)),
        "efficiency_gap": root["efficiency_gap"].numbers(len(outputs)),
        "evaluations": root["evaluations"].record(integers=("requested", "unique", "model_forwards")),
        # Files of before there were groups have none.
        "groups": [node.integer() for node in root["groups"].items()] if "groups" in root.value else [],
        "interactions": [_interaction(node, len(outputs)) for node in root["interactions"].items()],
        "concepts": _concepts(root["concepts"], len(players)) if "concepts" in root.value else None,
        "timings": {key: root["timings"][key].number() for key in root["timings"].record()},
        "versions": {key: root["versions"][key].text() for key in root["versions"].record()},
        "warnings": root["warnings"].texts(),
    }


def _player(node: "_Node", duration_s: float) -> Player:
    kind = node["kind"].one_of(*KINDS)
    start_s = end_s = tokens = None
    if kind == "text":
        tokens = _tokens(node["tokens"])
        for edge in (node["start_s"], node["end_s"]):
            if edge.value is not None:
                raise edge.error("null, as text has no times")
    else:
        start_s, end_s = node["start_s"].number(), node["end_s"].number()
        if not -_SLACK_S <= start_s < end_s <= duration_s + _SLACK_S:
            raise node.error(f"a span within the recording's {duration_s:g} s")
    return Player(
        label=node["label"].text(),
        kind=kind,
        start_s=start_s,
        end_s=end_s,
        confidence=None if node["confidence"].value is None else node["confidence"].number(),
        boundary_refined=node["boundary_refined"].flag(),
        tokens=tokens,
    )


def _interaction(node: "_Node", n_outputs: int) -> dict[str, Any]:
    return {
        "index": node["index"].text(),
        "order": node["order"].count(),
        "players": [item.integer() for item in node["players"].items(at_least=1)],
        "values": node["values"].numbers(n_outputs).tolist(),
    }


def _concepts(node: "_Node", n_players: int) -> dict[str, Any]:
    texts, integers = ("positions", "reduce", "estimator"), ("after_layer", "latents", "considered")
    told = node.record(texts=texts, integers=integers)
    for entry in node["concepts"].items():
        entry["latent"].integer()
        entry["name"].maybe_text()
        for key in ("effect", "empty_value", "full_value"):
            entry[key].number()
        for key in ("values", "standard_errors"):
            entry[key].numbers(n_players)
        for key in ("carries", "carries_error"):
            if entry[key].value is not None:
                entry[key].number()
    return told


def _tokens(node: "_Node") -> tuple[int, int]:
    places = [item.integer() for item in node.items()]
    if len(places) != 2 or not 0 <= places[0] < places[1]:
        raise node.error("where the text begins and ends in the prompt")
    return places[0], places[1]


def _check_schema(schema: str, name: str) -> None:
    family, _, major = schema.rpartition("/")
    ours, _, newest = SCHEMA.rpartition("/")
    if family != ours or not (major.isascii() and major.isdigit()) or len(major) > 9 or int(major) < 1:
        raise ExplanationError(f"{name} is of the schema {schema[:80]!r}: expected {SCHEMA!r}; explain again")
    if int(major) > int(newest):
        raise ExplanationError(
            f"{name} is of the newer schema {schema!r}: this version reads up to {SCHEMA!r}; update sgpa-jax"
        )


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that JSON knows")


class _Node:
    """A JSON value and the place that it was found at, so that every complaint can name both."""

    def __init__(self, value: Any, file: str, place: str) -> None:
        self.value, self.file, self.place = value, file, place

    def error(self, expected: str) -> ExplanationError:
        what = f"as {self.place}" if self.place else "as a whole"
        return ExplanationError(
            f"{self.file} has {reprlib.repr(self.value)} {what}: expected {expected}; "
            "the file is damaged, explain again"
        )

    def __getitem__(self, key: str) -> "_Node":
        place = f"{self.place}.{key}" if self.place else key
        if not isinstance(self.value, dict):
            raise self.error("an object")
        if key not in self.value:
            raise ExplanationError(f"{self.file} has no {place}: expected a saved explanation; explain again")
        return _Node(self.value[key], self.file, place)

    def items(self, at_least: int = 0) -> "list[_Node]":
        if not isinstance(self.value, list) or len(self.value) < at_least:
            raise self.error(f"a list of at least {at_least}")
        return [_Node(item, self.file, f"{self.place}[{i}]") for i, item in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not _is_unicode(self.value):
            raise self.error("a text")
        return self.value

    def maybe_text(self) -> str | None:
        return None if self.value is None else self.text()

    def texts(self) -> list[str]:
        return [node.text() for node in self.items()]

    def one_of(self, *names: str) -> str:
        if self.text() not in names:
            raise self.error(" or ".join(names))
        return self.text()

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def maybe_flag(self) -> bool | None:
        return None if self.value is None else self.flag()

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not abs(self.value) <= _LARGEST:
            raise self.error("a finite number")
        return float(self.value)

    def positive(self) -> float:
        if not self.number() > 0:
            raise self.error("a positive number")
        return self.number()

    def integer(self) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or abs(self.value) >= 2**63:
            raise self.error("a whole number")
        return self.value

    def count(self) -> int:
        if self.integer() < 1:
            raise self.error("a whole number above zero")
        return self.integer()

    def numbers(self, *shape: int) -> np.ndarray:
        rows = self.items()
        if len(rows) != shape[0]:
            raise ExplanationError(
                f"{self.file} has {len(rows)} entries in {self.place}: expected {shape[0]}, as its players and outputs "
                "say; the file is damaged, explain again"
            )
        return np.array([row.numbers(*shape[1:]) if shape[1:] else row.number() for row in rows], np.float64)

    def record(self, texts: tuple[str, ...] = (), integers: tuple[str, ...] = ()) -> dict[str, Any]:
        if not isinstance(self.value, dict) or not _is_plain(self.value, _DEEPEST):
            raise self.error("an object of texts and finite numbers")
        for key in texts:
            self[key].text()
        for key in integers:
            self[key].integer()
        return self.value


def _is_unicode(text: str) -> bool:
    # JSON can hold half of a surrogate pair, which no file or page can.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_plain(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_unicode(key) and _is_plain(item, depth - 1) for key, item in value.items())
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, str):
        return _is_unicode(value)
    return value is None or abs(value) <= _LARGEST
