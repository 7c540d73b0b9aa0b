"""A page that draws dashboards with Grafana's own libraries, and a browser that opens it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ci.cluster import machine
from ci.pictures.queries import Answers, Span
from ci.versions import cache_root

_SOURCES = Path(__file__).with_name("page")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
_SECONDS = 300
_WIDTH, _HEADER, _CELL = 1440, 48, 38  # as in page.jsx
_BUNDLE = (
    *("--bundle", "--minify", "--jsx=automatic", "--log-level=warning", "--outfile=page.js"),
    '--define:process.env.NODE_ENV="production"',
    *("--loader:.svg=dataurl", "--loader:.ttf=empty", "--loader:.woff=empty"),
    "--loader:.woff2=dataurl",
)


class PicturesError(Exception):
    """No picture; the message says why, and what to do."""


@dataclass(frozen=True)
class Drawn:
    """One panel in the browser: its series with a value, and its coloured pixels or characters."""

    title: str
    series: int
    drawn: int

    @property
    def empty(self) -> bool:
        """Without a value; thresholds and annotations are coloured too."""
        return not (self.series and self.drawn)


def prepare(say: Callable[[str], None]) -> Path:
    """The folder of the page, built once for its sources and lock file; installs what is missing.

    Raises PicturesError, and ClusterError where packages cannot be installed.
    """
    needed = {"node": "nodejs", "npm": "npm"}
    missing = [package for program, package in needed.items() if not shutil.which(program)]
    missing += [] if _browser() else ["chromium"]
    if missing:
        machine.install(missing, say)
    sources = sorted(path for path in _SOURCES.iterdir() if path.is_file())
    content = hashlib.sha256(b"\0".join([path.read_bytes() for path in sources]))
    folder = cache_root() / "pictures" / content.hexdigest()[:16]
    if not folder.exists():
        say("building the page of the dashboards")
        _build(sources, folder)
    return folder


def _build(sources: Sequence[Path], folder: Path) -> None:
    """With the packages of the lock file, whose hashes npm checks; only the bundle is kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        work = Path(temporary, "work")
        work.mkdir()
        for source in sources:
            shutil.copy(source, work)
        # No package runs a program of its own; React 19 is newer than what some of them name.
        _run(["npm", "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit"], work)
        _run(["node_modules/.bin/esbuild", "page.jsx", *_BUNDLE], work)
        made = Path(temporary, "made")
        made.mkdir()
        for name in ("page.js", "page.css"):
            (work / name).rename(made / name)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # another process was first
                raise


def draw(
    page: Path,
    board: Mapping[str, Any],
    answers: Answers,
    span: Span,
    picture: Path,
    height: int = 0,
) -> list[Drawn]:
    """Draws a dashboard (Grafana's JSON) into a PNG; what each of its panels shows.

    height: of the picture in pixels, from the top (0: to the last panel).
    Raises PicturesError when a panel cannot be drawn as it is, or the browser fails.
    """
    given = asdict(answers) | {"dashboard": board, "start": span.start, "end": span.end}
    given["step"] = span.step
    data = json.dumps(given).replace("<", "\\u003c")
    whole = _HEADER + _CELL * max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    with tempfile.TemporaryDirectory() as temporary:
        html = Path(temporary, "page.html")
        html.write_text(
            f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{page}/page.css">'
            f'<div id="root"></div><script>window.INPUT = {data}</script>'
            f'<script src="{page}/page.js"></script>',
            encoding="utf-8",
        )
        command = [*_headless(Path(temporary, "profile"))]
        command += [f"--window-size={_WIDTH},{height or whole}", f"--screenshot={picture}"]
        command += ["--virtual-time-budget=30000", "--dump-dom"]
        dom = _Dom(_run([*command, html.as_uri()], Path(temporary)))
    if dom.errors or not dom.done:
        said = "; ".join(dom.errors) or "the page did not come to its end"
        raise PicturesError(f"{board['title']} cannot be drawn: {said}")
    return dom.panels


def shoot(html: str, picture: Path, width: int, height: int) -> None:
    """A page as a PNG of so many pixels. Raises PicturesError, and as `browser`."""
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary, "page.html")
        page.write_text(html, encoding="utf-8")
        size = f"--window-size={width},{height}"
        command = [
            *_headless(Path(temporary, "profile")),
            size,
            f"--screenshot={picture.absolute()}",
        ]
        _run([*command, page.as_uri()], Path(temporary))


def _headless(profile: Path) -> list[str]:
    """How the browser is called, without what it is to do."""
    command = [browser(print), "--headless", "--disable-gpu", "--hide-scrollbars"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses root otherwise
    return [*command, f"--user-data-dir={profile}"]


def browser(say: Callable[[str], None]) -> str:
    """Chromium's path; it is installed if it is missing.

    Raises PicturesError, and ClusterError where packages cannot be installed.
    """
    if _browser() is None:
        machine.install(["chromium"], say)
    found = _browser()
    if found is None:
        raise PicturesError(f"no browser; any of these will do: {', '.join(_BROWSERS)}")
    return found


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def _run(command: Sequence[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PicturesError(f"`{command[0]}` has not ended within {_SECONDS} s") from error
    if done.returncode:
        said = "\n  ".join(done.stderr.strip().splitlines()[-8:])
        raise PicturesError(f"`{' '.join(command[:2])}` failed:\n  {said}")
    return done.stdout


class _Dom(HTMLParser):
    """What page.jsx reports in attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.panels: list[Drawn] = []
        self.errors: list[str] = []
        self.done = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        given = {name: value or "" for name, value in attrs}
        self.done |= "data-done" in given
        if "data-error" in given:
            self.errors.append(given["data-error"])
        if "data-panel" in given:
            counts = (int(given.get(f"data-{what}", 0)) for what in ("series", "drawn"))
            self.panels.append(Drawn(given["data-panel"], *counts))
