"""How long does an explanation take, from a cold start and warm, and what do batches of coalitions gain?

Explained are the clip that ships (9 words) and its last 7 words alone, by the pocket model, exactly: all 512 and all
128 coalitions. A `cold` case is a new process from start to end: imports, loading, compilation, alignment, answer,
coalitions; `sgpa explain --demo` writes picture and page as well. A `warm` case is another clip (the same speech, less
loud) of the same length in a process that has explained one; in `warm, loaded by name` models are read again.
Processor seconds stand beside wall seconds: on a machine with other work to do only those mean much.

The peer `one_by_one` evaluates the same coalitions with the same compiled model, one in a batch; it has compiled before
it is timed, and both take turns. Targets: below 10 s cold and 1 s warm on two cores.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import numpy as np
import sgpa_checkpoints
from _harness import Timing, alternate, comparison, parser, report

from sgpa_jax.align import AcousticModel, align
from sgpa_jax.api import MICROBATCH, explain
from sgpa_jax.audio import Clip, read_clip, write_wav
from sgpa_jax.explain import Explanation
from sgpa_jax.games import speech_game
from sgpa_jax.models import Model, load_aligner, load_model
from sgpa_jax.players import Players, all_coalitions

SHORT_WORDS = 7
_IMPORT = "import sgpa_jax"
_COLD = "import sys, sgpa_jax; sgpa_jax.explain(sys.argv[1], transcript=sys.argv[2], prompt=sys.argv[3])"
_COMMAND = (
    "import sys; from sgpa_jax.cli import main; sys.argv[1:] = ['explain', '--demo', '--out', sys.argv[1]]; main()"
)


def main() -> None:
    """Time both clips, cold, warm and against the peer, and print the table."""
    arguments = parser(__doc__).parse_args()
    cold_repeats, warm_repeats = (1, 3) if arguments.quick else (5, 9)
    model, aligner = load_model(), load_aligner()
    folder = sgpa_checkpoints.shipped_folder("demo")
    demo = json.loads((folder / "demo.json").read_text("utf-8"))
    whole = read_clip(folder / "demo.wav")
    rows: list[dict[str, object]] = [_cold("import sgpa_jax, cold", cold_repeats, _IMPORT)]
    with tempfile.TemporaryDirectory() as scratch:
        rows.append(_cold("sgpa explain --demo --out, cold", cold_repeats, _COMMAND, f"{scratch}/out"))
        for clip, transcript in ((whole, demo["transcript"]), _ending(whole, demo["transcript"], aligner)):
            name = f"{len(transcript.split())} words"
            asked = {"transcript": transcript, "prompt": demo["prompt"]}
            path = f"{scratch}/{name}.wav"
            write_wav(path, clip)
            rows.append(_cold(f"{name}, cold", cold_repeats, _COLD, path, transcript, demo["prompt"]))
            rows += _warm(name, clip, asked, model, aligner, warm_repeats)
            rows.append(_one_by_one(name, clip, asked, model, aligner, warm_repeats))
    report("explain", rows, arguments, notes={"model": model.digest, "aligner": aligner.digest})


def _cold(case: str, repeats: int, code: str, *given: str) -> dict[str, object]:
    """Median seconds of a new Python that runs `code`."""
    wall_s, cpu_s = [], []
    for _ in range(repeats):
        began_s, used_s = time.perf_counter(), _children_cpu_s()
        subprocess.run([sys.executable, "-c", code, *given], check=True, capture_output=True)
        wall_s.append(time.perf_counter() - began_s)
        cpu_s.append(_children_cpu_s() - used_s)
    return {"case": case, "ours_s": statistics.median(wall_s), "ours_cpu_s": statistics.median(cpu_s)}


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ending(clip: Clip, transcript: str, aligner: AcousticModel) -> tuple[Clip, str]:
    """The last `SHORT_WORDS` words of a clip, cut where the first of them begins."""
    words = align(clip, transcript, model=aligner).words[-SHORT_WORDS:]
    ending_s = clip.wave_s[round(words[0].start_s * clip.rate_hz) :]
    return Clip(ending_s, clip.rate_hz), " ".join(word.text for word in words)


def _warm(
    name: str, clip: Clip, asked: Mapping[str, str], model: Model, aligner: AcousticModel, repeats: int
) -> list[dict[str, object]]:
    """Rows of the second and later explanations, of a quieter clip every time."""
    gains = iter(np.linspace(1.0, 0.5, 2 * repeats + 2, dtype=np.float32))

    def quieter() -> Clip:
        return Clip(clip.wave_s * next(gains), clip.rate_hz)

    timings = alternate(
        {
            "warm": lambda: explain(quieter(), **asked, model=model, aligner=aligner),
            "warm, loaded by name": lambda: explain(quieter(), **asked),
        },
        repeats,
    )
    return [_warm_row(f"{name}, {way}", timing) for way, timing in timings.items()]


def _warm_row(case: str, timing: Timing) -> dict[str, object]:
    explanation: Explanation = timing.returned
    return {
        "case": case,
        "ours_s": timing.wall_s,
        "ours_cpu_s": timing.cpu_s,
        "ours_first_s": timing.first_s,
        "players": len(explanation.players),
        "coalitions": explanation.evaluations["unique"],
        **{f"{stage}_s": seconds for stage, seconds in explanation.timings.items()},
    }


def _one_by_one(
    name: str, clip: Clip, asked: Mapping[str, str], model: Model, aligner: AcousticModel, repeats: int
) -> dict[str, object]:
    """The row that compares batches of coalitions with single ones, over the same coalitions of the same players."""
    explained = explain(clip, **asked, model=model, aligner=aligner)
    players = Players(explained.players, len(clip.wave_s), clip.rate_hz)
    inputs = model.prepare(clip, asked["prompt"], response=explained.response)
    masks_cp = all_coalitions(len(players))

    def values(microbatch: int) -> np.ndarray:
        return speech_game(model, inputs, players, microbatch=microbatch).values(masks_cp)

    timings = alternate({"ours": lambda: values(MICROBATCH), "peer": lambda: values(1)}, max(1, repeats // 3))
    difference = float(np.abs(timings["ours"].returned - timings["peer"].returned).max())
    row = comparison(f"{name}, coalitions", "one_by_one", timings["ours"], timings["peer"], difference)
    return row | {"players": len(players), "coalitions": len(masks_cp)}


if __name__ == "__main__":
    main()
