"""Rules: every kind there and back, every problem told at once, and nothing held in memory that need not be."""

import numpy as np
import pytest
from sgpa_checkpoints import (
    Axes,
    Conv,
    Conv2d,
    Depthwise,
    Depthwise2d,
    Fold,
    FormatError,
    Ignore,
    Rule,
    Same,
    Split,
    Tied,
    Transpose,
    check,
    convert,
    export,
)


class WeightNorm:
    """A weight from its length and its direction."""

    def forward(self, *arrays):
        length, direction = arrays
        if length.shape != direction.shape[:1]:
            raise ValueError("one length a row was expected")
        return length[:, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)

    def inverse(self, array):
        length = np.linalg.norm(array, axis=1)
        return length, array


RULES = (
    Rule("embed.weight", "embedding.table"),
    Rule("layers.{i}.conv.weight", "layers.{i}.conv.kernel", Conv),
    Split("layers.{i}.qkv.weight", tuple(f"layers.{{i}}.{name}.kernel" for name in ("query", "key")), Transpose),
    Fold(("norm.g", "norm.v"), "norm.kernel", WeightNorm()),
    Tied("head.weight", "embed.weight"),
    Ignore("layers.{i}.n_batches", "a counter of training"),
)
SHAPES = {
    "embedding.table": (7, 4),
    **{f"layers.{i}.conv.kernel": (3, 4, 5) for i in range(2)},
    **{f"layers.{i}.query.kernel": (4, 6) for i in range(2)},
    **{f"layers.{i}.key.kernel": (4, 2) for i in range(2)},
    "norm.kernel": (3, 4),
}


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    embed = normal(7, 4)
    return {
        "norm.v": normal(3, 4),
        **{f"layers.{i}.conv.weight": normal(5, 4, 3) for i in range(2)},
        **{f"layers.{i}.qkv.weight": normal(8, 4) for i in range(2)},
        **{f"layers.{i}.n_batches": np.array(5) for i in range(2)},
        "norm.g": np.abs(normal(3)),
        "embed.weight": embed,
        "head.weight": embed.copy(),
    }


def _problems(tensors, rules=RULES, shapes=SHAPES, **options):
    with pytest.raises(FormatError) as caught:
        next(convert(tensors.items(), rules, shapes, **options))
    return str(caught.value)


def test_every_kind_of_rule_there_and_back(tensors):
    found = dict(convert(tensors.items(), RULES, SHAPES))
    assert {path: array.shape for path, array in found.items()} == SHAPES
    np.testing.assert_array_equal(found["layers.1.query.kernel"], tensors["layers.1.qkv.weight"][:6].T)
    np.testing.assert_array_equal(found["layers.1.key.kernel"], tensors["layers.1.qkv.weight"][6:].T)
    np.testing.assert_allclose(np.linalg.norm(found["norm.kernel"], axis=1), tensors["norm.g"], rtol=1e-6)
    back = export(found, RULES)
    expected = {name: array for name, array in tensors.items() if not name.endswith("n_batches")}
    assert back.keys() == expected.keys()
    for name in set(back) - {"norm.g", "norm.v"}:
        np.testing.assert_array_equal(back[name], expected[name])
    again = dict(convert(back.items(), RULES, SHAPES))
    for path, array in found.items():
        np.testing.assert_allclose(again[path], array, rtol=1e-6)


@pytest.mark.parametrize(
    ("transform", "shape", "expected"),
    [
        (Same, (2, 3), (2, 3)),
        (Transpose, (2, 3), (3, 2)),
        (Conv, (2, 3, 5), (5, 3, 2)),
        (Conv2d, (2, 3, 5, 7), (5, 7, 3, 2)),
        (Depthwise, (2, 1, 5), (5, 2)),
        (Depthwise2d, (2, 1, 5, 7), (5, 7, 2)),
    ],
)
def test_transforms_are_views_with_an_inverse(transform, shape, expected):
    array = np.random.default_rng(0).normal(size=shape)
    forward = transform.forward(array)
    assert forward.shape == expected
    assert np.shares_memory(forward, array)
    np.testing.assert_array_equal(transform.inverse(forward), array)
    with pytest.raises(ValueError, match="expected") if transform is not Same else pytest.raises(AssertionError):
        assert transform.forward(np.zeros((2,) * 5)) is None


def test_an_axis_that_should_be_one_is_checked():
    with pytest.raises(ValueError, match="axis 1 must have length 1"):
        Axes("c1k", "kc").forward(np.zeros((4, 2, 3)))


