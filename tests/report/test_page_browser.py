"""The page in a real browser: clicks play the right samples, the page follows, and nothing else happens."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgpa_jax.explain import Explanation
from sgpa_jax.report import write_page

# What the page hands to the sound card, and every word that it marks as being heard, with the position at that moment.
SPY = """
  window.played = [];
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (...when) {
    window.played.push({
      when,
      rate: this.buffer.sampleRate,
      samples: Array.from(this.buffer.getChannelData(0)),
      state: { ...document.getElementById("report").dataset },
      status: document.getElementById("status").textContent,
      absent: [...document.querySelectorAll(".chip")].map((chip) => chip.classList.contains("absent")),
    });
    return start.apply(this, when);
  };
  window.marked = [];
  window.positions = [];
  addEventListener("DOMContentLoaded", () => {
    const report = document.getElementById("report");
    new MutationObserver(() => {
      const { playingWord, position } = report.dataset;
      if (playingWord !== "") window.marked.push([Number(playingWord), Number(position)]);
    }).observe(report, { attributeFilter: ["data-playing-word"] });
    new MutationObserver(() => {
      if (report.dataset.playing) window.positions.push(Number(report.dataset.position));
    }).observe(report, { attributeFilter: ["data-position"] });
  });
"""
Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open an explanation's page; afterwards, no complaint and no request may have been made."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []

    def opened(explanation: Explanation, **looks: Any) -> Any:
        write_page(explanation, tmp_path / "x.html")
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | looks))
        context.set_default_timeout(120_000)
        contexts.append(context)
        context.add_init_script(SPY)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((tmp_path / "x.html").as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def state(tab: Any) -> dict[str, str]:
    return tab.evaluate("({ ...document.getElementById('report').dataset })")


def until(tab: Any, condition: str) -> None:
    """Wait for a JavaScript condition; Playwright's own waiting needs an eval, which the page's policy refuses."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(20)
    raise AssertionError(f"never came true: {condition}")


def taken(tab: Any, count: int) -> dict[str, Any]:
    """Return the latest of `count` takes, once it has begun."""
    until(tab, f"window.played.length === {count}")
    take = tab.evaluate("window.played.at(-1)")
    assert take["rate"] == 16_000
    assert take["when"] == []
    return take


def played(tab: Any, count: int) -> np.ndarray:
    return np.array(taken(tab, count)["samples"], np.float32)


def pcm(wave_s: np.ndarray) -> np.ndarray:
    return (np.rint(wave_s.astype(np.float64) * 32768) / 32768).astype(np.float32)


def test_a_click_plays_the_word_alone(open_page: Open, exact_explanation: Explanation) -> None:
    tab = open_page(exact_explanation)
    assert exact_explanation.wave is not None
    tab.locator(".chip").nth(3).click()
    np.testing.assert_array_equal(played(tab, 1), pcm(exact_explanation.wave.wave_s)[13_760:19_520])
    tab.locator(".segment").nth(6).click()
    np.testing.assert_array_equal(played(tab, 2), pcm(exact_explanation.wave.wave_s)[27_200:32_320])
    assert state(tab)["pieces"] == '[["recording",1.7,2.02]]'
    until(tab, "document.getElementById('report').dataset.playing === ''")


@pytest.mark.parametrize("absence", ["silence", "delete", "noise"])
def test_a_click_plays_all_but_the_word_as_the_game_did(
    open_page: Open, exact_explanation: Explanation, absence: str
) -> None:
    from sgpa_jax.players import ambient_noise

    x = replace(exact_explanation, game=exact_explanation.game | {"absence": absence})
    assert x.wave is not None
    tab = open_page(x)
    tab.get_by_label("all but the word").check()
    assert "as in the game" in tab.locator("#absences label", has=tab.locator("input:checked")).inner_text()
    tab.locator(".chip").nth(3).click()
    wave_s, first, last = pcm(x.wave.wave_s), 13_760, 19_520
    instead_s = {"silence": np.zeros_like(wave_s), "noise": pcm(ambient_noise(x.wave)), "delete": wave_s[:0]}[absence]
    expected_s = np.concatenate([wave_s[:first], instead_s[first:last], wave_s[last:]])
    take = taken(tab, 1)
    np.testing.assert_array_equal(np.array(take["samples"], np.float32), expected_s)
    assert (take["state"]["playing"], take["state"]["word"]) == ("without", "3")
    assert take["absent"] == [p == 3 for p in range(8)]
    assert take["status"].startswith("Playing all but “blue”, which is ")


