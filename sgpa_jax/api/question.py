"""What `explain` and `plan` begin with: names that are checked, the model, and what it is asked."""

from pathlib import Path

from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.estimators import paper_budget
from sgpa_jax.games import ABSENCES, RESPONSE_SCORES, TEXT_ABSENCES, VALUES
from sgpa_jax.models import Model, load_model, parse_mesh

LONG = ("refuse", "windows")
"""What happens to a recording that is longer than the model hears at once."""


def check_names(absence: str, text_absence: str, value: str, response: str | None, long: str) -> None:
    """Refuse unknown names before anything is computed."""
    for kind, name, known in (
        ("absence", absence, ABSENCES),
        ("absence of text", text_absence, TEXT_ABSENCES),
        ("value", value, (*VALUES, *RESPONSE_SCORES)),
        ("way with long recordings", long, LONG),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    if response is not None and value in RESPONSE_SCORES:
        raise UsageError(
            f"the value {value} compares what the model itself says, but a response was given; leave it out, or "
            "explain its log-probability"
        )


def budget_of(budget: int | str, n_players: int) -> int:
    """Return the evaluations that are allowed: a number, or `paper` for what SGPA's paper grants so many players.

    Raises:
        UsageError: it is neither.
    """
    if budget == "paper":
        return paper_budget(n_players)
    if not isinstance(budget, int) or budget < 1:
        raise UsageError(f"the budget is {budget!r}: expected a number of coalitions, or paper")
    return budget


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
