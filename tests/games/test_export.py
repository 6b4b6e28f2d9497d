"""Every jitted function of the engines lowers for TPU, with the arguments that games give it."""

import importlib
import pkgutil
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import sgpa_jax
from sgpa_jax.audio import Clip
from sgpa_jax.games import evaluate_together, speech_game
from sgpa_jax.games.game import Reference
from sgpa_jax.games.responses import response_game
from sgpa_jax.games.scores import divergence
from sgpa_jax.models import load_model, with_response
from sgpa_jax.players import Player, Players

RATE_HZ = 16000
ROOMS = ("games", "models.model", "models.generate", "models.speech")
GAMES = {
    "qwen2_audio": ("silence", "delete", "embedding"),
    "lfm2_audio": ("noise", "delete", "mel_delete", "drop"),
}
MASKS_CP = np.array([[False, True], [True, True], [True, False]])


class Exporter:
    """Stands in for jitted functions: exports them instead of running them, and gives zeros of the right shape."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.functions: dict[str, Any] = {}
        self.exported: set[str] = set()
        names = [module.name for module in pkgutil.walk_packages(sgpa_jax.__path__, "sgpa_jax.")]
        modules = [importlib.import_module(name) for name in names if name.startswith(_prefixes())]
        jitted = type(jax.jit(lambda: None))
        for module in modules:
            for name, found in vars(module).items():
                if isinstance(found, jitted) and _name(found).startswith(_prefixes()):
                    self.functions[_name(found)] = found
                    monkeypatch.setattr(module, name, self._instead_of(found))

    def _instead_of(self, function: Any) -> Any:
        def export(*arguments: Any, **named: Any) -> Any:
            if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((arguments, named))):
                return function(*arguments, **named)
            exported = jax.export.export(function, platforms=["tpu"])(*arguments, **named)
            assert exported.platforms == ("tpu",)
            self.exported.add(_name(function))
            zeros = [jnp.zeros(aval.shape, aval.dtype) for aval in exported.out_avals]
            return jax.tree.unflatten(exported.out_tree, zeros)

        return export


@pytest.fixture
def exporter(monkeypatch):
    return Exporter(monkeypatch)


def _name(function: Any) -> str:
    return f"{function.__module__}.{function.__name__}"


def _prefixes() -> tuple[str, ...]:
    return tuple(f"sgpa_jax.{room}" for room in ROOMS)


def test_every_jitted_function_of_the_engines(exporter, tiny_folder):
    rng = np.random.default_rng(0)
    clip = Clip(rng.uniform(-0.1, 0.1, 2 * RATE_HZ).astype(np.float32), RATE_HZ)
    spans = [(0.2, 0.9), (1.1, 1.8)]
    players = Players(tuple(Player(f"{a}", "word", a, b) for a, b in spans), len(clip.wave_s), RATE_HZ)
    for family, absences in GAMES.items():
        model = load_model(tiny_folder(family), dtype="float32")
        inputs = model.prepare(clip, "which colour?", response="red")
        for absence in absences:
            speech_game(model, inputs, players, absence=absence).values(MASKS_CP)
            evaluate_together([speech_game(model, inputs, players, absence=absence)] * 2, [MASKS_CP, MASKS_CP])
        response_game(model, inputs, players, score="response_embedding", max_new_tokens=2).values(MASKS_CP)
    response_game(model, inputs, players, absence="drop", max_new_tokens=2, mode="sequential").values(MASKS_CP)
    halves = [{"type": "audio", "audio": Clip(half_s, RATE_HZ)} for half_s in np.split(clip.wave_s, 2)]
    turn = {"role": "user", "content": [*halves, {"type": "text", "text": "which colour?"}]}
    windows = replace(model.prepare([turn]), starts_s=(0.0, 1.0))
    speech_game(model, with_response(windows, [3, 4]), players, absence="silence").values(MASKS_CP)
    model.logits(inputs)
    model.residuals(inputs, [0])
    logits_crv = rng.standard_normal((3, 2, 7)).astype(np.float32)
    divergence(logits_crv, Reference(logits_crv[0], None))
    missing = exporter.functions.keys() - exporter.exported
    assert not missing, f"no game here calls {sorted(missing)}"
