"""How long does a full-size checkpoint take to load, and how much memory of its own does the process need at most?

A checkpoint of random bfloat16 values in LFM2-Audio-1.5B's sizes (2.94 GB; `--quick`: a small part of its layers) is
written to a scratch folder (`--scratch`, which must lie on a disk, not in memory) and loaded by name of that folder in
a new process, in which torch, transformers and unpickling are out of reach. `peak_bytes` is the most anonymous memory
(`RssAnon`) seen while it loads, read every few milliseconds: pages of the mapped file are the system's, which takes
them back when it needs them. Target: at most 1 GB more than the file. Files are in the page cache for both sides.

The peer `safetensors_torch` opens the same file with safetensors' own torch reader and copies every tensor, in the same
layout, in a process of its own; both take turns. `load_model` also reads the file once more for its digest
(`digest_s`), which the peer does not: `ours_s` is without. The row `orbax` loads what `sgpa convert` wrote.
"""

import argparse
import json
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from _harness import parser, report

QUICK_LAYERS = 2
LFM2_AUDIO: dict[str, Any] = {
    "architectures": ["Lfm2AudioForConditionalGeneration"],
    "codebooks": 8,
    "tie_audio_embeddings": False,
    "semantic_codebook_factor": 100,
    "codebook_weight": "log",
    "interleaved_n_text": 6,
    "interleaved_n_audio": 12,
    "preprocessor": {
        "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "window": "hann",
        "features": 128, "n_fft": 512, "log": True, "frame_splicing": 1, "dither": 1e-5, "pad_to": 0, "pad_value": 0.0,
    },
    "encoder": {
        "feat_in": 128, "feat_out": -1, "n_layers": 17, "d_model": 512, "subsampling": "dw_striding",
        "subsampling_factor": 8, "subsampling_conv_channels": 256, "causal_downsampling": False,
        "ff_expansion_factor": 4, "self_attention_model": "rel_pos", "n_heads": 8, "att_context_size": [-1, -1],
        "xscaling": False, "untie_biases": True, "pos_emb_max_len": 5000, "conv_kernel_size": 9,
        "conv_norm_type": "batch_norm", "conv_context_size": None,
    },
    "lfm": {
        "model_type": "lfm2", "vocab_size": 65536, "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 128000, "norm_eps": 1e-5,
        "rope_theta": 1000000.0, "conv_L_cache": 3, "conv_bias": False, "block_ff_dim": 12288, "block_multiple_of": 256,
        "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": True, "full_attn_idxs": [2, 5, 8, 10, 12, 14],
        "tie_embedding": True,
    },
    "depthformer": {"layers": 6, "dim": 1024, "tie": True},
}  # fmt: skip


def main() -> None:
    """Write the checkpoint, load it by turns, and print the table."""
    options = parser(__doc__)
    options.add_argument("--scratch", type=Path, metavar="DIR", help="folder on a disk for the checkpoint")
    options.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        side, folder = arguments.child
        print(json.dumps(_SIDES[side](Path(folder))))
        return
    repeats = 1 if arguments.quick else 3
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="loading.") as scratch:
        folder, converted = Path(scratch) / "checkpoint", Path(scratch) / "converted"
        _in_own_process("write", folder, arguments.quick, arguments.seed)
        file_bytes = (folder / "model.safetensors").stat().st_size
        _in_own_process("convert", folder, converted)
        measured: dict[str, list[dict[str, float]]] = {"ours": [], "orbax": [], "peer": []}
        for _ in range(repeats):
            measured["ours"].append(_child("ours", folder))
            measured["orbax"].append(_child("ours", converted))
            measured["peer"].append(_child("peer", folder))
    middle = {
        side: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for side, rows in measured.items()
    }
    size = "LFM2-Audio, few layers" if arguments.quick else "LFM2-Audio-1.5B"
    rows = [
        {
            "case": case,
            "peer": "safetensors_torch",
            "ours_s": middle[side]["wall_s"],
            "peer_s": middle["peer"]["wall_s"],
            "ratio": middle["peer"]["wall_s"] / middle[side]["wall_s"],
            "ours_cpu_s": middle[side]["cpu_s"],
            "peer_cpu_s": middle["peer"]["cpu_s"],
            "peak_bytes": max(row["peak_bytes"] for row in measured[side]),
            "peer_peak_bytes": max(row["peak_bytes"] for row in measured["peer"]),
            "file_bytes": file_bytes,
            "before_bytes": middle[side]["before_bytes"],
            "digest_s": middle[side]["digest_s"],
            "max_abs_diff": abs(middle[side]["total"] - middle["peer"]["total"]),
        }
        for side, case in (("ours", f"{size}, safetensors"), ("orbax", f"{size}, converted"))
    ]
    report("loading", rows, arguments, notes={"max_abs_diff": "of the sums of all values' magnitudes"})


def _config(quick: bool) -> dict[str, Any]:
    if not quick:
        return LFM2_AUDIO
    small = json.loads(json.dumps(LFM2_AUDIO))
    small["encoder"]["n_layers"] = small["depthformer"]["layers"] = QUICK_LAYERS
    small["lfm"] |= {"num_hidden_layers": QUICK_LAYERS, "full_attn_idxs": [1], "vocab_size": 4096}
    return small


