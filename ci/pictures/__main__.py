"""`python -m ci.pictures`: the four dashboards as PNG, of a running demo or of a sample; and the
remediator's status page, always of a sample."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from ci.cluster import Cluster, ClusterError, machine
from ci.cluster.cluster import DEFAULT_NAME
from ci.cluster.prometheus import Prometheus
from ci.demo.expected_empty import PANELS, SOMETIMES
from ci.parts import PartsError
from ci.pictures.drawing import PicturesError, draw, prepare, shoot
from ci.pictures.queries import Answers, Span, Unanswered, ask
from ci.pictures.serving import SAMPLED, sampled
from ci.pictures.status_sample import NIGHT, NOW
from selfheal_remediator.status_page.html import render

ROOT = Path(__file__).parents[2]
BOARDS = ("overview", "worker", "model", "remediation")
_HOURS = 3
_FIRST_SCREEN = 880  # pixels: alerts, numbers, the queue
_PAGE_WIDTH, _PAGE_HEIGHT = 1280, 1340  # to the end of the policies


def main() -> int:
    """Exit status 0: drawn, no panel is empty without a reason; 1: not so; 2: wrong usage."""
    options = _arguments()
    try:
        # A demo that goes well leaves some panels empty; the sample leaves none.
        excused = () if options.sample else PANELS.keys() | SOMETIMES.keys()
        draw_status_page(options.out / "status-page.png")
        with _source(options) as prometheus:
            span = SAMPLED if options.sample else watched(prometheus, time.time())
            return draw_all(prometheus, span, options.out, excused)
    except (PicturesError, Unanswered, ClusterError, PartsError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1


def draw_all(prometheus: Prometheus, span: Span, out: Path, excused: Collection[str]) -> int:
    """Draws all dashboards into `out`; the exit status."""
    page = prepare(_say)
    empty = []
    for name in BOARDS:
        board = load(name)
        answers = ask(prometheus, board, span)
        picture = out / f"dashboard-{name}.png"
        drawn = draw(page, board, answers, span, picture)
        shrink(picture)
        if name == BOARDS[0]:
            first = out / "dashboards.png"
            draw(page, board, answers, span, first, _FIRST_SCREEN)
            shrink(first)
        empty += [
            f"{board['title']}: {panel.title}"
            for panel in drawn
            if panel.empty and not is_excused(board, panel.title, answers, excused)
        ]
        _say(f"{picture}: {len(drawn)} panels, {picture.stat().st_size // 1024} KiB")
    for panel in empty:
        print(f"pictures: no data in {panel}", file=sys.stderr)
    return 1 if empty else 0


def draw_status_page(picture: Path) -> None:
    """The remediator's status page, of made-up data."""
    shoot(render(NIGHT, NOW), picture, _PAGE_WIDTH, _PAGE_HEIGHT)
    shrink(picture)
    _say(f"{picture}: {picture.stat().st_size // 1024} KiB")


def load(name: str) -> dict[str, Any]:
    """A dashboard as the chart has it."""
    path = ROOT / "chart" / "files" / "dashboards" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def is_excused(
    board: dict[str, Any], title: str, answers: Answers, excused: Collection[str]
) -> bool:
    """Whether each of the panel's queries may be empty, and is."""
    [panel] = [panel for panel in board["panels"] if panel["title"] == title]
    names = [
        f"{board['uid']} / {title} / {target.get('legendFormat') or number}"
        for number, target in enumerate(panel["targets"])
    ]
    return not any(answers.results[panel["id"]].values()) and set(names) <= set(excused)


def watched(prometheus: Prometheus, now: float) -> Span:
    """From the release's begin, at most three hours ago, until its workers last answered.

    Raises PicturesError when none did.
    """
    settings = yaml.safe_load(prometheus.api("status/config")["yaml"])
    scrape = _seconds(settings["global"]["scrape_interval"])
    window = f"[{_HOURS}h:{scrape:.0f}s]"
    answered = f"increase(selfheal_worker_messages_total[{2 * scrape:.0f}s])"
    asked = (
        f"min(min_over_time(timestamp(selfheal_remediator_leader){window}))",
        f"max_over_time((timestamp(sum({answered}) > 0)){window})",
    )
    found = [prometheus.query(expr, now) for expr in asked]
    if not all(found):
        raise PicturesError(
            f"{prometheus.url} has seen no release that answered messages within {_HOURS} hours:"
            " run `make demo` first, or draw the sample (--sample)"
        )
    start, end = (float(one[0]["value"][1]) for one in found)
    return Span(start, end, scrape)


def _seconds(text: str) -> float:
    """Prometheus writes `30s` or `1m`."""
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def shrink(picture: Path) -> None:
    """To a palette of 128 colours, which nobody sees on lines and text: a third of the bytes."""
    if not shutil.which("pngquant"):
        machine.install(["pngquant"], _say)
    command = ["pngquant", "--force", "--strip", "--output", str(picture), "128", str(picture)]
    subprocess.run(command, check=True)


def _source(options: argparse.Namespace) -> AbstractContextManager[Prometheus]:
    if options.sample:
        return sampled()
    if options.prometheus:
        return nullcontext(Prometheus(options.prometheus.rstrip("/"), "", Path()))
    return nullcontext(Cluster(DEFAULT_NAME, say=_say).prometheus)


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ci.pictures", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--prometheus", metavar="URL", help="ask this one (default: that of `make demo`)"
    )
    source.add_argument("--sample", action="store_true", help="draw three hours that are made up")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs", metavar="FOLDER", help="(default: docs/)"
    )
    options = parser.parse_args()
    if not options.out.is_dir():
        parser.error(f"--out: {options.out} is no folder")
    return options


if __name__ == "__main__":
    sys.exit(main())
