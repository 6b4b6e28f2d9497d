"""What a report says of players together: the totals of their groups, and what pairs of them do beyond their own."""

from sgpa_jax.explain import Explanation
from sgpa_jax.report.facts import number, player_name, unit
from sgpa_jax.report.palette import scale_limit

_MOST = 8


def group_totals(explanation: Explanation) -> str:
    """Return what each group of players adds to the answer, in the order of the players; empty without groups."""
    x = explanation
    limit = scale_limit(x.values)
    told = []
    for group in dict.fromkeys(x.groups):
        members = [p for p, own in enumerate(x.groups) if own == group]
        names = [player_name(x, p) for p in members]
        if len(names) > 2 * _MOST:
            names = [*names[:_MOST], "…", *names[-_MOST:]]
        told.append(f"“{' '.join(names)}” {number(float(x.values[members, 0].sum()), limit)}")
    return f"{', '.join(told)}{f' {unit(x)}' if unit(x) else ''}." if told else ""


def strongest_interactions(explanation: Explanation) -> str:
    """Return the strongest interactions of two players or more; empty without any."""
    x = explanation
    found = [entry for entry in x.interactions if len(entry["players"]) > 1]
    if not found:
        return ""
    limit = max(abs(float(entry["values"][0])) for entry in found)
    strongest = sorted(found, key=lambda entry: -abs(float(entry["values"][0])))[:_MOST]
    told = [
        f"{' × '.join(f'“{player_name(x, p)}”' for p in entry['players'])} {number(float(entry['values'][0]), limit)}"
        for entry in strongest
    ]
    index, order = found[0]["index"], found[0]["order"]
    among = f"the strongest of {len(found):,}" if len(found) > _MOST else "all"
    return f"{', '.join(told)}{f' {unit(x)}' if unit(x) else ''} ({index} of order {order}, {among})."
