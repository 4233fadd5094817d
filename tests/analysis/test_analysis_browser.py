"""The pages in a real browser: they draw, complain of nothing, ask nobody, and serve keyboard, telephone and printer.

Needs Chromium and its driver (Debian: `chromium`, `chromium-driver`), and selenium; without them it is skipped.
"""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustsearch.analysis import report, style
from robustsearch.analysis.pareto import main as pareto
from robustsearch.recipe import Recipe

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package
from benchmarks.report_page import made_up  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"),
    pytest.mark.timeout(300),
]
TRIALS = 1000
QUIETLY = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


class Browser:
    """Chromium, and what its pages asked for and complained of since they were opened."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in (*QUIETLY, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(120)

    def open(self, path: Path, width: int = 1600) -> None:
        """Open a page and wait until its plot is drawn, if it has one."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(path.as_uri())
        self.driver.execute_async_script("""
            const done = arguments[0], plot = document.getElementById("plot");
            (function look() { !plot || "ready" in plot.dataset ? done() : setTimeout(look, 20); })();
        """)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def pasted(self) -> str:
        """What the clipboard holds, as the search field shows it."""
        field = self.driver.find_element("id", "search")
        field.clear()
        field.send_keys(Keys.CONTROL, "v")
        value = str(field.get_property("value"))
        field.clear()
        return value


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module")
def small(hand_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the hand-made run."""
    return report.write(hand_folder, tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of 1,000 trials, with failures and importances."""
    folder: Path = tmp_path_factory.mktemp("large")
    made_up(folder, TRIALS)
    return report.write(folder)


def test_every_page_draws_complains_of_nothing_and_asks_nobody(browser, small, large, hand_folder, tmp_path) -> None:
    assert pareto([str(hand_folder), "--out", str(tmp_path)]) == 0
    measured = 2 * (TRIALS - TRIALS // 50) + 1  # two rungs of each that did not fail, and the baseline
    for path, points in ((small, 7), (large, measured), (tmp_path / "pareto.html", 7)):
        browser.open(path)
        assert browser.run("return data.plot.points.length") == points
        assert browser.run("return [...document.images].every((one) => one.complete && one.naturalWidth > 0)")
        assert browser.driver.get_log("browser") == []
        asked = browser.requests()
        assert asked[0] == path.as_uri()
        assert all(re.match(r"data:|blob:", url) for url in asked[1:])


@pytest.mark.parametrize("width", [400, 1600])
def test_pages_can_be_read_at_any_width(browser, small, large, width: int) -> None:
    for path in (small, large):
        browser.open(path, width)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        smallest = browser.run("""
            const sizes = [];
            const written = (node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim();
            for (const one of document.querySelectorAll("main *, footer *"))
              if ([...one.childNodes].some(written) && one.checkVisibility())
                sizes.push(parseFloat(getComputedStyle(one).fontSize));
            return Math.min(...sizes);
        """)
        assert smallest >= 12
        scales = browser.run("""
            const figures = [...document.querySelectorAll("img:not(.pixels)")].filter((one) => one.checkVisibility());
            return figures.map((one) => one.width / one.getAttribute("width"));
        """)
        assert scales
        assert min(scales) >= 0.8  # of letters of 8 and 9 pt
        assert browser.run("return document.getElementById('plot').getBoundingClientRect().width") <= width


def test_the_keyboard_reaches_everything(browser, small) -> None:
    browser.open(small)
    reached = []
    for _ in range(80):
        browser.press(Keys.TAB)
        name = browser.run("""
            const one = document.activeElement;
            if (one === document.body) return null;
            const name = one.id || one.className || one.getAttribute("href");
            return name || one.tagName + ":" + (one.getAttribute("aria-labelledby") || one.textContent.trim());
        """)
        if name is None:
            break
        reached.append(name)
        assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"#front", "#commands", "copies", "search", "copy"} <= set(reached)
    assert "BUTTON:p50 (ms)" in reached
    assert any("python -m analysis.report" in name for name in reached)  # long commands scroll
    assert reached.count("copy") == 2 + 7  # the front, and all points


def test_keys_copy_sort_and_search(browser, small, hand_folder: Path) -> None:
    browser.open(small)
    copy = browser.driver.find_element("css selector", "#front-table button.copy")
    for choice, expected in (
        ("evaluate", f"python -m robustsearch.evaluate {hand_folder} --trial 0001 --epoch 4"),
        ("ablate", f"python -m robustsearch.run --ablate {hand_folder}:0001"),
        ("recipe", Recipe().to_json()),
    ):
        browser.run("document.getElementById('copies').value = arguments[0]", choice)
        copy.send_keys(Keys.ENTER)
        assert browser.pasted() == expected
    head = browser.driver.find_element("xpath", "//table[@id='points-table']//th[starts-with(., 'robust')]/button")
    orders = []
    for way in ("descending", "ascending"):
        head.send_keys(Keys.ENTER)
        assert browser.run("return arguments[0].parentElement.getAttribute('aria-sort')", head) == way
        cells = "return [...document.querySelectorAll('#points-table tbody tr')].map((row) => row.cells[4].textContent)"
        orders.append([float(text.split()[0]) for text in browser.run(cells)])
    assert orders == [[65, 60, 55, 50, 40, 30, 20], [20, 30, 40, 50, 55, 60, 65]]
    browser.driver.find_element("id", "search").send_keys("lwta-4 fails")
    rows = browser.driver.find_elements("css selector", "#points-table tbody tr:not([hidden])")
    assert [row.text.split()[:2] for row in rows] == [["0002", "4"]]


def test_a_click_on_a_point_copies_its_command(browser, small, hand_folder: Path) -> None:
    browser.open(small)

    def click_it(_: object) -> str:
        """What the page says after a click on the point, wherever it has moved to while the page was drawn."""
        browser.run("document.getElementById('front').scrollIntoView()")
        x, y = place(browser, "0001", 4)
        mouse = webdriver.ActionChains(browser.driver)
        mouse.w3c_actions.pointer_action.move_to_location(round(x), round(y)).pause(0.3).click()
        mouse.perform()
        return str(browser.run("return document.getElementById('toast').textContent"))

    said = WebDriverWait(browser.driver, 30).until(click_it)
    command = f"python -m robustsearch.evaluate {hand_folder} --trial 0001 --epoch 4"
    assert said == f"copied: {command}"
    assert browser.pasted() == command


def place(browser: Browser, trial: str, epoch: int) -> list[float]:
    """Where the page looks for a point, in pixels of the window."""
    return browser.run(  # type: ignore[no-any-return]
        """
        const { points, places } = data.plot, [trial, epoch] = arguments;
        const at = points.findIndex((one) => one[0] === trial && one[1] === epoch);
        const picture = [...document.querySelectorAll(".picture")].find((one) => one.clientWidth);
        const box = picture.getBoundingClientRect(), [x, y] = places[picture.id][at];
        return [box.x + x * box.width, box.y + y * box.height];
    """,
        trial,
        epoch,
    )


@pytest.mark.parametrize("width", [400, 1600])
def test_a_point_is_where_its_picture_has_it(browser, small, width: int) -> None:
    browser.open(small, width)
    for enlarged in (1, 2):
        browser.run("document.getElementById('plot').scrollIntoView({block: 'center'})")
        for trial, colour in (("0001", style.FRONT), ("baseline", style.INK)):
            browser.run(
                """
                const plot = document.getElementById("plot"), box = plot.getBoundingClientRect(), [x, y] = arguments;
                plot.scrollBy(x - box.x - box.width / 2, y - box.y - box.height / 2);
            """,
                *place(browser, trial, 4),
            )
            x, y = place(browser, trial, 4)
            picture = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
            expected = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
            assert np.abs(np.subtract(picture.getpixel((round(x), round(y))), expected)).max() < 8, (trial, enlarged)
        browser.driver.find_element("id", "closer").click()


@pytest.mark.parametrize("width", [400, 1600])
def test_over_a_point_its_numbers_and_settings_are_shown(browser, small, width: int) -> None:
    browser.open(small, width)
    browser.run("document.getElementById('plot').scrollIntoView({block: 'center'})")
    mouse = webdriver.ActionChains(browser.driver)
    x, y = place(browser, "0002", 4)
    mouse.w3c_actions.pointer_action.move_to_location(round(x) + 3, round(y) - 2)
    mouse.perform()
    shown = browser.driver.find_element("id", "hover")
    lines = shown.text.split("\n")
    assert lines[0] == "0002, epoch 4"
    assert {"robust 60.0 [56.0, 64.0] % over 1 seed", "masking checks: fails", "lwta.gate = mean"} <= set(lines)
    box = shown.rect
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    mouse.w3c_actions.pointer_action.move_to_location(2, 2)
    mouse.perform()
    assert not shown.is_displayed()


def test_keys_go_from_point_to_point_and_copy(browser, small, hand_folder: Path) -> None:
    browser.open(small)
    browser.run("document.getElementById('plot').focus()")
    shown = browser.driver.find_element("css selector", "#hover strong")
    seen = []
    for key in (Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_DOWN):
        browser.press(key)
        seen.append(shown.text)
    front = ["0001, epoch 4", "0002, epoch 4"]
    assert seen == [*front, front[1], "0002, epoch 2", front[1], front[0]]
    browser.press(Keys.ENTER)
    assert browser.pasted() == f"python -m robustsearch.evaluate {hand_folder} --trial 0001 --epoch 4"
    browser.run("document.getElementById('plot').focus()")
    browser.press(Keys.END)  # no key of ours
    assert not shown.is_displayed()


def test_a_page_prints_whole(browser, small) -> None:
    browser.open(small)
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": False})
    content = base64.b64decode(printed["data"])
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 2
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    size = {"width": 720, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # A4 within its margins
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    unfolded = "return [...document.querySelectorAll('details')].map((one) => one.open)"
    try:
        browser.run("window.dispatchEvent(new Event('beforeprint'))")
        assert all(browser.run(unfolded))
        clipped = browser.run("""
            return [...document.querySelectorAll("main *")].filter((one) => one.checkVisibility()
              && getComputedStyle(one).overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1)
              .map((one) => one.outerHTML.slice(0, 80));
        """)
        assert clipped == []
        assert browser.run("return document.querySelector('nav').checkVisibility()") is False
        wide = "return [...document.querySelectorAll('table')].map((one) => one.getBoundingClientRect().right)"
        assert max(browser.run(wide)) <= 720
    finally:
        browser.run("window.dispatchEvent(new Event('afterprint'))")
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert not any(browser.run(unfolded))


def test_names_that_a_shell_would_split_are_quoted(browser, make_run, make_row, tmp_path: Path) -> None:
    folder = tmp_path / "it's a run"
    shutil.copytree(make_run([make_row("0001", 1, 0.5, 1.0)]), folder)
    browser.open(report.write(folder))
    button = browser.driver.find_element("css selector", "#front-table button.copy")
    button.send_keys(Keys.ENTER)
    words = shlex.split(browser.pasted())
    assert words[2:] == ["robustsearch.evaluate", str(folder), "--trial", "0001", "--epoch", "1"]
