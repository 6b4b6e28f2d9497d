"""What many players cost in memory, and what compiles when their number changes; each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import jax
from _ours import Ours
from _toys import qwen2_toy

from sgpa_jax.players import all_coalitions

_CODE = "import sys; sys.path.insert(0, sys.argv[1]); import _memory; _memory.{function}(*map(int, sys.argv[2:]))"
_COMPILED = "/jax/core/compile/backend_compile_duration"


def memory_rows(few: int, many: int, seed: int) -> list[dict[str, object]]:
    """Return the peak resident bytes of all coalitions of few and of many players, and their ratio."""
    rows: list[dict[str, object]] = []
    for n_players in (few, many):
        found = _in_a_process("measure_memory", n_players, seed)
        rows.append({"case": f"peak memory, qwen2, d=256, n={n_players}, attention", "engine": "trie", **found})
    ratio = float(rows[1]["peak_bytes"]) / float(rows[0]["peak_bytes"])  # pyright: ignore[reportArgumentType]
    rows[1]["peak_ratio"] = ratio
    return rows


def compile_rows(players: tuple[int, ...], seed: int) -> list[dict[str, object]]:
    """Return how many programs are compiled, and for how long, for one number of players after another."""
    found = _in_a_process("measure_compilation", seed, *players)
    return [
        {"case": f"compilation, qwen2, d=256, n={n_players}, attention", "engine": "trie", **row}
        for n_players, row in zip(players, found["rows"], strict=True)
    ]


def measure_memory(n_players: int, seed: int) -> None:
    """Run all coalitions of a passage with a short end, and print this process's peak as JSON."""
    toy = qwen2_toy(n_players, suffix=4, response=1, seed=seed)
    ours = Ours(toy, "attention")
    before = _peak_bytes()
    ours(all_coalitions(n_players))
    print(json.dumps({"coalitions": 2**n_players, "peak_bytes": _peak_bytes(), "loaded_bytes": before}))


def measure_compilation(seed: int, *players: int) -> None:
    """Run all coalitions of one passage after another, and print what compiled as JSON."""
    compiled: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: compiled.append(duration_secs) if event == _COMPILED else None
    )
    rows = []
    toys = [(n_players, Ours(qwen2_toy(n_players, seed=seed), "attention")) for n_players in players]
    for n_players, ours in toys:
        compiled.clear()
        ours(all_coalitions(n_players))
        rows.append({"coalitions": 2**n_players, "compiles": len(compiled), "compile_s": sum(compiled)})
    print(json.dumps({"rows": rows}))


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _in_a_process(function: str, *numbers: int) -> dict:
    code = _CODE.format(function=function)
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *map(str, numbers)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
