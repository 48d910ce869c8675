"""The page in a real browser: it moves, follows, fits a phone and breaks no rule."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from deeplab2_edge.runtime.serve import LiveView
from deeplab2_edge.runtime.serve.newest import Newest
from tests.runtime.serve.browser import Browser, Page, find_browser, open_browser
from tests.runtime.serve.scenes import (
    CAR,
    PERSON,
    ROAD,
    SKY,
    SOURCE,
    publish,
    publishing,
)

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="there is no browser: apt-get install chromium"
)

# Frame, mean of the picture's red, and the ids in the table, all of one moment.
LOOK = """(() => {
  const canvas = document.getElementById("picture");
  // Reading from the page's own canvas would change how that one is kept.
  const copy = new OffscreenCanvas(canvas.width, 20).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, 20);
  let sum = 0;
  for (let place = 0; place < data.length; place += 4) sum += data[place];
  const rows = [...document.querySelectorAll("#segments tr")];
  return { number: Number(canvas.dataset.number), red: 4 * sum / data.length,
           ids: rows.map((row) => Number(row.dataset.id)) };
})()"""
STATE = "document.getElementById('state').textContent"
NUMBER = "Number(document.getElementById('picture').dataset.number ?? 0)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with open_browser(PROGRAM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_the_picture_moves_and_the_table_follows(browser: Browser) -> None:
    with LiveView(port=0, token="auto", max_fps=30) as live:
        page = browser.open_page(live.url)
        assert page.evaluate("location.search") == ""  # the token is not left there
        page.wait_for(f"{STATE} === 'waiting'")
        seen = set()
        for number in range(1, 7):
            publish(live, number)
            page.wait_for(f"{NUMBER} === {number}")
            look = page.evaluate(LOOK)
            assert abs(look["red"] - number * 40 % 256) <= 3
            persons = [PERSON] if number % 2 else []
            assert look["ids"] == [CAR, *persons, SKY, ROAD]
            seen.add(look["red"])
        assert len(seen) == 6
        assert page.evaluate(STATE) == "running"
        cells = "[...document.querySelectorAll('#segments td')].map(c => c.textContent)"
        assert page.evaluate(cells)[:4] == ["car", str(CAR), "0.90", "2.8 %"]
        # Waiting for a camera is no work: it is no bar, and not in the sum.
        assert page.evaluate("document.getElementById('total').textContent") == "33.5"
        stages = "document.getElementById('stages').innerText.split(/\\s+/)"
        assert page.evaluate(stages)[:4] == ["preprocess", "1.0", "network", "30.5"]
        place = "document.getElementById('place').textContent"
        assert page.evaluate(place) == f"{SOURCE} · frame 6"
        described = "document.getElementById('picture').getAttribute('aria-label')"
        assert page.evaluate(described) == "Picture with sky, road, car"
    page.wait_for(f"{STATE} === 'ended'")
    assert page.evaluate(LOOK)["number"] == 6  # the last picture stays
    _check_quiet(page, live_url="http://127.0.0.1")


def test_a_fast_run_is_followed_at_the_speed_of_the_page(browser: Browser) -> None:
    with LiveView(port=0, max_fps=20) as live, publishing(live, every_s=0.004):
        page = browser.open_page(live.url)
        page.wait_for(f"{NUMBER} > 0")
        first = page.evaluate(NUMBER)
        page.wait_for(f"{NUMBER} > {first + 100}")
        stats = live.stats
        assert stats.encoded < stats.published / 4
        _check_quiet(page)


def test_pause_keeps_the_picture_and_asks_for_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    with LiveView(port=0) as live, publishing(live, every_s=0.02):
        page = browser.open_page(live.url)
        page.wait_for(f"{NUMBER} > 2")
        page.evaluate("document.getElementById('pause').click()")
        assert page.evaluate(STATE) == "paused"
        page.evaluate("new Promise((done) => setTimeout(done, 300))")
        kept, num_requests = page.evaluate(LOOK), len(page.requests())
        page.evaluate("new Promise((done) => setTimeout(done, 300))")
        assert page.evaluate(LOOK) == kept and len(page.requests()) == num_requests
        files = _save(browser, page, tmp_path, kept["number"])
        picture = cv2.imread(str(files[".jpg"]))
        assert picture is not None and abs(picture[:20, :, 2].mean() - kept["red"]) < 1
        document = json.loads(files[".json"].read_text())
        assert document["number"] == kept["number"]
        assert {s["id"] for s in document["segments"]} == set(kept["ids"])
        page.evaluate("document.getElementById('pause').click()")
        page.wait_for(f"{NUMBER} > {kept['number']}")
        _check_quiet(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, scheme: str) -> None:
    with LiveView(port=0) as live, publishing(live, every_s=0.05, size=(200, 400)):
        page = browser.open_page(
            live.url, size=(390, 844), is_phone=True, scheme=scheme
        )
        page.wait_for(f"{NUMBER} > 0")
        root = "document.documentElement"
        assert page.evaluate(f"[{root}.scrollWidth, innerWidth]") == [390, 390]
        low = "[...document.querySelectorAll('button')].map(b => b.offsetHeight)"
        assert min(page.evaluate(low)) >= 44  # what a thumb hits
        assert page.evaluate(CONTRAST) >= 4.5
        assert page.evaluate(NAMELESS) == []
        _check_quiet(page)


def test_nothing_foreign_runs_in_the_page(browser: Browser) -> None:
    with LiveView(port=0) as live:
        page = browser.open_page(live.url)
        page.evaluate(
            """(() => {
              const script = document.createElement("script");
              script.textContent = "window.harm = 1";
              document.body.append(script);
              document.body.insertAdjacentHTML("beforeend",
                "<img src='http://localhost:1/x' onerror='window.harm = 2'>");
            })()"""
        )
        page.evaluate("new Promise((done) => setTimeout(done, 100))")
        assert page.evaluate("window.harm") is None
        problems = page.problems()
        assert any("script-src" in problem for problem in problems)
        assert any("img-src" in problem for problem in problems)
        page.call("Page.close")


def test_a_lost_server_is_told_and_found_again(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiveView(port=0) as live, publishing(live, every_s=0.05):
        port = int(live.url.rstrip("/").rpartition(":")[2])
        page = browser.open_page(live.url)
        page.wait_for(f"{NUMBER} > 0")
    page.wait_for(f"{STATE} === 'ended'")
    with LiveView(port=port) as live, publishing(live, every_s=0.05):
        page.wait_for(f"{STATE} === 'running'")
        # As if the power failed: nobody says goodbye.
        monkeypatch.setattr(Newest, "finish", lambda _: None)
    page.wait_for(f"{STATE} === 'connection lost'")
    with LiveView(port=port, token="auto"):
        page.wait_for(f"{STATE} === 'token needed'")
    page.call("Page.close")


# The least contrast of a text against what lies behind it (WCAG 2.2, 1.4.3).
CONTRAST = """(() => {
  const channel = (v) =>
    (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) =>
    0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3) return color;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.offsetParent && [...element.childNodes].some(
      (node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return Math.min(...texts.map((element) => {
    const pair = [parse(getComputedStyle(element).color), behind(element)].map(light);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  }));
})()"""
# What a screen reader could not name.
NAMELESS = """[...document.querySelectorAll("button, canvas, section, table, ul")]
  .filter((e) => !(e.textContent.trim() && e.tagName === "BUTTON") && !e.caption
    && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby"))
  .map((e) => e.outerHTML)"""


def _save(browser: Browser, page: Page, folder: Path, number: int) -> dict[str, Path]:
    browser.call(
        "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder)
    )
    files = {}
    for button, suffix in (("save-picture", ".jpg"), ("save-result", ".json")):
        files[suffix] = folder / f"camera_0_{number:06d}{suffix}"
        page.evaluate(f"document.getElementById('{button}').click()")
        for _ in range(50):
            page.evaluate("new Promise((done) => setTimeout(done, 50))")
            if files[suffix].exists():
                break
        assert files[suffix].exists(), list(folder.iterdir())
    return files


def _check_quiet(page: Page, *, live_url: str = "http://127.0.0.1:") -> None:
    """Checks that the page had no errors, broke no policy and asked only its server."""
    assert page.problems() == []
    assert {url for url in page.requests() if not url.startswith(live_url)} <= {
        url for url in page.requests() if url.startswith(("data:image/svg", "blob:"))
    }
    page.call("Page.close")
