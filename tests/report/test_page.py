"""The page as a file: self-contained, small, strict, and unmoved by what is written in a transcript."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sgpa_jax.audio import Clip, wav_bytes
from sgpa_jax.explain import ClipInfo, Explanation
from sgpa_jax.players import ambient_noise
from sgpa_jax.report import notebook_frame, page, write_page


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def embedded(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_page_asks_nothing_of_anybody(exact_explanation: Explanation, tmp_path: Path) -> None:
    write_page(exact_explanation, tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text("utf-8")
    for _, attributes in Elements(text).seen:
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "http:" not in text
    assert "https:" not in text


def test_the_policy_admits_exactly_our_script_and_style(hostile_explanation: Explanation) -> None:
    text = page(hostile_explanation)
    policy = next(a["content"] for tag, a in Elements(text).seen if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(contents) == 1
        digest = base64.b64encode(hashlib.sha256(contents[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any(name.startswith("on") or name == "style" for _, a in Elements(text).seen for name in a)


def test_hostile_texts_make_no_elements(exact_explanation: Explanation, hostile_explanation: Explanation) -> None:
    kinds = [sorted({tag for tag, _ in Elements(page(x)).seen}) for x in (exact_explanation, hostile_explanation)]
    assert set(kinds[1]) - set(kinds[0]) <= {"div", "p"}
    assert sum(tag == "script" for tag, _ in Elements(page(hostile_explanation)).seen) == 2
    assert embedded(page(hostile_explanation))["players"][0]["label"].startswith("<script>")


def test_the_recording_is_inside(exact_explanation: Explanation) -> None:
    assert exact_explanation.wave is not None
    source = next(a["src"] for tag, a in Elements(page(exact_explanation)).seen if tag == "audio")
    assert source is not None
    assert base64.b64decode(source.removeprefix("data:audio/wav;base64,")) == wav_bytes(exact_explanation.wave)
    first = embedded(page(exact_explanation))["players"][0]
    assert (first["first"], first["last"]) == (1920, 6080)


@pytest.mark.parametrize(("rate_hz", "played_hz"), [(4_000, 8_000), (16_000, 16_000), (192_000, 48_000)])
def test_five_seconds_stay_under_two_megabytes(exact_explanation: Explanation, rate_hz: int, played_hz: int) -> None:
    clip = Clip(np.random.default_rng(0).uniform(-1, 1, 5 * rate_hz).astype(np.float32), rate_hz)
    text = page(replace(exact_explanation, wave=clip, clip=ClipInfo.of(clip)))
    assert len(text.encode()) < 2e6
    assert embedded(text)["rate_hz"] == played_hz


def test_noise_is_the_very_noise_of_the_game(exact_explanation: Explanation) -> None:
    x = replace(exact_explanation, game=exact_explanation.game | {"absence": "noise"})
    assert x.wave is not None
    data = embedded(page(x))
    assert data["absence"] == "noise"
    noise = Clip(ambient_noise(x.wave), x.wave.rate_hz)
    assert base64.b64decode(data["noise"].removeprefix("data:audio/wav;base64,")) == wav_bytes(noise)
    assert "noise" not in embedded(page(exact_explanation))["absences"]


def test_being_out_of_domain_is_said_loudly(exact_explanation: Explanation) -> None:
    text = page(replace(exact_explanation, in_domain=False))
    assert '<p class="first">The model was not made for speech or questions like these' in html.unescape(text)
    assert 'class="notices"' not in page(exact_explanation)


def test_without_samples_the_page_still_tells_the_values(exact_explanation: Explanation) -> None:
    text = page(replace(exact_explanation, wave=None))
    assert "<audio" not in text
    assert "nothing can be played" in text
    assert embedded(text)["numbers"][3][0] == "+4.36"


def test_a_frame_holds_the_whole_page(hostile_explanation: Explanation) -> None:
    frame = Elements(notebook_frame(hostile_explanation)).seen
    assert [tag for tag, _ in frame] == ["iframe"]
    assert frame[0][1]["srcdoc"] == page(hostile_explanation)
    assert frame[0][1]["sandbox"] == "allow-scripts"
