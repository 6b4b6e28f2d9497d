"""The file format: what is written is read back, and nothing else is."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sgpa_jax.errors import ExplanationError
from sgpa_jax.explain import SCHEMA, Explanation

Make = Callable[..., Explanation]

PROMISED = {
    "schema", "clip", "transcript", "messages", "response", "in_domain", "model", "aligner", "game", "estimand",
    "estimator", "engine", "outputs", "values", "standard_errors", "players", "groups", "interactions", "empty_value",
    "full_value", "efficiency_gap", "evaluations", "timings", "versions", "warnings",
}  # fmt: skip
PLAYER = {"label", "kind", "start_s", "end_s", "confidence", "boundary_refined", "value", "standard_error"}

TOGETHER = {"index": "k-SII", "order": 2, "players": [0, 1], "values": [0.25, -0.5]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(path: Path, text: str | bytes) -> Explanation:
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return Explanation.load(path)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[place for key, item in inner for place in places(item, (*path, key))]]


def test_what_is_saved_is_loaded(make_explanation: Make, tmp_path: Path) -> None:
    x = make_explanation(estimand="owen", groups=(0, 1), interactions=(TOGETHER,))
    x.save(tmp_path / "x.json")
    y = Explanation.load(tmp_path / "x.json")
    assert y.to_json() == x.to_json()
    assert y.players == x.players
    assert y.wave is None
    np.testing.assert_array_equal(y.values, x.values)
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": (0,)},
        {"interactions": (TOGETHER | {"players": [0, 2]},)},
        {"interactions": (TOGETHER | {"values": [1.0]},)},
    ],
)
def test_groups_and_interactions_of_others_are_refused(make_explanation: Make, changes: dict[str, Any]) -> None:
    with pytest.raises(ExplanationError, match=r"groups|interactions"):
        make_explanation(**changes)


def test_files_of_before_there_were_groups(make_explanation: Make, tmp_path: Path) -> None:
    record = json.loads(make_explanation().to_json())
    del record["groups"]
    assert load(tmp_path / "x.json", json.dumps(record)).groups == ()


@quick
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4), st.text(), st.text()
)
def test_numbers_and_texts_survive(
    make_explanation: Make, tmp_path: Path, numbers: list[float], response: str, warning: str
) -> None:
    x = make_explanation(values=np.array(numbers).reshape(2, 2), response=response, warnings=(warning,))
    y = load(tmp_path / "x.json", x.to_json())
    np.testing.assert_array_equal(y.values, x.values)
    assert (y.response, y.warnings) == (response, (warning,))


def test_everything_promised_is_there(make_explanation: Make) -> None:
    record = json.loads(make_explanation().to_json())
    assert set(record) == PROMISED
    assert record["schema"] == SCHEMA == "sgpa-jax/explanation/1"
    assert set(record["clip"]) == {"path", "sha256", "duration_s", "rate_hz"}
    assert all(set(player) == PLAYER for player in record["players"])
    assert [player["value"] for player in record["players"]] == [1.5, -0.5]
    assert record["values"] == [[1.5, 1.25], [-0.5, 0.1]]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("sgpa-jax/explanation/2", "newer schema"),
        ("sgpa-jax/explanation/10", "newer schema"),
        ("sgpa-jax/explanation/0", "of the schema"),
        ("sgpa-jax/explanation/one", "of the schema"),
        ("sgpa-jax/explanation/²", "of the schema"),
        ("somebody/else/1", "of the schema"),
        ("", "of the schema"),
        (1, "expected a text"),
    ],
)
def test_other_schemas_are_refused(make_explanation: Make, tmp_path: Path, schema: Any, reason: str) -> None:
    record = json.loads(make_explanation().to_json()) | {"schema": schema}
    with pytest.raises(ExplanationError, match=reason):
        load(tmp_path / "x.json", json.dumps(record))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("values", 0, 0), float("nan")),
        (("values", 0, 0), 1e300),
        (("values", 0, 0), 10**400),
        (("values", 0, 0), True),
        (("values", 0, 0), 1.4),
        (("values", 0), [1.0]),
        (("players",), []),
        (("players", 0, "start_s"), 0.3),
        (("players", 0, "end_s"), 9.0),
        (("players", 0, "kind"), "ghost"),
        (("players", 0, "value"), 0.0),
        (("outputs", 1, "kind"), "player"),
        (("empty_value",), [0.0]),
        (("clip", "rate_hz"), 0),
        (("clip", "duration_s"), 0),
        (("response",), "half of a pair: \ud800"),
        (("game",), {"value": "logprob", "absence": "silence"}),
        (("game", "level"), [[[[[[[[[]]]]]]]]]),
        (("estimator", "budget"), 2.5),
        (("aligner", "notes"), "one"),
        (("messages",), {}),
        (("in_domain",), 1),
    ],
)
def test_wrong_values_are_named(make_explanation: Make, tmp_path: Path, place: tuple, value: Any) -> None:
    record = json.loads(make_explanation().to_json())
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ExplanationError) as caught:
        load(tmp_path / "x.json", json.dumps(record))
    message = str(caught.value)
    assert "expected" in message
    assert "\n" not in message
    message.encode("utf-8")


@quick
@given(data=st.data(), value=json_values)
def test_any_other_value_anywhere_is_an_explanation_or_refused(
    make_explanation: Make, tmp_path: Path, data: st.DataObject, value: Any
) -> None:
    record = json.loads(make_explanation().to_json())
    place = data.draw(st.sampled_from(places(record)[1:]))
    inner: Any = record
    for key in place[:-1]:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[place[-1]] = copy.deepcopy(value)
    else:
        del inner[place[-1]]
    try:
        x = load(tmp_path / "x.json", json.dumps(record))
    except ExplanationError as error:
        str(error).encode("utf-8")
    else:
        # What is taken can be shown and saved.
        x.summary().encode("utf-8")
        x.to_html(tmp_path / "x.html")
        x.save(tmp_path / "y.json")


@quick
@given(st.binary(max_size=200))
@example(b"")
@example(b"null")
@example(b"[" * 100_000)
@example(b"9" * 5000)
@example(b'{"schema": "sgpa-jax/explanation/1"}')
@example(b"\xff\xfe\x00")
def test_arbitrary_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ExplanationError):
        load(tmp_path / "x.json", data)


def test_truncated_files_are_refused(make_explanation: Make, tmp_path: Path) -> None:
    text = make_explanation().to_json()
    for length in range(0, len(text) - 2, 97):
        with pytest.raises(ExplanationError):
            load(tmp_path / "x.json", text[:length])


@pytest.mark.parametrize("path", ["missing.json", ".", "nul\0l.json"])
def test_files_that_cannot_be_opened_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ExplanationError, match="cannot open"):
        Explanation.load(f"{tmp_path}/{path}")