def test_the_page_follows_the_whole_recording(open_page: Open, exact_explanation: Explanation) -> None:
    tab = open_page(exact_explanation)
    assert exact_explanation.wave is not None
    tab.get_by_role("button", name="Play the recording").click()
    until(tab, "window.played.length === 1 && document.getElementById('report').dataset.playing === ''")
    np.testing.assert_array_equal(played(tab, 1), pcm(exact_explanation.wave.wave_s))
    positions, marked = tab.evaluate("[window.positions, window.marked]")
    # A busy machine may skip frames, and with them short words, but never shows a wrong one or steps back.
    assert positions == sorted(positions)
    assert max(positions) - min(positions) > 1
    assert len({p for p, _ in marked}) >= 2
    assert marked == sorted(marked)
    for p, position_s in marked:
        player = exact_explanation.players[p]
        assert player.start_s - 0.002 <= position_s <= player.end_s + 0.002
    assert tab.locator(".current").count() == 0
    assert state(tab)["position"] == "0.000"


def test_playing_pauses_goes_on_and_seeks_by_keyboard(open_page: Open, exact_explanation: Explanation) -> None:
    tab = open_page(exact_explanation)
    assert exact_explanation.wave is not None
    tab.locator("#seek").focus()
    tab.keyboard.press("End")
    for _ in range(50):
        tab.keyboard.press("ArrowLeft")
    assert state(tab)["position"] == "2.000"
    tab.locator("#play").focus()
    tab.keyboard.press("Enter")
    np.testing.assert_array_equal(played(tab, 1), pcm(exact_explanation.wave.wave_s)[32_000:])
    tab.locator(".chip").nth(0).focus()
    tab.keyboard.press("Space")
    assert played(tab, 2).size == 4160


def test_a_token_recolours_the_words(open_page: Open, exact_explanation: Explanation) -> None:
    tab = open_page(exact_explanation, reduced_motion="reduce")
    colours = "[...document.querySelectorAll('.chip')].map((chip) => getComputedStyle(chip).backgroundColor)"
    before, finding = tab.evaluate(colours), tab.locator("#finding").inner_text()
    tab.get_by_label("<|im_end|>").check()
    assert tab.evaluate(colours)[3] != before[3]
    assert tab.locator(".chip small").nth(3).inner_text() == "+0.06"
    assert tab.locator(".amount").nth(5).inner_text() == "−0.02"
    assert tab.locator("#finding").inner_text() != finding
    assert state(tab)["output"] == "2"
    tab.get_by_label("whole answer").check()
    assert tab.evaluate(colours) == before


def test_a_hostile_transcript_stays_text(open_page: Open, hostile_explanation: Explanation) -> None:
    tab = open_page(hostile_explanation)
    tab.locator(".chip").nth(0).click()
    assert played(tab, 1).size == 4160
    assert tab.locator(".chip b").nth(0).inner_text() == hostile_explanation.players[0].label
    assert tab.locator(".answer").inner_text() == hostile_explanation.response
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("script").count() == 2
    assert tab.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_all_in_readable_size(
    open_page: Open, estimated_explanation: Explanation, scheme: str
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "color_scheme": scheme}
    tab = open_page(replace(estimated_explanation, in_domain=False), **phone)
    assert tab.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    sizes = tab.evaluate("""
      [...document.querySelectorAll("main *")].filter((element) => element.checkVisibility() && element.innerText)
        .map((element) => parseFloat(getComputedStyle(element).fontSize))
    """)
    assert min(sizes) >= 16
    targets = tab.evaluate("""
      [...document.querySelectorAll(".chip, .play, .pills label, #seek")].filter((element) => element.checkVisibility())
        .map((element) => element.getBoundingClientRect()).map(({ width, height }) => Math.min(width, height))
    """)
    assert min(targets) >= 44
    tab.locator(".chip").nth(3).tap()
    assert played(tab, 1).size == 5760


def test_without_a_recording_there_is_nothing_to_press(open_page: Open, exact_explanation: Explanation) -> None:
    tab = open_page(replace(exact_explanation, wave=None))
    assert tab.locator("#controls").is_hidden()
    assert tab.locator(".chip").nth(0).is_disabled()
    assert tab.locator(".chip small").nth(3).inner_text() == "+4.36"


def test_a_notebook_frame_plays(browser: Any, exact_explanation: Explanation, tmp_path: Path) -> None:
    (tmp_path / "notebook.html").write_text(f"<!doctype html>{exact_explanation._repr_html_()}", "utf-8")
    with browser.new_context() as context:
        context.set_default_timeout(120_000)
        context.add_init_script(SPY)
        tab = context.new_page()
        tab.goto((tmp_path / "notebook.html").as_uri())
        tab.frame_locator("iframe").locator(".chip").nth(3).click()
        assert played(tab.frames[1], 1).size == 5760
