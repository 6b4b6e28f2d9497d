"""Pages of concepts: what they tell, that no text can do anything, and how they play in a real browser."""

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgpa_jax.audio import Clip, write_wav
from sgpa_jax.concepts import Concept, ConceptBank, Representative
from sgpa_jax.errors import ExplanationError
from sgpa_jax.explain import Explanation
from sgpa_jax.report import firing_words, plain_table, write_concept_pages
from sgpa_jax.report import page as explanation_page

HOSTILE = '<script>window.hacked=1</script></script><img src=x onerror="window.hacked=2">'
FIRED = {
    "after_layer": 1, "positions": "audio", "reduce": "sum", "estimator": "exact", "latents": 256, "considered": 256,
    "evaluations": {"requested": 256, "unique": 256, "model_forwards": 256},
    "answer": {"empty_value": -2.0, "full_value": -0.5},
    "concepts": [
        {"latent": 17, "name": "a dog", "effect": 9.0, "empty_value": 0.0, "full_value": 9.0,
         "values": [0.0, 0.1, 0.5, 6.0, 0.0, 0.2, -1.0, 3.2], "standard_errors": [0.0] * 8, "carries": 1.25,
         "carries_error": 0.0},
        {"latent": 4, "name": None, "effect": 1.0, "empty_value": 0.0, "full_value": 1.0,
         "values": [1.0, *[0.0] * 7], "standard_errors": [0.0] * 8, "carries": None, "carries_error": None},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for n in range(4):
        seconds = 1 + 0.25 * n
        wave_s = np.sin(np.arange(int(16_000 * seconds)) / (8 + n)) * rng.uniform(0.1, 0.3)
        write_wav(folder / f"{n}.wav", Clip(wave_s.astype(np.float32), 16_000))
    return [folder / f"{n}.wav" for n in range(4)]


@pytest.fixture(scope="module")
def bank(recordings: list[Path]) -> ConceptBank:
    clips = tuple(Representative(f"clip {n}", path, 1 + 0.25 * n, 4.0 - n) for n, path in enumerate(recordings))
    known = Concept(
        17, name="dog bark", confidence=0.9, density=0.012, n_firing=34, mean=1.5, coverage=0.4, monosemanticity=7.3,
        held_out=5.1, detection=0.93, top=clips[:2], bottom=clips[2:], captions=("a dog barks twice", "a dog"),
    )  # fmt: skip
    hostile = replace(
        known, latent=4, name=HOSTILE, captions=(HOSTILE, HOSTILE),
        top=(replace(clips[0], id=HOSTILE), replace(clips[1], path=Path("gone.wav"))), bottom=(),
    )  # fmt: skip
    return ConceptBank(
        {"name": "pocket", "digest": "00", "dtype": "float32"}, {"layer": 1, "n_latents": 256},
        (known, hostile, Concept(9)), {"embedder": HOSTILE, "clips": 55},
    )  # fmt: skip


@pytest.fixture(scope="module")
def timelines() -> dict[tuple[str, int], np.ndarray]:
    lines = {(f"clip {n}", 17): np.linspace(0, 4 - n, 25 + 6 * n) for n in range(3)}
    return lines | {("clip 3", 17): np.zeros(43), (HOSTILE, 4): np.ones(25)}


@pytest.fixture
def told(exact_explanation: Explanation) -> Explanation:
    return replace(exact_explanation, concepts=FIRED)


@pytest.fixture
def pages(bank: ConceptBank, timelines, told: Explanation, tmp_path: Path) -> list[Path]:
    return write_concept_pages(bank, tmp_path / "pages", timelines, explanations=[told])


def test_a_page_for_every_concept_and_an_index(pages: list[Path], recordings: list[Path]):
    assert [path.name for path in pages] == ["index.html", *(f"latent-{n:06d}.html" for n in (17, 4, 9))]
    index, known, _, bare = (path.read_text("utf-8") for path in pages)
    assert re.findall(r'href="(latent-[^"]+)"', index) == [path.name for path in pages[1:]]
    assert "3 of 256 latents, 2 with a name." in index and "monosemanticity 7.30 · detection 0.93" in index
    for text in (
        "<h1>dog bark</h1>", "It fires in 34 clips, at 1.2% of all audio positions.", "a dog barks twice",
        "0.93, area under the curve", "strongest, 4, at 1.0 s", "silent throughout", "Concept 1 of 3",
    ):  # fmt: skip
        assert text in known
    found = re.findall(r'src="data:audio/wav;base64,([^"]+)"', known)
    assert len(found) == 4 and base64.b64decode(found[2]) == recordings[2].read_bytes()
    assert known.count('class="activation"') == 4
    assert "Nobody has named it." in bare and "<audio" not in bare


def test_words_that_fire_a_concept_come_from_explanations(told: Explanation, pages: list[Path]):
    words = firing_words(17, [told])
    assert [(word.label, word.value) for word in words[:2]] == [("blue", 6.0), ("♪ sound", 3.2)]
    assert all(word.value > 0 for word in words) and words[0].where == "What colour should the lamp be? → blue"
    known = pages[1].read_text("utf-8")
    assert "Words that fire it" in known and known.index(">blue<") < known.index("♪ sound")
    assert "Words that fire it" not in pages[3].read_text("utf-8")


def test_nothing_is_asked_and_no_text_becomes_an_element(pages: list[Path]):
    for path in pages:
        text = path.read_text("utf-8")
        assert "http:" not in text and "https:" not in text and "<img" not in text and 'style="' not in text
        assert text.count("<script>") == 1 and "default-src &#x27;none&#x27;" in text
        assert not re.findall(r'(?:src|href)="(?!data:|latent-\d+\.html|index\.html)', text)
    assert html.escape(HOSTILE) in pages[2].read_text("utf-8")
    assert "The recording is not where it was." in pages[2].read_text("utf-8")


def test_explanations_keep_their_concepts(told: Explanation, tmp_path: Path):
    told.save(tmp_path / "x.json")
    loaded = Explanation.load(tmp_path / "x.json")
    assert loaded.concepts == FIRED
    without = replace(told, concepts=None)
    without.save(tmp_path / "y.json")
    assert (
        '"concepts"' not in (tmp_path / "y.json").read_text() and Explanation.load(tmp_path / "y.json").concepts is None
    )
    for wrong in ({"latent": "17"}, {"values": [1.0]}, {"carries": "much"}, {"name": 3}):
        entry = FIRED["concepts"][0] | wrong
        record = json.loads((tmp_path / "x.json").read_text())
        record["concepts"]["concepts"][0] = entry
        (tmp_path / "z.json").write_text(json.dumps(record))
        with pytest.raises(ExplanationError, match=r"concepts\.concepts\[0\]"):
            Explanation.load(tmp_path / "z.json")
    with pytest.raises(ExplanationError, match="values of latent 17"):
        replace(told, concepts=FIRED | {"concepts": [FIRED["concepts"][0] | {"values": [1.0]}]})


def test_a_table_and_a_page_tell_of_concepts(told: Explanation):
    text = plain_table(told)
    row = next(line for line in text.splitlines() if line.startswith("a dog"))
    assert row.split() == ["a", "dog", "17", "“blue”", "+6.00,", "“♪", "sound”", "+3.20,", "“red”", "−1.00", "+1.25"]
    assert "latent 4" in text and "“make” +1.00" in text and text.rstrip().count("–") >= 1
    assert "a dog by “blue” +6.0" in html.unescape(explanation_page(told))
    assert "Concepts" not in plain_table(replace(told, concepts=None))


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_and_plays_it(browser: Any, pages: list[Path], width: int):
    complaints: list[str] = []
    requests: list[str] = []
    phone = {"is_mobile": True, "has_touch": True, "color_scheme": "dark"} if width < 600 else {}
    with browser.new_context(viewport={"width": width, "height": 900}, **phone) as context:
        context.set_default_timeout(120_000)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(pages[0].as_uri())
        assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        tab.locator(".index a").nth(0).click()
        assert tab.locator("h1").inner_text() == "dog bark"
        assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        sizes = tab.evaluate("""
          [...document.querySelectorAll("main *")].filter((element) => element.checkVisibility() && element.innerText)
            .map((element) => parseFloat(getComputedStyle(element).fontSize))
        """)
        assert min(sizes) >= 16
        charts = tab.evaluate(
            "[...document.querySelectorAll('.chart')].map((one) => one.getBoundingClientRect().height)"
        )
        assert len(charts) == 4 and min(charts) >= 44
        # A press in the middle of the chart plays from there; another clip's stops it.
        box = tab.locator(".chart").nth(1).bounding_box()
        tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + 5)
        until(tab, "document.getElementById('report').dataset.playing === '1'")
        assert tab.evaluate("Number(document.getElementById('report').dataset.position)") >= 0.6
        assert tab.locator(".cursor").nth(1).is_visible() and tab.locator(".cursor").nth(0).is_hidden()
        tab.locator(".chart").nth(2).focus()
        tab.keyboard.press("Enter")
        until(tab, "document.getElementById('report').dataset.playing === '2'")
        assert tab.evaluate("document.querySelectorAll('audio')[1].paused")
        tab.keyboard.press("Enter")
        until(tab, "document.getElementById('report').dataset.playing === ''")

        tab.goto(pages[2].as_uri())
        assert tab.locator("h1").inner_text() == HOSTILE
        assert tab.evaluate("window.hacked") is None and tab.locator("img").count() == 0
        assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def until(tab: Any, condition: str) -> None:
    """Wait for a condition; Playwright's own waiting needs an eval, which the page's policy refuses."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(20)
    raise AssertionError(f"never came true: {condition}")
