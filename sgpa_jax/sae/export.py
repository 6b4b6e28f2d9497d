"""Autoencoders in the layouts of SAELens (6) and sparsify, out and in: safetensors and a JSON file.

SAELens: `cfg.json`, `sae_weights.safetensors` with `W_enc` [D, M], `b_enc`, `W_dec` [M, D], `b_dec`, and `threshold`
where the architecture is `jumprelu`, which BatchTopK and Matryoshka are once they are trained. sparsify: `cfg.json`,
`sae.safetensors` with `encoder.weight` [M, D], `encoder.bias`, `W_dec`, `b_dec`; TopK alone. Both take the residual
stream as it is, so that normalised ones must be folded first (`TrainedSAE.folded`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.files import atomic_write
from sgpa_jax.sae.config import SAEConfig
from sgpa_jax.sae.state import SAEState

LAYOUTS = ("saelens", "sparsify")
_WEIGHTS = {"saelens": "sae_weights.safetensors", "sparsify": "sae.safetensors"}
_SAELENS_VERSION = "6.0.0"


def export_sae(
    sae: SAEState, folder: str | Path, layout: str, *, model_name: str = "unknown", hook_name: str = "unknown"
) -> Path:
    """Write an autoencoder to a folder; `model_name` and `hook_name` say what it was trained on.

    Raises:
        UsageError: an unknown layout, one that cannot hold the autoencoder, or a folder that cannot be written to.
    """
    from safetensors.numpy import save

    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    folder, config = Path(folder), sae.config
    w_enc_md, b_enc_m, w_dec_md, b_dec_d, threshold_m = (
        np.asarray(a, np.float32) for a in (sae.w_enc_md, sae.b_enc_m, sae.w_dec_md, sae.b_dec_d, sae.threshold_m)
    )
    if layout == "saelens":
        tensors = {"W_enc": np.ascontiguousarray(w_enc_md.T), "b_enc": b_enc_m, "W_dec": w_dec_md, "b_dec": b_dec_d}
        told: dict[str, Any] = {
            "architecture": "topk" if config.kind == "topk" else "jumprelu",
            "d_in": config.width,
            "d_sae": config.n_latents,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": config.pre_bias,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"sae_lens_version": _SAELENS_VERSION, "model_name": model_name, "hook_name": hook_name},
        }
        if config.kind == "topk":
            told |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
        else:
            tensors["threshold"] = threshold_m
    else:
        if config.kind != "topk" or not config.pre_bias:
            raise UsageError(
                f"sparsify's layout holds TopK autoencoders with a bias before the encoder, but this is a "
                f"{config.kind} one{'' if config.pre_bias else ' without'}; export it as saelens"
            )
        tensors = {"encoder.weight": w_enc_md, "encoder.bias": b_enc_m, "W_dec": w_dec_md, "b_dec": b_dec_d}
        told = {
            "activation": "topk", "expansion_factor": config.n_latents / config.width, "normalize_decoder": False,
            "num_latents": config.n_latents, "k": config.k, "multi_topk": False, "skip_connection": False,
            "transcode": False, "d_in": config.width,
        }  # fmt: skip
    atomic_write(folder / _WEIGHTS[layout], save(tensors))
    atomic_write(folder / "cfg.json", json.dumps(told, indent=2) + "\n")
    return folder


def import_sae(folder: str | Path) -> SAEState:
    """Read an autoencoder of either layout; a `jumprelu` has no k of its own, and is given its number of latents.

    Raises:
        UsageError: files are missing, damaged or of another architecture, or tensors do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    layout = next((name for name in LAYOUTS if (folder / _WEIGHTS[name]).is_file()), None)
    if layout is None:
        raise UsageError(f"{folder} holds neither {' nor '.join(_WEIGHTS.values())}; give an autoencoder's folder")
    try:
        told = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / _WEIGHTS[layout])
        config = _saelens_config(told, folder) if layout == "saelens" else _sparsify_config(told, folder)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, SafetensorError,
    ) as error:  # fmt: skip
        raise UsageError(
            f"the autoencoder in {folder} is damaged or incomplete ({str(error)[:200]}); fetch it again"
        ) from error
    wide, names = (config.n_latents, config.width), ("W_enc", "b_enc", "W_dec", "b_dec")
    if layout == "sparsify":
        tensors = {
            {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}.get(name, name): a for name, a in tensors.items()
        }
    shapes = dict(zip(names, (wide if layout == "sparsify" else wide[::-1], wide[:1], wide, wide[1:]), strict=True))
    if config.kind == "jumprelu":
        shapes["threshold"] = wide[:1]
    found = {name: array.shape for name, array in tensors.items()}
    if found != shapes:
        wrong = sorted(name for name in found.keys() | shapes if found.get(name) != shapes.get(name))
        raise UsageError(f"{folder / _WEIGHTS[layout]} has missing, extra or misshapen tensors: {', '.join(wrong)}")
    if odd := [name for name, array in tensors.items() if not jnp.issubdtype(array.dtype, jnp.floating)]:
        raise UsageError(
            f"{folder / _WEIGHTS[layout]} holds no floating-point numbers in {', '.join(odd)}; fetch it again"
        )
    arrays = {name: jnp.asarray(array, jnp.float32) for name, array in tensors.items()}
    w_enc_md = arrays["W_enc"].T if layout == "saelens" else arrays["W_enc"]
    threshold_m = arrays.get("threshold", jnp.zeros(config.n_latents))
    return SAEState(w_enc_md, arrays["b_enc"], arrays["W_dec"], arrays["b_dec"], threshold_m, config)


def _saelens_config(told: Mapping[str, Any], folder: Path) -> SAEConfig:
    kind, n_latents = told["architecture"], told["d_sae"]
    if kind not in ("topk", "jumprelu"):
        raise UsageError(f"the autoencoder in {folder} is of architecture {kind!r}: expected topk or jumprelu")
    odd = [
        name
        for name, plain in (("normalize_activations", "none"), ("reshape_activations", "none"),
                            ("rescale_acts_by_decoder_norm", False))
        if told.get(name, plain) != plain
    ]  # fmt: skip
    if odd:
        raise UsageError(f"the autoencoder in {folder} sets {', '.join(odd)}, which is not offered; fold it first")
    k = told["k"] if kind == "topk" else n_latents
    return SAEConfig(
        width=told["d_in"], n_latents=n_latents, k=k, kind=kind, pre_bias=told.get("apply_b_dec_to_input", True)
    )


def _sparsify_config(told: Mapping[str, Any], folder: Path) -> SAEConfig:
    odd = [name for name in ("multi_topk", "skip_connection", "transcode") if told.get(name)]
    if odd or told.get("activation", "topk") != "topk":
        raise UsageError(f"the autoencoder in {folder} is no plain TopK one ({', '.join(odd) or told['activation']})")
    n_latents = told.get("num_latents") or int(told["d_in"] * told["expansion_factor"])
    return SAEConfig(width=told["d_in"], n_latents=n_latents, k=told["k"])
