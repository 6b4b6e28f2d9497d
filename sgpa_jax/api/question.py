"""What an explanation begins with: the model, and what it is usually asked."""

from pathlib import Path

from sgpa_jax.errors import UsageError
from sgpa_jax.models import Model, load_model, parse_mesh


def loaded(model: Model | str | Path, revision: str | None, dtype: str | None, mesh: str | None) -> Model:
    """Return the model, loading it if it is none yet."""
    if not isinstance(model, Model):
        return load_model(model, revision=revision, dtype=dtype, mesh=None if mesh is None else parse_mesh(mesh))
    if (revision, dtype, mesh) != (None, None, None):
        raise UsageError("the model is loaded already: give revision, dtype and mesh to load_model, or give its name")
    return model


def usual_prompt(model: Model, prompt: str) -> str:
    """Return the prompt, or what the model's own world asks without one."""
    return prompt or (model.world.prompt if model.world is not None else "")