def test_all_problems_are_told_in_one_error(tensors):
    del tensors["norm.g"], tensors["layers.1.conv.weight"]
    tensors["layers.0.conv.weight"] = np.zeros((5, 4, 2), np.float32)
    tensors["layers.1.qkv.weight"] = np.zeros((9, 4), np.float32)
    tensors["layers.2.conv.weight"] = np.zeros((5, 4, 3), np.float32)
    tensors["layers.0.convolution.weight"] = np.zeros(1, np.float32)
    tensors["embed.weight"] = tensors["embed.weight"].astype(np.int8)
    tensors["other.embed.weight"] = np.zeros((7, 4), np.float32)
    message = _problems(tensors, normalise=lambda name: name.removeprefix("other."))
    expected = (
        "layers.0.convolution.weight: no rule maps it (the nearest one maps layers.{i}.conv.weight)",
        "embed.weight: it holds int8, but float32, bfloat16 or float16 was expected",
        "other.embed.weight: it is the same tensor as embed.weight, named for another layout",
        "norm.v: norm.g belongs with it and is missing",
        "layers.0.conv.weight: its shape becomes (2, 4, 5), but the configuration asks for (3, 4, 5)",
        "layers.1.qkv.weight: its shape (9, 4) cannot become (4, 6) and (4, 2) (its first axis should be 6 + 2)",
        "layers.2.conv.weight: the configuration leaves no place for it (layers.2.conv.kernel)",
        "head.weight: it is tied to embed.weight, but their shapes or dtypes differ",
        "layers.1.conv.kernel: no tensor fills it (layers.1.conv.weight was expected)",
    )
    assert [clause for clause in expected if clause not in message] == []
    assert f"in {len(expected)} places" in message


def test_a_parameter_that_two_tensors_fill_is_told(tensors):
    rules = (*RULES, Rule("old_embed.weight", "embedding.table"))
    message = _problems(tensors | {"old_embed.weight": tensors["embed.weight"]}, rules)
    assert "old_embed.weight: embedding.table was filled before, by embed.weight" in message


def test_a_tensor_that_two_rules_want_is_told(tensors):
    message = _problems(tensors, (*RULES, Ignore("embed.weight", "no reason")))
    assert "embed.weight: several rules map it (embed.weight, embed.weight)" in message


def test_names_must_match_whole(tensors):
    message = _problems(tensors | {"layers.0.conv.weight.more": np.zeros(1), "xembed.weight": np.zeros(1)})
    assert message.count("no rule maps it") == 2


def test_tied_tensors_must_be_equal_bit_by_bit(tensors):
    tensors["head.weight"][3, 2] = np.nextafter(tensors["head.weight"][3, 2], np.float32(9))
    assert _problems(tensors).endswith("in 1 place: head.weight: it is tied to embed.weight, but their values differ")
    del tensors["head.weight"]
    assert len(list(convert(tensors.items(), RULES, SHAPES))) == len(SHAPES)


def test_a_wrong_shape_names_the_keys_of_the_configuration(tensors):
    config = {"text": {"width": 4, "tied": True}, "taps": 3, "vocab_size": 8}
    shapes = SHAPES | {"embedding.table": (8, 4), "layers.0.conv.kernel": (3, 4, 10)}
    message = _problems(tensors, shapes=shapes, config=config)
    assert "becomes (7, 4), but the configuration asks for (8, 4) (8 is vocab_size in config.json)" in message
    assert "(10 is a default or a product of values in config.json)" in message


def test_a_tensor_may_come_once(tensors):
    with pytest.raises(FormatError, match=r"embed\.weight came twice"):
        list(convert([*tensors.items(), ("embed.weight", tensors["embed.weight"])], RULES, SHAPES))


def test_checking_needs_no_values():
    class Header:
        def __init__(self, *shape):
            self.shape, self.dtype = shape, np.dtype(np.float32)

    # Values of this shape would take 4 TB.
    headers = {"embed.weight": Header(10**6, 10**6)}
    assert check(headers, RULES, {"embedding.table": (10**6, 10**6)}) == []
    assert len(check(headers, RULES, {"embedding.table": (7, 10**6)})) == 1


def test_export_wants_every_part_and_one_rule(tensors):
    found = dict(convert(tensors.items(), RULES, SHAPES))
    with pytest.raises(FormatError, match=r"layers.0.qkv.weight cannot be written without layers.0.key.kernel"):
        export({path: array for path, array in found.items() if path != "layers.0.key.kernel"}, RULES)
    with pytest.raises(FormatError, match="0 rules name the parameter more"):
        export(found | {"more": np.zeros(1)}, RULES)
