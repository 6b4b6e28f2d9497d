"""The page of a data set: what it tells, that no text can do anything, and how it looks in a real browser."""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgpa_jax.audio import read_clip, write_wav
from sgpa_jax.batch import Outcome, write_page
from sgpa_jax.batch.page import page_name
from sgpa_jax.batch.survey import spelling, survey
from sgpa_jax.errors import UsageError
from sgpa_jax.explain import ClipInfo

HOSTILE = '<script>window.hacked=1</script></script><img src=x onerror="window.hacked=2">'
IDS = (
    "../../../etc/passwd",
    "javascript:alert(1)",
    "CON",
    "a/b\\c",
    HOSTILE,
    "",
    "ü" * 300,
    "..",
    "A",
    "a",
    "\x1b[31m",
)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, make_outcome: Callable[..., Outcome], make_run: Callable[..., Path]
) -> Path:
    """A data set of everyday items, one with its recording, and of items that want to be something else."""
    out = tmp_path_factory.mktemp("data") / "run"
    everyday = [make_outcome(f"utterance {n}", n_players=3 + n % 4, in_domain=n != 2) for n in range(20)]
    heard = make_outcome("heard").explanation
    assert heard is not None
    wave_s = np.sin(np.arange(8000, dtype=np.float32) / 7)
    write_wav(out.parent / "heard.wav", read_clip(wave_s, rate_hz=8000))
    clip = read_clip(out.parent / "heard.wav")
    everyday.append(replace(make_outcome("heard"), explanation=replace(heard, clip=ClipInfo.of(clip))))
    hostile = [
        replace(
            make_outcome(
                f"{n}", n_players=8, estimator="permutation", labels=[HOSTILE] * 8, response=HOSTILE,
                model={"name": HOSTILE, "digest": HOSTILE, "dtype": "float32"},
            ),
            id=id, name=id,
        )
        for n, id in enumerate(IDS)
    ]  # fmt: skip
    fell = [Outcome(f"fell {n}", "x.wav", None, None, f"no such file: '{n}.wav' of {n} bytes", 0.0) for n in range(3)]
    make_run(out, [everyday, [*hostile, *fell], [Outcome(HOSTILE, "x", None, None, HOSTILE, 0.0)], None], key=HOSTILE)
    assert write_page(out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "index.html").read_text("utf-8")


def test_it_tells_what_was_found(text: str):
    told = html.unescape(text)
    for part_of in (
        "32 of 36 items explained", "1 of 4 bundles are missing", "1 item out of the model's domain",
        "Shapley values (exact for 21 items, permutation for 11 items)", "coalitions in 16.0 s:",
        "3 items</dt><dd>no such file: '0.wav' of 0 bytes", "Where in the utterance", "Players of an item",
        "budget 64", "nats", ">make<", "n = 21",
    ):  # fmt: skip
        assert part_of in told, part_of


def test_numbers_are_those_of_the_tables(folder: Path):
    found = survey(folder)
    assert (found.n_items, found.n_failed, found.n_bundles, found.n_outside) == (36, 4, 3, 1)
    assert found.players == {3: 5, 4: 6, 5: 5, 6: 5, 8: 11} and found.gaps.sum() == 32
    words = {word: entry for word, entry in found.words.items() if word in ("make", "the")}
    assert [words["make"].n, words["the"].n] == [21, 21]
    assert found.reasons["no such file: … of … bytes"] == (3, "fell 0", "no such file: '0.wav' of 0 bytes")
    errors = [noted.weight for noted in found.outliers["error"]]
    assert len(errors) == 6 and errors == sorted(errors, reverse=True)
    assert [noted.id for noted in found.outliers["outside"]] == ["utterance 2"]
    assert 6 <= len(found.examples) <= 12
    low, middle, high = found.position_quartiles()[0] or (0, 0, 0)
    assert 0 < low < middle < high
    assert spelling("“Lamp,”") == "lamp" and spelling("?") == "?"


