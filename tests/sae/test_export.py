"""Layouts of SAELens and sparsify: what is written is what their readers expect, and reads back as it was."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sgpa_jax.errors import UsageError
from sgpa_jax.sae import encode, export_sae, import_sae, reconstruct

X = jnp.asarray(np.random.default_rng(1).standard_normal((7, 12)), jnp.float32)


def saelens_reader(folder) -> np.ndarray:
    """Reconstructions by SAELens' formulas."""
    told, w = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")
    assert (told["d_in"], told["d_sae"], told["normalize_activations"]) == (12, 40, "none")
    assert told["metadata"]["sae_lens_version"] >= "6.0"
    pre = (np.asarray(X) - (w["b_dec"] if told["apply_b_dec_to_input"] else 0)) @ w["W_enc"] + w["b_enc"]
    if told["architecture"] == "topk":
        assert not told["rescale_acts_by_decoder_norm"] and w.keys() == {"W_enc", "b_enc", "W_dec", "b_dec"}
        kept = np.argsort(np.argsort(-pre, axis=1), axis=1) < told["k"]
    else:
        kept = pre > w["threshold"]
    return np.where(kept, np.maximum(pre, 0), 0) @ w["W_dec"] + w["b_dec"]


def sparsify_reader(folder) -> np.ndarray:
    told, w = json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae.safetensors")
    assert (told["d_in"], told["num_latents"], told["activation"]) == (12, 40, "topk")
    pre = np.maximum((np.asarray(X) - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 0)
    kept = np.argsort(np.argsort(-pre, axis=1), axis=1) < told["k"]
    return np.where(kept, pre, 0) @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize(
    ("layout", "kind", "pre_bias"),
    [("saelens", "topk", True), ("saelens", "topk", False), ("saelens", "jumprelu", True), ("sparsify", "topk", True)],
)
def test_round_trip(random_sae, tmp_path, layout, kind, pre_bias):
    sae = random_sae(kind, pre_bias=pre_bias)
    export_sae(sae, tmp_path, layout, model_name="pocket", hook_name="layers.1")
    reader = saelens_reader if layout == "saelens" else sparsify_reader
    np.testing.assert_allclose(reader(tmp_path), reconstruct(sae, X), atol=1e-4)
    back = import_sae(tmp_path)
    assert (back.config.kind, back.config.pre_bias, back.config.n_latents) == (kind, pre_bias, 40)
    for a, b in zip(jax.tree.leaves(back)[:4], jax.tree.leaves(sae)[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(encode(back, X), encode(sae, X))


def test_trained_thresholds_become_jumprelu(random_sae, tmp_path):
    sae = random_sae("matryoshka")
    export_sae(sae, tmp_path, "saelens")
    back = import_sae(tmp_path)
    assert back.config.kind == "jumprelu"
    np.testing.assert_array_equal(encode(back, X), encode(sae, X))


def test_refuses(random_sae, tmp_path):
    with pytest.raises(UsageError, match="'saelenz'"):
        export_sae(random_sae(), tmp_path, "saelenz")
    with pytest.raises(UsageError, match="jumprelu one; export it as saelens"):
        export_sae(random_sae("jumprelu"), tmp_path, "sparsify")
    with pytest.raises(UsageError, match="one without"):
        export_sae(random_sae(pre_bias=False), tmp_path, "sparsify")
    with pytest.raises(UsageError, match="holds neither"):
        import_sae(tmp_path)
    export_sae(random_sae(), tmp_path, "saelens")
    weights, told = tmp_path / "sae_weights.safetensors", json.loads((tmp_path / "cfg.json").read_text())
    tensors = load_file(weights)
    save_file({**tensors, "W_enc": np.ascontiguousarray(tensors["W_enc"].T)}, weights)
    with pytest.raises(UsageError, match="misshapen tensors: W_enc"):
        import_sae(tmp_path)
    for change, said in (
        ({"architecture": "gated"}, "'gated'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations"),
    ):
        (tmp_path / "cfg.json").write_text(json.dumps({**told, **change}))
        with pytest.raises(UsageError, match=said):
            import_sae(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps({name: told[name] for name in told if name != "d_in"}))
    with pytest.raises(UsageError, match="damaged or incomplete"):
        import_sae(tmp_path)
