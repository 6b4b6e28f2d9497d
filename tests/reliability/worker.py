"""A warm process that runs commands in forks of its own and kills them with signal 9, as it is told on stdin.

Not a test: `test_kills.py` starts it. It imports what the commands need but uses no device, so that forks are cheap.
A line of stdin is JSON: `command` and its `arguments`, the `folder` whose files it writes, and `after_s` or `at_event`,
when to kill it: so many seconds after it began, or when it is about to touch its folder's files for the nth time. The
line that answers tells its `code` (-9 when killed), how many `events` there were and the `seconds` that it took.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import sgpa_jax.batch.bundles
import sgpa_jax.cli
from sgpa_jax.models.convert import convert_model
from sgpa_jax.sae import Paths, Recipe, SAEConfig, TrainConfig, open_store, train

EVENTS = frozenset(("open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"))
sgpa_jax.batch.bundles.MOST_ITEMS = 2
RECIPE = Recipe(
    SAEConfig(width=8, n_latents=16, k=2), TrainConfig(n_steps=12, batch=20, learning_rate=1e-3, aux_k=4, seed=1)
)


def run_train(activations: str, out: str) -> None:
    """Train an autoencoder by paths that are given, as those that are measured may differ."""
    train(open_store(activations), 1, RECIPE, out, paths=Paths("dense", "lax"), checkpoint_every=3)


def run_cli(*arguments: str) -> None:
    """Run `sgpa`."""
    sys.argv = ["sgpa", *arguments]
    sgpa_jax.cli.main()


COMMANDS: dict[str, Callable[..., Any]] = {"train": run_train, "convert": convert_model, "sgpa": run_cli}


def child(told: dict[str, Any], report: int) -> NoReturn:
    """Run a command, count what it does to its folder, and die where that is wanted."""
    count, code = 0, 1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and any(told["folder"] in str(argument) for argument in arguments[:2]):
            count += 1
            if count == told.get("at_event"):
                os.kill(os.getpid(), signal.SIGKILL)

    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is for answers
    sys.addaudithook(hook)
    try:
        COMMANDS[told["command"]](*told["arguments"])
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os.write(report, str(count).encode())
        sys.stderr.flush()
        os._exit(code)


def run(told: dict[str, Any]) -> dict[str, Any]:
    """Run a command in a fork, kill it in time, and tell how it ended."""
    read, write = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(told, write)
    os.close(write)
    if "after_s" in told:
        ended, _, _ = select.select([read], [], [], told["after_s"])
        if not ended:
            os.kill(pid, signal.SIGKILL)
    events = os.read(read, 20)
    os.close(read)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"code": code, "events": int(events or 0), "seconds": time.monotonic() - start}


def main() -> None:
    """Serve until stdin ends."""
    print(json.dumps({"threads": len(list(Path("/proc/self/task").iterdir()))}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
