"""How long does an explanation take, from a cold start and warm, and what do batches of coalitions gain?

Explained are the clip that ships (9 words) and its last 7 words alone, by the pocket model, exactly: all 512 and all
128 coalitions. A `cold` case is a new process from start to end: imports, loading, compilation, alignment, answer,
coalitions; `sgpa explain --demo` writes picture and page as well. A `warm` case is another clip (the same speech, less
loud) of the same length in a process that has explained one; in `warm, loaded by name` models are read again.
Processor seconds stand beside wall seconds: on a machine with other work to do only those mean much. `load_s` to
`evaluate_s` are the stages of the last explanation.

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
from dataclasses import dataclass

import numpy as np
import sgpa_checkpoints
from _harness import Timing, alternate, comparison, parser, report

from sgpa_jax.align import AcousticModel, align
from sgpa_jax.api import explain
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


@dataclass(frozen=True, eq=False)
class Case:
    """A recording with its words and the question about it."""

    name: str
    clip: Clip
    transcript: str
    prompt: str


def main() -> None:
    """Time both clips, cold, warm and against the peer, and print the table."""
    arguments = parser(__doc__).parse_args()
    cold_repeats, warm_repeats = (1, 3) if arguments.quick else (5, 9)
    model, aligner = load_model(), load_aligner()
    rows: list[dict[str, object]] = [_cold("import sgpa_jax, cold", cold_repeats, _IMPORT)]
    with tempfile.TemporaryDirectory() as scratch:
        rows.append(_cold("sgpa explain --demo --out, cold", cold_repeats, _COMMAND, f"{scratch}/out"))
        for case in _cases(aligner):
            path = f"{scratch}/{case.name}.wav"
            write_wav(path, case.clip)
            rows.append(_cold(f"{case.name}, cold", cold_repeats, _COLD, path, case.transcript, case.prompt))
            rows += _warm(case, model, aligner, warm_repeats)
            rows.append(_one_by_one(case, model, aligner, warm_repeats))
    report("explain", rows, arguments, notes={"model": model.digest, "aligner": aligner.digest})


def _cases(aligner: AcousticModel) -> tuple[Case, Case]:
    """The clip that ships, and its last `SHORT_WORDS` words, cut where the first of them begins."""
    folder = sgpa_checkpoints.shipped_folder("demo")
    demo = json.loads((folder / "demo.json").read_text("utf-8"))
    clip, transcript, prompt = read_clip(folder / "demo.wav"), demo["transcript"], demo["prompt"]
    words = align(clip, transcript, model=aligner).words
    last = words[-SHORT_WORDS:]
    ending = Clip(clip.wave_s[round(last[0].start_s * clip.rate_hz) :], clip.rate_hz)
    return (
        Case(f"{len(words)} words", clip, transcript, prompt),
        Case(f"{len(last)} words", ending, " ".join(word.text for word in last), prompt),
    )


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


def _warm(case: Case, model: Model, aligner: AcousticModel, repeats: int) -> list[dict[str, object]]:
    """Rows of the second and later explanations, of a less loud clip every time."""
    gains = iter(np.linspace(1.0, 0.5, 2 * repeats + 2, dtype=np.float32))

    def explained(model: Model | str, aligner: AcousticModel | str) -> Explanation:
        clip = Clip(case.clip.wave_s * next(gains), case.clip.rate_hz)
        return explain(clip, transcript=case.transcript, prompt=case.prompt, model=model, aligner=aligner)

    timings = alternate(
        {
            "warm": lambda: explained(model, aligner),
            "warm, loaded by name": lambda: explained("pocket", "pocket"),
        },
        repeats,
    )
    return [_warm_row(f"{case.name}, {way}", timing) for way, timing in timings.items()]


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


def _one_by_one(case: Case, model: Model, aligner: AcousticModel, repeats: int) -> dict[str, object]:
    """The row that compares batches of coalitions with single ones, over the same coalitions of the same players."""
    explained = explain(case.clip, transcript=case.transcript, prompt=case.prompt, model=model, aligner=aligner)
    players = Players(explained.players, len(case.clip.wave_s), case.clip.rate_hz)
    inputs = model.prepare(case.clip, case.prompt, response=explained.response)
    masks_cp = all_coalitions(len(players))

    def values(microbatch: int | None) -> np.ndarray:
        return speech_game(model, inputs, players, microbatch=microbatch).values(masks_cp)

    timings = alternate({"ours": lambda: values(None), "peer": lambda: values(1)}, max(1, repeats // 3))
    difference = float(np.abs(timings["ours"].returned - timings["peer"].returned).max())
    row = comparison(f"{case.name}, coalitions", "one_by_one", timings["ours"], timings["peer"], difference)
    return row | {"players": len(players), "coalitions": len(masks_cp)}


if __name__ == "__main__":
    main()
