"""Measure the page "Try it" in Chromium: the image encoder and each box, on the site as built.

    python -m tools.live_times

The times are those that the page itself prints. The result is notebooks/recorded/live_times.json.
"""

import re
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from medsaga_lib.files import write_json
from tools.book import BUILD
from tools.live import PAGE, PROMPTS
from tools.provenance import RECORDED, ROOT, machine
from tools.site import DESKTOP, FLAGS, browser_path, opened, served

RECORD = RECORDED / "live_times.json"
LOADS = 7  # of the page; our choice
SECONDS = 300  # a busy machine may be slow
ENCODED = re.compile(r"The image is encoded, after ([0-9.]+) s")
# As live_worker.js counts them
THREADS = "crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1"
BOX = re.compile(r"The box took ([0-9.]+) s")


def measure(folder: Path) -> dict[str, Any]:
    """Return the seconds of `LOADS` loads of the page in a built site.

    Returns:
        `threads` of the network; and lists of seconds: `image` of the image encoder and `first` of
        the first box, one of each load, and `next` of all further boxes.
    """
    found: dict[str, Any] = {"threads": 0, "image": [], "first": [], "next": []}
    with sync_playwright() as playwright, served(folder) as address:
        for _ in range(LOADS):
            browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
            with opened(browser, f"{address}/{PAGE}.html", DESKTOP) as (page, problems):
                page.set_default_timeout(1000 * SECONDS)
                _one_load(page, found)
                assert problems == []
            browser.close()
    return found


def _one_load(page: Page, found: dict[str, Any]) -> None:
    progress, result = (page.locator(f"[data-part={part}]") for part in ("progress", "result"))

    def number(pattern: re.Pattern[str], text: str) -> float:
        told = pattern.search(text)
        assert told is not None, text
        return float(told[1])

    page.wait_for_function(
        """() => document.querySelector("[data-part=result]").innerText.includes("The box took")"""
    )
    found["threads"] = page.evaluate(THREADS)
    found["image"].append(number(ENCODED, progress.inner_text()))
    found["first"].append(number(BOX, result.inner_text()))
    form = page.locator("#live")
    for button in page.locator("[data-part=prompts] button").all()[1:PROMPTS]:
        before = int(form.get_attribute("data-answers") or 0)
        button.click()
        page.wait_for_function(
            f"Number(document.getElementById('live').dataset.answers) > {before}"
        )
        found["next"].append(number(BOX, result.inner_text()))


def main() -> None:
    """Measure the site of `make book` and write the record."""
    found = measure(ROOT / BUILD / "html")
    write_json(RECORD, {"command": "python -m tools.live_times", **machine(), **found})
    for name in ("image", "first", "next"):
        print(f"{name}: {statistics.median(found[name]):.2f} s, median of {len(found[name])}")


if __name__ == "__main__":
    main()