def write(folder: Path, quick: bool, seed: int) -> None:
    """Write `config.json` and `model.safetensors`: names and shapes are the rule table's, read from ours to theirs."""
    from sgpa_checkpoints import export

    from sgpa_jax.models.families import family_of
    from sgpa_jax.models.fill import target

    folder.mkdir()
    config = _config(quick)
    (folder / "config.json").write_text(json.dumps(config))
    family = family_of(config)
    audio_lm = family.read_config(config, None)
    slots = target(lambda: family.build(audio_lm)).slots
    # Part by part, so that the writer needs little memory; no rule reaches from one layer into another.
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, slot in slots.items():
        part = path.rpartition(".")[0] if "layers" not in path else ".".join(path.split(".")[:3])
        parts.setdefault("audio_out.codebooks" if "codebooks" in path else part, {})[path] = slot.shape

    def tensors(values: Callable[[tuple[int, ...]], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        for shapes in parts.values():
            yield from export({path: values(shape) for path, shape in shapes.items()}, family.rules).items()
        # The table of codes has a head that nothing reads, and whose size we do not know from a parameter.
        codes = slots["audio_out.codes.table"].shape
        yield "audio_embedding.to_logits.weight", values(codes)

    header, at = {}, 0
    for name, array in tensors(lambda shape: np.zeros(shape, np.int8)):
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": [at, at + 2 * array.size]}
        at += 2 * array.size
    rng = np.random.default_rng(seed)
    stock = rng.normal(scale=0.02, size=2**22).astype(ml_dtypes.bfloat16)

    def random(shape: tuple[int, ...]) -> np.ndarray:
        n = math.prod(shape)
        return np.tile(np.roll(stock, int(rng.integers(len(stock)))), -(-n // len(stock)))[:n].reshape(shape)

    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors(random):
            file.write(array.view(np.uint16).tobytes())
        file.flush()
        os.fsync(file.fileno())


def convert(folder: Path, out: Path) -> None:
    """Write what `sgpa convert` makes of it."""
    from sgpa_jax.models import convert_model

    convert_model(folder, out)


def _ours(folder: Path) -> dict[str, float]:
    _forbid("torch", "transformers")
    import jax
    import sgpa_checkpoints

    from sgpa_jax.models import load_model

    digest_s, digest_cpu_s = 0.0, 0.0
    digest = sgpa_checkpoints.folder_digest

    def timed(path: Path) -> str:
        nonlocal digest_s, digest_cpu_s
        began_s, used_s = time.perf_counter(), time.process_time()
        told = digest(path)
        digest_s, digest_cpu_s = time.perf_counter() - began_s, time.process_time() - used_s
        return told

    sgpa_checkpoints.folder_digest = timed
    jax.devices()
    measured, model = _measured(lambda: jax.block_until_ready(load_model(folder, dtype="bfloat16").state))
    total = 0.0
    for leaf in jax.tree.leaves(model):
        total += float(np.abs(np.asarray(leaf).astype(np.float32)).sum(dtype=np.float64))
    return measured | {
        "digest_s": digest_s,
        "wall_s": measured["wall_s"] - digest_s,
        "cpu_s": measured["cpu_s"] - digest_cpu_s,
        "total": total,
    }


def _peer(folder: Path) -> dict[str, float]:
    import torch
    from safetensors import safe_open

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def load() -> dict[str, torch.Tensor]:
        with safe_open(folder / "model.safetensors", "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118

    measured, tensors = _measured(load)
    # Copies that are tied, and the head that nothing reads, are no parameters of ours.
    tensors = {name: value for name, value in tensors.items() if not name.endswith("to_logits.weight")}
    total = sum(float(value.float().abs().double().sum()) for value in tensors.values())
    return measured | {"digest_s": 0.0, "total": total}


_SIDES = {"ours": _ours, "peer": _peer}


def _forbid(*modules: str) -> None:
    """Put modules out of reach, and make unpickling an error; numpy imports pickle, so its functions are replaced."""
    for name in modules:
        sys.modules[name] = None  # type: ignore[assignment]

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("nothing may be unpickled here")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        setattr(pickle, name, refused)


def _measured(load: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Run `load` while another thread watches this process's anonymous memory."""
    before = peak = _anonymous_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, _anonymous_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began_s, used_s = time.perf_counter(), time.process_time()
    loaded = load()
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - used_s
    done.set()
    watcher.join()
    peak = max(peak, _anonymous_bytes())
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_bytes": peak, "before_bytes": before}, loaded


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's anonymous memory (RssAnon); run it on Linux")


def _child(side: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", side, str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _in_own_process(function: str, *given: object) -> None:
    code = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import loading; "
    arguments = ", ".join(f"pathlib.Path({str(x)!r})" if isinstance(x, Path) else repr(x) for x in given)
    command = [sys.executable, "-c", f"{code}loading.{function}({arguments})", str(Path(__file__).parent)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
