"""The terminal's table: bars, colours where they belong, and texts that stay text."""

import io

from rich.console import Console

from sgpa_jax.explain import Explanation
from sgpa_jax.report import plain_table, table
from sgpa_jax.report.palette import LIGHT


def row(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(label))


def test_bars_grow_to_either_side_of_one_line(exact_explanation: Explanation) -> None:
    text = plain_table(exact_explanation)
    rows = [row(text, label) for label in ("make", "blue", "red")]
    zeros = {line.index("│") for line in rows}
    assert len(zeros) == 1
    zero = zeros.pop()
    assert rows[1][zero + 1 :] == "█" * 12
    assert rows[2][:zero].endswith("████")
    assert rows[2][zero + 1 :] == ""
    assert "│▌" in rows[0]


def test_plain_text_has_no_escapes_and_fits(
    hostile_explanation: Explanation, estimated_explanation: Explanation
) -> None:
    for x in (hostile_explanation, estimated_explanation):
        for width in (60, 100):
            text = plain_table(x, width=width)
            assert "\x1b" not in text
            assert max(map(len, text.splitlines())) <= width


def test_markup_in_a_transcript_stays_text(hostile_explanation: Explanation) -> None:
    text = plain_table(hostile_explanation)
    assert "[bold red]" in text
    assert "[/]" in text


def test_a_terminal_gets_the_poles_of_the_scale(exact_explanation: Explanation) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=100)
    with console.capture() as capture:
        console.print(table(exact_explanation))
    for pole in (LIGHT.negative, LIGHT.positive):
        red, green, blue = (int(pole[i : i + 2], 16) for i in (1, 3, 5))
        assert f"38;2;{red};{green};{blue}" in capture.get()
