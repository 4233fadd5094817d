"""How fast the page of a large run opens: `python -m benchmarks.report_page [--trials 1000] [--openings 7]`.

Makes up a run (recipes drawn from the space `lwta`, two rungs each, invented numbers), writes its report, and opens it
in headless Chromium: each time a new process with a new profile, so that nothing was compiled or cached before, the
page's file out of the system's cache and the browser's own files in it. Prints a Markdown table of the seconds from
the start of the navigation until

    first paint     something is on the screen (`first-contentful-paint`)
    front drawn     the frame after the one that has the picture of the front
    load event      `loadEventEnd`
    open            the later of the last two: everything can be seen and read
    interactive     the frame after the one in which the front has answered a key with the numbers of a point

and, of the whole opening, the processor time of the page's main thread. Chromium and its driver must be installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from selenium import webdriver

from robustsearch.analysis import report
from robustsearch.latency import device_name
from robustsearch.recipe import Recipe
from robustsearch.results import SCHEMA
from robustsearch.runfolder import RunFolder
from robustsearch.search_spaces import lwta  # type: ignore[attr-defined]  # the folder `search_spaces`, as installed

RUNGS = (6, 12)
WATCH = """
const later = (name) => requestAnimationFrame(() => requestAnimationFrame(() => { window[name] = performance.now(); }));
let pictured = false, answered = false;
const look = () => {
  const picture = [...document.querySelectorAll(".picture > img")].find((one) => one.complete && one.clientWidth);
  if (!pictured && picture) later("frontDrawn");
  pictured ||= Boolean(picture);
  document.getElementById("plot")?.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  answered = document.getElementById("hover")?.hidden === false;
  if (answered) later("interactive");
  if (!pictured || !answered) requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
READ = """
const done = arguments[0];
(function look() {
  const [navigation] = performance.getEntriesByType("navigation");
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  if (!window.interactive || !window.frontDrawn || !navigation.loadEventEnd || !paint) return setTimeout(look, 50);
  done([paint.startTime, window.frontDrawn, navigation.loadEventEnd, window.interactive]);
})();
"""
COLUMNS = ("first paint", "front drawn", "load event", "open", "interactive", "main thread")


def made_up(folder: Path, trials: int, seed: int = 0) -> None:
    """Write a run of so many trials and the baseline, a fiftieth of which failed."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    recipes = {f"{index:04d}": lwta.suggest(study.ask(), 0.1) for index in range(trials)}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows: list[dict[str, Any]] = []
    for index, (trial, recipe) in enumerate(({"baseline": Recipe()} | recipes).items()):
        row = {
            "run": folder.name,
            "trial": trial,
            "role": "baseline" if trial == "baseline" else "search",
            "digest": recipe.digest,
            "recipe": recipe.to_json(),
            "n": 200,
            "engine": "onnxruntime",
            "threads": 1,
            "dataset": "digits",
            "split": "validation",
            "epsilon": 0.1,
            "protocol": "quick",
            "device": "made up",
            "time": start + timedelta(minutes=index),
            **recipe.flat(),
        }
        if index % 50 == 49:
            rows.append(row | {"epoch": 3, "state": "diverged", "reason": "loss is nan"})
            continue
        latency = 0.2 * recipe.model.widen_factor * recipe.draws * rng.lognormal(0, 0.1)
        reached = 0.9 - 0.3 * abs(np.log10(recipe.training.lr) + 1.2) - 0.3 * rng.beta(1, 3)
        for epoch, share in zip(RUNGS, (0.8, 1.0), strict=True):
            measured = {"natural": 0.9, "fgsm": 0.6, "pgd": 0.5, "cw": 0.7, "robust": 0.5}
            measured = {name: float(share * reached * (0.6 + 0.4 * value)) for name, value in measured.items()}
            ends = {
                f"{name}_{end}": value + sign * 0.06
                for name, value in measured.items()
                for end, sign in (("low", -1), ("high", 1))
            }
            times = {"latency_p50": latency, "latency_p95": 1.3 * latency, "throughput": 1e3 / latency}
            size = {"parameters": 466_000, "macs": 5_000_000, "train_s": 5.0 * epoch, "eval_s": 2.0}
            rows.append(row | measured | ends | times | size | {"epoch": epoch, "state": "completed"})
    RunFolder(folder).write_info({"name": folder.name, "space": "lwta", "dataset": "digits", "protocol": "quick"})
    (folder / "results").mkdir(exist_ok=True)
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA)
    pq.write_table(table, folder / "results" / "all.parquet", write_page_checksum=True)


def opening(page: Path, width: int) -> tuple[list[float], str]:
    """Seconds of one opening in a browser of its own, as `COLUMNS`, and the browser's version."""
    with page.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as profile:
        for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            driver.set_script_timeout(120)
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
            driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
            driver.get(page.as_uri())
            paint, front, load, active = (value / 1000 for value in driver.execute_async_script(READ))
            metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
            thread = next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")
            return [paint, front, load, max(front, load), active, thread], str(driver.capabilities["browserVersion"])
        finally:
            driver.quit()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, metavar="N")
    parser.add_argument("--openings", type=int, default=7, metavar="N")
    parser.add_argument("--widths", type=int, nargs="+", default=[1600], metavar="PX")
    parser.add_argument("--page", type=Path, metavar="FILE", help="open this page instead")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        page = given.page
        if page is None:
            made_up(Path(temporary) / "large", given.trials)
            page = report.write(Path(temporary) / "large")
        rows = {}
        for width in given.widths:
            found = [opening(page.resolve(), width) for _ in range(given.openings)]
            rows[width], version = np.array([seconds for seconds, _ in found]), found[0][1]
        what = f"{given.page.name}" if given.page else f"{given.trials} trials"
        print(f"{what}, {page.stat().st_size / 1e6:.1f} MB; {given.openings} openings, Chromium {version}, headless;")
        print(f"{device_name('cpu')}. Seconds: median (least to most).\n")
        print(f"| width, px | {' | '.join(COLUMNS)} |")
        print("|---" * (1 + len(COLUMNS)) + "|")
        for width, seconds in rows.items():
            cells = [f"{np.median(each):.2f} ({each.min():.2f} to {each.max():.2f})" for each in seconds.T]
            print(f"| {width} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
