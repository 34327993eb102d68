"""Check the built site in headless Chromium: as files, from a server, and at a phone's width.

Each page is also checked with axe-core, light and dark, and chapters have a limit of bytes. The
contrast of a text takes axe 9 tenths of its time, so texts that look alike are checked once.

`python -m tools.site [--screenshots FOLDER]` prints the problems.
"""

import argparse
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, TimeoutError, sync_playwright

from tools.build import HTML, package_folder
from tools.serve import HERE, server

BROWSERS = ("chromium", "google-chrome", "chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = 1280, 390  # CSS pixels
LOCAL = {"", HERE}  # names of this machine; files have no host
SECONDS = 20

CHAPTER_BYTES = 1_500_000  # a page with its images; what all pages share is loaded once
IMAGE = re.compile(r'src="[^"]*(_images/[^"]+)"')
SEARCHES = ("memory", "3D", "HD95", "hippocampus")  # words of texts, not only of titles

HEIGHT = 900
ENTRY = "index.html"  # redirects to book/index.html
FOUND = "#search-results li a"
MATH = ".math"
TYPESET = """() => document.querySelectorAll(".math").length
    === document.querySelectorAll(".math mjx-container").length"""
EXCESS = "() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
CULPRITS = """() => [...document.querySelectorAll("main *")]
    .filter(one => one.getBoundingClientRect().right > window.innerWidth + 1)
    .map(one => `${one.tagName.toLowerCase()} "${one.textContent.trim().slice(0, 40)}"`)
    .slice(0, 5).join(", ")"""
AXE = "axe_playwright_python"  # the package that brings axe-core
STILL = "* { transition: none !important; }"  # a colour that is still changing has less contrast
# What axe says of a page in a theme, and which looks of texts it has now decided on. A look is the
# text's colour, size and weight, and the grounds of what it lies in; shadows are not part of it.
VIOLATIONS = """async ([theme, decided]) => {
    document.documentElement.dataset.theme = theme;
    const behind = new Map([[null, ""]]);
    const ground = one => {
        if (!behind.has(one)) {
            const {backgroundColor, backgroundImage, opacity, position} = getComputedStyle(one);
            const layers = [ground(one.parentElement)];
            if (backgroundColor !== "rgba(0, 0, 0, 0)") layers.push(backgroundColor);
            if (backgroundImage !== "none") layers.push(backgroundImage);
            if (opacity !== "1") layers.push(opacity);
            if (!["static", "relative"].includes(position)) layers.push(one.className);
            behind.set(one, layers.join(" "));
        }
        return behind.get(one);
    };
    const each = 3; // texts of a look and page, if axe cannot decide on one; our choice
    const known = new Set(decided), alike = new Map(), looks = new Map();
    for (const one of document.body.querySelectorAll("*")) {
        const written = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!written || !one.checkVisibility({visibilityProperty: true})) continue;
        const {color, fontSize, fontWeight} = getComputedStyle(one);
        const look = [theme, color, fontSize, fontWeight, ground(one)].join(" ");
        const count = alike.get(look) ?? 0;
        if (known.has(look) || count === each) continue;
        alike.set(look, count + 1);
        looks.set(one, look);
        one.dataset.look = theme;
    }
    const contrast = "color-contrast", options = {preload: false, elementRef: true};
    options.resultTypes = ["violations", "incomplete"];
    if (theme === "dark") options.runOnly = [contrast, "link-in-text-block"];
    axe.configure({rules: [{id: contrast, selector: `[data-look=${theme}]`}]});
    const {incomplete, violations} = await axe.run(document, options);
    for (const {nodes} of incomplete.filter(({id}) => id === contrast))
        for (const {element} of nodes) looks.delete(element);
    return [[...known, ...looks.values()], violations.map(({id, help, nodes}) =>
        `${id}: ${help} (${nodes.length} times, first at ${nodes[0].target.join(" ")})`)];
}"""


def browser_path() -> str | None:
    """Return the path of the installed Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def look(folder: Path, searches: Sequence[str], screenshots: Path | None = None) -> list[str]:
    """Return the problems of the site in `folder`, one sentence each.

    Every page is opened at both widths. `searches` are words that the search must find.
    """
    pages = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]
    pages = [page for page in pages if page != ENTRY and not page.startswith("_")]
    problems, decided = [*too_large(folder)], set[str]()
    with sync_playwright() as playwright, served(folder) as address:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        for root, widths in (
            (folder.resolve().as_uri(), (PHONE, DESKTOP)),
            (address, (DESKTOP, PHONE)),
        ):
            problems += expect(browser, f"{root}/{ENTRY}", ".bd-article h1")
            for word in searches:
                problems += expect(browser, f"{root}/search.html?q={word}", FOUND)
            for page in pages:
                problems += visit(browser, f"{root}/{page}", widths, decided, screenshots)
        browser.close()
    return problems


def too_large(folder: Path) -> Iterator[str]:
    """Yield the chapters that take more bytes than they may."""
    for page in sorted((folder / "notebooks").glob("*.html")):
        text = page.read_text(encoding="utf-8")
        images = (folder / name for name in sorted(set(IMAGE.findall(text))))
        size = page.stat().st_size + sum(one.stat().st_size for one in images if one.exists())
        if size > CHAPTER_BYTES:
            limit = CHAPTER_BYTES / 1e6
            yield f"notebooks/{page.name}: has {size / 1e6:.2f} MB; the limit is {limit:g} MB"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve `folder` on a free port of this machine, and yield the address."""

    serving = server(folder)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        yield f"http://{HERE}:{serving.server_port}"
    finally:
        serving.shutdown()


@contextmanager
def opened(browser: Browser, address: str, width: int) -> Iterator[tuple[Page, list[str]]]:
    """Open a page; yield it with the list of its errors and of its requests to other machines."""
    problems: list[str] = []

    def note(what: str) -> None:
        problems.append(f"{address}: {what}")

    def guard(route: Route) -> None:
        parts = urlsplit(route.request.url)
        if parts.scheme in {"data", "blob"} or (parts.hostname or "") in LOCAL:
            route.continue_()
        else:
            note(f"requests {route.request.url} from another machine")
            route.abort()

    context = browser.new_context(viewport={"width": width, "height": HEIGHT})
    context.route("**/*", guard)
    page = context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.on("console", lambda said: note(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: note(f"script error: {error}"))
    page.on("response", lambda got: note(f"{got.status} for {got.url}") if not got.ok else None)
    page.on("requestfailed", lambda asked: note(f"cannot load {asked.url}"))
    page.goto(address, wait_until="load")
    try:
        yield page, problems
    finally:
        context.close()


def visit(
    browser: Browser,
    address: str,
    widths: tuple[int, int],
    decided: set[str],
    screenshots: Path | None,
) -> list[str]:
    """Return the problems of one page: errors, formulas that are not typeset, wide content.

    Looks of texts in `decided` are not checked for their contrast, and new ones are added.
    """
    with opened(browser, address, widths[0]) as (page, problems):
        if page.locator(MATH).count():
            try:
                page.wait_for_function(TYPESET)
            except TimeoutError:
                problems.append(f"{address}: its formulas are not typeset")
            if page.locator("[data-mjx-error], mjx-merror").count():
                problems.append(f"{address}: MathJax cannot typeset a formula")
        for width in widths:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            if (excess := page.evaluate(EXCESS)) > 0:
                culprits = page.evaluate(CULPRITS)
                problems.append(f"{address}: {excess} px too wide at {width} px: {culprits}")
            if screenshots is not None and address.startswith("http"):
                name = f"{Path(urlsplit(address).path).stem}-{width}.png"
                page.screenshot(path=screenshots / name, full_page=True, animations="disabled")
        if address.startswith("http"):
            problems += [f"{address}: {said}" for said in violations(page, decided)]
        return problems


def violations(page: Page, decided: set[str]) -> Iterator[str]:
    """Yield what axe-core finds on a page, in the light and in the dark theme."""
    page.add_style_tag(content=STILL)
    page.evaluate((package_folder(AXE) / "axe.min.js").read_text(encoding="utf-8"))
    for theme in ("light", "dark"):
        now, found = page.evaluate(VIOLATIONS, [theme, list(decided)])
        decided.update(now)
        yield from (f"{theme} theme, {said}" for said in found)


def expect(browser: Browser, address: str, selector: str) -> list[str]:
    """Return the problems of a page on which an element must appear."""
    with opened(browser, address, DESKTOP) as (page, problems):
        try:
            page.wait_for_selector(selector)
        except TimeoutError:
            problems.append(f"{address}: '{selector}' does not appear")
        return problems


def main() -> None:
    """Check the site in `_build/html` of the current folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", type=Path)
    parser.add_argument("--search", nargs="+", default=SEARCHES, help="Words that it must find.")
    given = parser.parse_args()
    if problems := look(Path.cwd() / HTML, given.search, given.screenshots):
        raise SystemExit("\n".join(problems))
    print("the site has no problems")


if __name__ == "__main__":
    main()