def test_gaps_are_told_where_values_should_add_up(
    make_run: Callable[..., Path], make_outcome: Callable[..., Outcome], tmp_path: Path
):
    gaps = {"a": 1e-9, "b": 0.25, "c": 1e-3, "d": 4.0}
    outcomes = [make_outcome(id, efficiency_gap=np.array([gap, 0.0])) for id, gap in gaps.items()]
    found = survey(make_run(tmp_path / "run", [outcomes]))
    assert [(noted.id, noted.told) for noted in found.outliers["gap"]] == [("d", "4"), ("b", "0.25"), ("c", "0.001")]
    assert found.largest_gap == 4.0 and found.gaps.sum() == 4
    assert "Efficiency gaps" in write_page(tmp_path / "run").read_text("utf-8")
    banzhaf = survey(make_run(tmp_path / "banzhaf", [[make_outcome("a", estimand="banzhaf", efficiency_gap=[2.0, 0])]]))
    assert "gap" not in banzhaf.outliers and banzhaf.largest_gap == 2.0


def test_nothing_is_asked_and_no_text_becomes_an_element(folder: Path, text: str):
    assert "<script" not in text and "<img" not in text and 'style="' not in text and "default-src &#x27;none" in text
    assert not re.findall(r'(?:src|href)="(?!data:|pages/[a-z0-9-]+\.html")', text)
    assert html.escape(HOSTILE) in text and "\x1b" not in text
    links = set(re.findall(r'href="(pages/[^"]+)"', text))
    pages = {f"pages/{path.name}" for path in (folder / "pages").iterdir()}
    assert links == pages and len(links) > 12
    for path in (folder / "pages").iterdir():
        content = path.read_text("utf-8")
        assert content.count("<script") == 2 and "<img" not in content


def test_names_of_pages_are_safe_and_differ():
    names = [page_name(id) for id in IDS]
    assert len({name.lower() for name in names}) == len(IDS)
    for name in names:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,90}\.html", name)


def test_a_page_has_its_recording_where_that_is_still_there(folder: Path):
    heard = (folder / "pages" / page_name("heard")).read_text("utf-8")
    silent = (folder / "pages" / page_name("utterance 2")).read_text("utf-8")
    assert "data:audio/wav" in heard and "data:audio/wav" not in silent


def test_recordings_may_be_handed_to_it(
    make_run: Callable[..., Path], make_outcome: Callable[..., Outcome], tmp_path: Path
):
    wave_s = np.sin(np.arange(8000, dtype=np.float32) / 9)
    clips = {"a": read_clip(wave_s, rate_hz=8000), "b": read_clip(wave_s[::-1].copy(), rate_hz=8000)}
    out = make_run(tmp_path / "run", [[make_outcome("a"), make_outcome("b")]])
    write_page(out, clip_of=clips.__getitem__)
    pages = [(out / "pages" / page_name(id)).read_text("utf-8") for id in "ab"]
    assert ["data:audio/wav" in page for page in pages] == [True, False], "b is another recording than was explained"


def test_a_data_set_of_failures_alone_has_a_page(make_run: Callable[..., Path], tmp_path: Path):
    out = make_run(tmp_path / "run", [[Outcome("a", "a.wav", None, None, "it is silent", 0.0)]])
    told = write_page(out).read_text("utf-8")
    assert "Nothing was explained." in told and "it is silent" in told and not (out / "pages").exists()
    assert "Nothing was explained." in write_page(make_run(tmp_path / "empty", [])).read_text("utf-8")
    with pytest.raises(UsageError, match="there is no"):
        write_page(tmp_path)


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_it_fits_a_desktop_and_a_phone(browser: Any, folder: Path, width: int, scheme: str):
    complaints: list[str] = []
    requests: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as context:
        context.set_default_timeout(120_000)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((folder / "index.html").as_uri())
        assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        sizes = tab.evaluate(
            "[...document.querySelectorAll('main *')].filter((e) => e.innerText && e.checkVisibility())"
            ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 16
        heights = tab.evaluate(
            "[...document.querySelectorAll('.index a')].map((e) => e.getBoundingClientRect().height)"
        )
        assert min(heights) >= 44
        charts = tab.evaluate(
            "[...document.querySelectorAll('.chart svg')].map((e) => e.getBoundingClientRect().width)"
        )
        assert len(charts) == 2 and min(charts) > 150
        tab.locator("a", has_text="utterance 2").last.click()
        assert tab.locator("h1 .answer").inner_text() == "blue"
        tab.goto((folder / "pages" / page_name(HOSTILE)).as_uri())
        assert tab.evaluate("window.hacked") is None
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
