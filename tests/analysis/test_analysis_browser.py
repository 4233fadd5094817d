"""The pages in a real browser: they draw, complain of nothing, ask nobody, and serve keyboard, telephone and printer.

Needs Chromium and its driver (Debian: `chromium`, `chromium-driver`), and selenium; without them it is skipped.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustsearch.analysis import report
from robustsearch.analysis.pareto import main as pareto
from robustsearch.recipe import Recipe
from robustsearch.results import SCHEMA

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

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
            (function look() { !plot || "drawn" in plot.dataset ? done() : setTimeout(look, 20); })();
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
def large(make_run, make_row) -> Path:
    """The report of a run of 1,000 trials, with failures and importances."""
    rng = np.random.default_rng(0)
    rows = [make_row("baseline", 12, 0.3, 0.9, role="baseline")]
    for index in range(TRIALS):
        lr, depth = float(rng.uniform(0.01, 0.1)), int(rng.choice([10, 16, 22]))
        recipe = Recipe.of({"training": {"lr": lr}, "model": {"depth": depth}, "lwta": {"gate": "mean"}})
        name, robust, latency = f"{index:04d}", 0.3 + 4 * lr + 0.02 * rng.normal(), depth / 10 + 0.1 * rng.random()
        if index % 50:
            rows.append(make_row(name, 12, float(robust), latency, recipe=recipe, train_s=30.0))
        else:
            rows.append(make_row(name, 3, None, None, recipe=recipe, state="diverged", reason="loss is nan"))
    folder: Path = make_run([])
    (folder / "results").mkdir()
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
    pq.write_table(table, folder / "results" / "all.parquet")
    return report.write(folder)


def test_every_page_draws_complains_of_nothing_and_asks_nobody(browser, small, large, hand_folder, tmp_path) -> None:
    assert pareto([str(hand_folder), "--out", str(tmp_path)]) == 0
    for path, points in ((small, 7), (large, TRIALS - TRIALS // 50 + 1), (tmp_path / "pareto.html", 7)):
        browser.open(path)
        drawn = browser.run(
            "return document.getElementById('plot').data.filter((t) => t.customdata)"
            ".reduce((sum, t) => sum + t.x.length, 0)"
        )
        assert drawn == points
        assert browser.run("return document.querySelectorAll('#plot .scatterlayer .point').length") >= points
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
            const figures = document.querySelectorAll("img:not(.pixels)");
            return [...figures].map((one) => one.width / one.getAttribute("width"));
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
        x, y = browser.run("""
            const plot = document.getElementById("plot"), box = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            return [box.x + xaxis._offset + xaxis.d2p(1.0), box.y + yaxis._offset + yaxis.d2p(50)].map(Math.round);
        """)
        mouse = webdriver.ActionChains(browser.driver)
        mouse.w3c_actions.pointer_action.move_to_location(x, y).pause(0.3).click()
        mouse.perform()
        return str(browser.run("return document.getElementById('toast').textContent"))

    said = WebDriverWait(browser.driver, 30).until(click_it)
    command = f"python -m robustsearch.evaluate {hand_folder} --trial 0001 --epoch 4"
    assert said == f"copied: {command}"
    assert browser.pasted() == command


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
