"""What a campaign of damaged inputs stands on: seeded damage, and a judge of what readers make of it.

Every case is drawn from its format's name and its number alone, so that a failure is met again by running its test.
`SGPA_CAMPAIGN=100000` in the environment asks for so many cases of each format in place of 2,000, and
`SGPA_KILLS=20` for so many kills of each command in place of 2.
"""

import json
import os
import pickle
import random
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from sgpa_jax.audio import Clip
from sgpa_jax.errors import SgpaError
from sgpa_jax.explain import ClipInfo, Explanation, Transcript
from sgpa_jax.players import Player
from sgpa_jax.sae.store import HEADER, SCHEMA, finish, json_lines, write_shard

CASES = int(os.environ.get("SGPA_CAMPAIGN", "2000"))
KILLS = int(os.environ.get("SGPA_KILLS", "2"))
SECONDS = 20.0
"""Processor time after which an input counts as one that hangs its reader; the longest takes a hundredth of it."""
ROOM_BYTES = 2**31
"""What the process may grow by in a campaign: far less than any header here claims."""

Damage = Callable[[bytes, random.Random], bytes]
_EXTREMES = (0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**64 - 1)
_NUMBERS = (b"-1", b"0", b"NaN", b"Infinity", b"1e999", b"-1e-999", b"99999999999999999999", b"1152921504606846976")
_NUMBERS += (b"0x10", b"1_0", b"1,5", b"9" * 5000)
_STRANGE = (
    b"\xff\xfe",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\x00",
    b"\x00" * 64,
    b"\r",
    b"\n\n",
    b'"',
    b"\xef\xbb\xbf",
    b"\x1b[2J",
)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 0.5, 1e308, -1e308, float("nan"), float("inf"), 10**30, 2**60, 2**63, "", "x", "1",
    "\ud800", "\x00", "a\nb", "x" * 5000, [], {}, [[]], [None], {"": None}, ["a", 1], [1.0, 2.0, 3.0], {"a": {"b": []}},
)  # fmt: skip


def truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def inserted(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((rng.randbytes(rng.randrange(1, 64)), *_STRANGE)) + data[at:]


def deleted(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 2, 7, 64, len(data) // 3)) :]


def swapped(data: bytes, rng: random.Random) -> bytes:
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def doubled(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:b] + data[a:b] + data[b:]


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """An integer of the first bytes, or of anywhere, becomes an extreme one."""
    size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
    at = rng.randrange(min(len(data), rng.choice((64, len(data)))))
    number = rng.choice(_EXTREMES) % 256**size
    return data[:at] + number.to_bytes(size, order) + data[at + size :]


def renumbered(data: bytes, rng: random.Random) -> bytes:
    """A number that is written in digits becomes another one, or none."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:4096]))
    if not found:
        return overwritten(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(_NUMBERS) + data[match.end() :]


def nested(data: bytes, rng: random.Random) -> bytes:
    """Brackets, far deeper than any reader may follow."""
    bomb = rng.choice((b"[", b'{"a":', b"(", b"<", b'"')) * rng.choice((50, 2000, 20000))
    at = rng.randrange(len(data) + 1)
    return rng.choice((bomb, data[:at] + bomb + data[at:]))


def emptied(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\x00", b"\n", b" ", b"\xff\xfe", b"{}", b"[]", b"null", b"\x00" * len(data)))


BYTES: tuple[Damage, ...] = (
    truncated, flipped, inserted, deleted, swapped, doubled, overwritten, renumbered, nested, emptied, flipped,
    renumbered,
)  # fmt: skip


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with any of `BYTES` done to them."""
    return rng.choice(BYTES)(data, rng)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """Valid JSON (or lines of it) whose values, keys or lengths are wrong in up to three places; or damaged bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(data, rng)
    lines = data.splitlines() if data[:1] == b"{" and b"}\n{" in data else [data]
    at = rng.randrange(len(lines))
    value = json.loads(lines[at])
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(value, rng)
    text = json.dumps(value)
    if rng.random() < 0.1 and text.startswith("{") and len(text) > 2:
        text = f"{{{text[1:-1]}, {text[1:]}" if rng.random() < 0.5 else text.replace("{", '{"schema": 1, ', 1)
    lines[at] = text.encode()
    return b"\n".join(lines)


def _changed(value: Any, rng: random.Random) -> Any:
    """The same with one node, at any depth, replaced, removed, doubled or renamed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        how = rng.random()
        if how < 0.08:
            del value[key]
        elif how < 0.12 and isinstance(value, list):
            value.insert(rng.randrange(len(value) + 1), value[key])
        elif how < 0.16 and isinstance(value, dict):
            value[rng.choice(("", "x", "\ud800", "__proto__", key * 2))] = value.pop(key)
        else:
            value[key] = _changed(value[key], rng)
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.choice((-value, value * 10**9, value + 0.5, value * 0, float("nan"), 10**25, -1, 2**60))
    # A copy: what is changed next must not be changed in the table.
    return json.loads(json.dumps(rng.choice(_VALUES)))


class Campaign:
    """Feeds a reader with damaged inputs; remembers how many it read and how many it refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes, self.json, self.cases = damaged_bytes, damaged_json, CASES
        self.read = self.refused = 0

    def __call__(
        self,
        name: str,
        whole: bytes,
        reader: Callable[[Path], Any],
        *,
        structured: bool = False,
        damage: Damage | None = None,
        file: str = "input",
        cases: int = CASES,
    ) -> None:
        """Check that `reader` reads a file with `whole`, and reads or refuses every damaged one.

        Args:
            name: the format's, which decides the damage.
            whole: the file that is right.
            reader: what reads it, given its path.
            structured: whether the file is JSON, and is damaged as such too.
            damage: makes a damaged file of the right one; by default any of `BYTES`.
            file: name of the file, in a folder of its own where it has none.
            cases: how many.
        """
        __tracebackhide__ = True
        path = self.folder / file
        path.write_bytes(whole)
        reader(path)
        damage = damage or (damaged_json if structured else damaged_bytes)
        before, failures = sorted(self.folder.rglob("*")), []
        with _bounds():
            for case in range(cases):
                rng = random.Random(f"{name} {case}")
                path.write_bytes(damage(whole, rng))
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                try:
                    reader(path)
                    self.read += 1
                except SgpaError as error:
                    self.refused += 1
                    if not str(error).strip() or len(str(error)) > 8000:
                        failures.append(f"case {case}: a message of {len(str(error))} letters: {str(error)[:200]!r}")
                except BaseException as error:  # whatever it is, its case must be told
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    failures.append(f"case {case}: {type(error).__name__}: {str(error)[:300]!r}")
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
        path.write_bytes(whole)
        assert not failures, f"{len(failures)} of {cases}, such as " + "\n".join(failures[:: len(failures) // 12 + 1])
        assert sorted(self.folder.rglob("*")) == before
        assert self.refused > 0


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    """A campaign in a folder of its own, in which nothing may be unpickled."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("something was to be unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(vars(pickle)["_Unpickler"], "load", refuse)
    folder = tmp_path / "campaign"
    folder.mkdir()
    return Campaign(folder)


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvest of two shards."""
    folder, rng = tmp_path_factory.mktemp("activations"), np.random.default_rng(0)
    header = {
        "schema": SCHEMA, "model": {"name": "toy", "digest": "00", "dtype": "float32"}, "layers": [1], "width": 8,
        "prompt": "what?", "system": None, "corpus": {"clips": 0, "sha256": "00"}, "seed": 0, "n_shards": 2,
    }  # fmt: skip
    (folder / HEADER).write_text(json_lines([header]))
    for shard in range(2):
        line = {"clip": f"clip {shard}", "offset": 0, "tokens": 60, "seconds": 1.0, "labels": ["bell"]}
        write_shard(folder, shard, {1: rng.standard_normal((60, 8)).astype(np.float32)}, [line])
    finish(folder, 2)
    return folder


@pytest.fixture
def kills() -> int:
    """How often a command is killed."""
    return KILLS


@pytest.fixture
def explain() -> Callable[..., Explanation]:
    """An explanation of a word, a text and a sound, whose texts are what they are given as."""

    def make(text: str = "lamp") -> Explanation:
        clip = Clip(np.sin(np.arange(8000, dtype=np.float32) / 10), 8000)
        return Explanation(
            clip=ClipInfo.of(clip),
            wave=clip,
            transcript=Transcript(text, "given"),
            messages=({"role": "user", "content": text},),
            response=text,
            in_domain=True,
            model={"name": text, "digest": "00", "dtype": "float32"},
            aligner={"name": "pocket", "digest": "00", "rules": "sgpa", "emission": "phone", "notes": [text]},
            game={"value": "logprob", "readout": "response log-probability", "absence": "silence", "key": "00"},
            estimand="shapley",
            estimator={"name": "exact", "budget": 4096, "seed": 0},
            engine="waveform",
            outputs=({"name": "response", "kind": "response"}, {"name": text, "kind": "token"}),
            players=(
                Player(text, "word", 0.2, 0.6, 0.9, True),
                Player(text, "text", None, None, tokens=(3, 5)),
                Player("sound", "sound", 0.7, 0.9),
            ),
            values=np.array([[0.5, 0.5], [2.0, 2.0], [-0.1, -0.1]]),
            standard_errors=np.zeros((3, 2)),
            empty_value=np.array([-3.0, -3.0]),
            full_value=np.array([-0.6, -0.6]),
            efficiency_gap=np.zeros(2),
            interactions=({"index": "k-SII", "order": 2, "players": [0, 1], "values": [0.5, 0.5]},),
            evaluations={"requested": 8, "unique": 8, "model_forwards": 8},
            timings={"evaluate": 0.5},
            versions={"sgpa_jax": "0"},
            warnings=(text,),
        )

    return make


@contextmanager
def _bounds() -> Iterator[None]:
    """Bounds on the memory of a campaign, and an end to an input that hangs."""

    def hangs(*_: Any) -> NoReturn:
        raise AssertionError(f"the reader takes more than {SECONDS:g} s of processor time")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, hangs)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, handler)
