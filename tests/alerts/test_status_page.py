"""The remediator's status page in a real browser: by keyboard, on a phone, without a complaint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci.cluster import ClusterError
from ci.pictures.drawing import PicturesError, browser
from ci.pictures.status_sample import NIGHT, NOW, QUIET, STANDBY, largest
from selfheal_remediator.health import Reply, serve
from selfheal_remediator.status_page.html import HEADERS, render
from selfheal_remediator.status_page.snapshot import Snapshot
from tests.support.browser import Page, browsing
from tests.support.waiting import until

LONG = "a-name-without-any-place-to-break-it-" * 8
#: What a screen reader needs of each table, and what has no name for it.
TABLES = """[...document.querySelectorAll("table")].map((table) => [
  table.caption.textContent.length > 0,
  [...table.tHead.rows[0].cells].every((cell) => cell.scope === "col"),
  [...table.tBodies[0].rows].every((row) => row.cells[0].scope === "row"),
])"""
NAMELESS = """[...document.querySelectorAll("a, button, progress, nav, section")].filter((one) =>
  !(one.ariaLabel || one.textContent.trim() || one.getAttribute("aria-labelledby"))).length"""
LANDMARKS = """["header", "nav", "main", "footer", "h1"].map((one) =>
  document.querySelectorAll(one).length)"""


def _healthy() -> str:
    return ""


class Site:
    """What is served; shown = None: nothing."""

    def __init__(self) -> None:
        self.shown: Snapshot | None = NIGHT
        self.server = serve(0, _healthy, _healthy, lambda: b"", {"/status": self._reply})
        self.url = f"http://127.0.0.1:{self.server.server_port}/status"

    def _reply(self) -> Reply | None:
        if self.shown is None:
            return None
        page = render(self.shown, NOW).encode()
        return Reply(200, "text/html; charset=utf-8", page, HEADERS)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def page(unavailable: Callable[[str], None], tmp_path: Path) -> Iterator[Page]:
    try:
        program = browser(lambda _: None)
    except (PicturesError, ClusterError) as error:
        unavailable(f"no browser: {error}")
        raise
    with browsing(program, tmp_path) as made:
        yield made


def test_it_loads_nothing_and_complains_of_nothing(page: Page, site: Site) -> None:
    for shown in (NIGHT, QUIET, STANDBY, largest("<img src=x onerror=alert(1)>", 5000)):
        site.shown = shown
        page.open(site.url)
        loaded = page.run("performance.getEntriesByType('resource').map((one) => one.name)")
        assert [name for name in loaded if not name.endswith("/favicon.ico")] == []
        assert page.run(LANDMARKS) == [1, 1, 1, 1, 1]
        assert page.run(NAMELESS) == 0
        assert all(all(table) for table in page.run(TABLES))
    assert page.problems == []


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, site: Site, width: int) -> None:
    page.resize(width, 640)
    for shown in (NIGHT, STANDBY, largest(LONG, 5000, 2)):
        site.shown = shown
        page.open(site.url)
        assert page.run("document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: Page, site: Site) -> None:
    page.open(site.url)
    wanted = page.run("document.querySelectorAll('a, button, pre').length")
    seen = []
    for _ in range(wanted):
        page.press("Tab")
        seen.append(page.run("document.activeElement.textContent"))
        assert page.run("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert seen[0] == "Skip to the content"
    assert seen[-2] == "Pause updates"
    assert len(set(seen)) == wanted
    page.run("document.getElementById('pause').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.textContent") == "Resume updates"


def test_it_updates_itself_and_says_when_nobody_answers(page: Page, site: Site) -> None:
    page.resize(360, 640)
    page.open(site.url)
    site.shown = QUIET
    drains = "document.getElementById('count-drains').textContent"
    until("the drain is gone", lambda: page.run(drains) == "0")
    page.run("scrollTo(0, document.body.scrollHeight)")
    note = "document.getElementById('connection')"
    site.shown = STANDBY
    until("it is stale", lambda: page.run(f"{note}.textContent").startswith("Stale."))
    site.shown = None
    said = "No answer from the remediator: what is shown is as of "
    until("it says that", lambda: said in page.run(f"{note}.textContent"))
    page.run("scrollTo(0, document.body.scrollHeight)")
    # Whoever reads the Events must not take them for the latest.
    place = f"{note}.getBoundingClientRect()"
    top, bottom, height, scrolled = page.run(f"[{place}.top, {place}.bottom, innerHeight, scrollY]")
    assert scrolled > 0
    assert 0 <= top < bottom <= height


def test_without_scripts_it_is_all_there_and_reloads(page: Page, site: Site) -> None:
    page.resize(360, 640, script=False)
    page.open(site.url)
    page.resize(360, 640)
    assert page.run("document.querySelectorAll('table').length") == 5
    assert page.run("document.querySelector('meta[http-equiv=refresh]').content") == "15"
