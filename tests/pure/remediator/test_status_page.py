"""The status page as HTML: whatever the cluster's texts are, it stays the same page."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from ci.pictures.status_sample import NIGHT, NOW, QUIET, STANDBY, largest
from selfheal_remediator.status_page.html import HEADERS, LONGEST, STALE_AFTER, render, text
from selfheal_remediator.status_page.pages import Pages
from selfheal_remediator.status_page.snapshot import MOST_ROWS, Role, Rows, Snapshot, first_rows

HOSTILE = "</td><script>alert(1)</script><img src=x onerror='alert(2)'> \"&'\u202e\x00\ud800\n"


class Parsed(HTMLParser):
    """A page's tags with their attributes, its text, and the sources of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.words = ""
        self.sources: dict[str, str] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))
        self._inside = tag if tag in ("style", "script") else ""

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", []))
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.sources[self._inside] = self.sources.get(self._inside, "") + data
        else:
            self.words += data


def words(snapshot: Snapshot, now: float = NOW) -> str:
    """What a person reads, on one line."""
    return " ".join(Parsed(render(snapshot, now)).words.split())


@given(st.text(min_size=1, max_size=2 * LONGEST))
@example(HOSTILE)
@example("$style${script}$$")
@settings(max_examples=30, deadline=None)
def test_any_text_of_the_cluster_is_escaped(foreign: str) -> None:
    """With any text in each place the page has the tags and attributes that it has with another."""
    small, other = (Parsed(render(largest(one, 2, 1), NOW)) for one in (foreign, "x"))
    assert small.tags == other.tags
    assert small.sources == other.sources
    assert all(char.isprintable() or char == "\n" for char in small.words)


@given(st.text())
def test_a_text_is_short_and_on_one_line(foreign: str) -> None:
    made = Parsed(text(foreign))
    assert made.tags == []
    assert len(made.words) <= LONGEST
    assert made.words.isprintable()


def test_a_plain_text_is_shown_as_it_is() -> None:
    assert "PDB shop/checkout needs 3, has 3" in words(NIGHT)
    assert words(largest("a < b & \"c\" 'd'", 1)).count("a < b & \"c\" 'd'") >= MOST_ROWS


def test_the_page_is_bounded() -> None:
    """A cluster whose 5,000 nodes are all bad, with the longest texts."""
    typical = render(largest("ip-10-0-44-121.eu-central-1.compute.internal", 5000), NOW)
    assert len(typical.encode()) < 400_000
    worst = render(largest('"' * 5000, 5000), NOW)
    assert len(worst.encode()) < 5_000_000
    assert "4900 more are not shown." in words(largest("n", 5000))
    assert "more are not shown" not in words(NIGHT)


def test_the_first_rows_are_the_most_urgent() -> None:
    made: list[int] = []

    def row(number: int) -> int:
        made.append(number)
        return number

    found = first_rows(range(5000, 0, -1), lambda number: number, row)
    assert found.shown == tuple(range(1, MOST_ROWS + 1))
    assert (found.total, found.more) == (5000, 5000 - MOST_ROWS)
    assert len(made) == MOST_ROWS


@pytest.mark.parametrize("kind", ["style", "script"])
def test_only_its_own_style_and_script_may_run(kind: str) -> None:
    source = Parsed(render(NIGHT, NOW)).sources[kind]
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    policy = HEADERS["Content-Security-Policy"]
    assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_it_names_nothing_elsewhere() -> None:
    page = Parsed(render(NIGHT, NOW))
    named = [value for _, given in page.tags for name, value in given if name in ("src", "href")]
    assert named
    assert all(value is not None and value.startswith("#") for value in named)
    assert re.search(r"url\(|@import|https?:", "".join(page.sources.values())) is None


def test_it_says_how_old_it_is_and_when_it_is_stale() -> None:
    assert "As of 02:10 UTC, 2s ago." in words(NIGHT)
    assert "Stale." not in words(NIGHT, NIGHT.at + STALE_AFTER)
    assert "Stale. The remediator's main loop has reported nothing for 31s" in words(
        NIGHT, NIGHT.at + STALE_AFTER + 1
    )


def test_times_of_another_day_have_their_date() -> None:
    old = replace(NIGHT.nodes.shown[0], since=NOW - 49 * 3600)
    assert "49h ago, 2026-03-12 01:11 UTC" in words(replace(NIGHT, nodes=Rows((old,), 1)))


def test_a_standby_says_that_it_is_one_and_who_leads() -> None:
    said = words(STANDBY)
    assert "This replica is on standby. selfheal-remediator-7c9f8b6d5-x2x4q leads" in said
    assert "selfheal-remediator-7c9f8b6d5-k8s7v (standby)" in said
    assert "Nothing new is begun: paused: the network team replaces a switch" in said
    assert said.count("Not known here: this replica does not act.") == 3
    assert "Nobody leads." in words(replace(STANDBY, leader=""))


@pytest.mark.parametrize(
    ("role", "said"), [(Role.READ_ONLY, "Read-only."), (Role.STARTING, "Starting.")]
)
def test_a_leader_that_does_nothing_says_so(role: Role, said: str) -> None:
    assert said in words(replace(NIGHT, role=role))
    assert said not in words(NIGHT)


def test_nothing_to_report_is_said_of_each_table() -> None:
    said = words(QUIET)
    assert "There is nothing to report of any node." in said
    assert "No drain is under way." in said
    assert "No HealingPolicy." in said
    assert "Policies are off" in words(replace(QUIET, policies_known=False))


def test_a_dry_run_is_not_taken_for_the_truth() -> None:
    said = words(replace(NIGHT, dry_run="observeFirst, until 2026-03-14T02:20:00Z"))
    assert "Dry run. It changes nothing: the page shows what it would do." in said
    assert "Would be cordoned3 of 3 allowed" in said
    assert "Cordoned by it" not in said
    assert "dry run (observeFirst, until 2026-03-14T02:20:00Z)" in said
    assert "Dry run." not in words(NIGHT)


def test_it_says_which_events_it_knows() -> None:
    assert "Those that this process wrote. Others:" in words(NIGHT)
    some = replace(NIGHT, events_since=NOW - 600)
    assert "Those that this process wrote since 02:01 UTC." in words(some)


def test_it_says_that_queues_are_not_known() -> None:
    assert "How many messages wait in the queue is not known here" in words(QUIET)


def test_a_page_is_rendered_once_in_a_second_for_all_who_ask() -> None:
    pages = Pages()
    first = pages.page(NIGHT, NOW + 0.1)
    assert pages.page(NIGHT, NOW + 0.9) is first
    assert b"3s ago" in pages.page(NIGHT, NOW + 1.0)
    assert b"There is nothing to report of any node." in pages.page(QUIET, NOW + 1.0)


def test_it_says_how_to_stop_the_remediator() -> None:
    pod = "selfheal-remediator-7c9f8b6d5-x2x4q"
    command = f"kubectl -n selfheal exec {pod} -c remediator -- selfheal-remediator pause --why"
    assert f'{command} "…"' in words(NIGHT)


def test_an_event_that_is_not_in_the_cluster_is_marked() -> None:
    assert "(refused: 403 Forbidden)" in words(NIGHT)
