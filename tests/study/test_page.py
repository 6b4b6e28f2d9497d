"""The page: self-contained, readable on a phone, and whatever a manifest says stays text."""

import re
from pathlib import Path
from typing import Any

import pytest

from sgpa_jax.study.page import page
from sgpa_jax.study.table import Table

TOLD = {
    "command": "sgpa study <manifest>", "corpus": "corpus/manifest.jsonl", "items": 12, "hardware": "2 cores",
    "models": [{"name": "pocket", "digest": "0" * 64, "dtype": "float32"}], "settings": {"seed": 0},
    "aligner": {"name": "pocket", "digest": "1" * 64}, "versions": {"jax": "0"},
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tables: dict[str, Table], figures: dict[str, tuple[str, bytes]]) -> str:
    hostile = Table("hostile", "A <script>alert(1)</script> title", "note", ("x",), ({"x": "<img src=x onerror=1>"},))
    return page([*tables.values(), hostile], figures, TOLD)


def test_the_page_is_alone_and_trusts_no_text(text: str):
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "<script" not in text and "<img src=x" not in text
    assert "&lt;manifest&gt;" in text
    assert text.count("data:image/png;base64,") == 5


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_it_fits_a_desktop_and_a_phone(browser: Any, text: str, tmp_path: Path, width: int, scheme: str):
    (tmp_path / "index.html").write_text(text, "utf-8")
    complaints: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as context:
        context.set_default_timeout(120_000)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.goto((tmp_path / "index.html").as_uri())
        assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        sizes = tab.evaluate(
            "[...document.querySelectorAll('main *')].filter((e) => e.innerText && e.checkVisibility())"
            ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 16
        heights = tab.evaluate("[...document.querySelectorAll('nav a')].map((e) => e.getBoundingClientRect().height)")
        assert min(heights) >= 44
        assert tab.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        tab.locator("nav a").first.click()
        assert tab.evaluate("location.hash") == "#paper"
    assert complaints == []
