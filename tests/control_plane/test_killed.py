"""kill -9 at each API call of a three-node drain: the next process goes on, rightly.

The short form kills at eight seeded points; SELFHEAL_LONG=1 kills at every one, before the
request reaches the API server and after it was carried out but not heard of.
"""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remediator.answers import ApiFailure
from tests.control_plane.proxy import Proxy
from tests.control_plane.site import STATE, Remediator, Site, until

LEASE = {"duration": "1s", "renewInterval": "200ms", "renewDeadline": "700ms", "name": "remediator"}
MAX_HELD = 2
PODS = 2
#: About so many requests are made until the third node is given back (said by the first run).
POINTS = 60
LONG = os.environ.get("SELFHEAL_LONG") == "1"


def _points() -> list[tuple[int, str]]:
    every = [(number, when) for number in range(1, POINTS + 1) for when in ("before", "after")]
    return every if LONG else sorted(random.Random(20260131).sample(every, 8))


class Watcher:
    """Looks at the nodes as often as it can and keeps what must never be seen."""

    def __init__(self, site: Site, foreign: str) -> None:
        self._site, self._foreign = site, foreign
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.wrongs: list[str] = []
        self.looks = 0

    def _run(self) -> None:
        query = {"labelSelector": f"test={self._site.name}"}
        while not self._stop.wait(0.02):
            try:
                items = self._site.api.get("/api/v1/nodes", query)["items"]
            except ApiFailure as failure:
                self.wrongs.append(f"cannot look: {failure}")
                return
            self.looks += 1
            held = [node["metadata"]["name"] for node in items if _ours(node)]
            if len(held) > MAX_HELD:
                self.wrongs.append(f"over the brake: {held}")
            for node in items:
                if node["metadata"]["name"] == self._foreign and not _cordoned(node):
                    self.wrongs.append("a foreign cordon was undone")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the story runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()


def _cordoned(node: dict[str, Any]) -> bool:
    return bool(node["spec"].get("unschedulable"))


def _ours(node: dict[str, Any]) -> bool:
    return _cordoned(node) and STATE in node["metadata"]["annotations"]


@pytest.mark.parametrize(("number", "when"), _points())
def test_killed_at(site: Site, tmp_path: Path, number: int, when: str) -> None:
    processes: list[Remediator] = []
    killed = threading.Event()

    def strike(count: int) -> None:
        if count == number and not killed.is_set():
            killed.set()
            processes[0].kill()

    proxy = Proxy(site.account, **{when: strike})
    site.account = proxy.kubeconfig(site.account, tmp_path / "proxied.kubeconfig")
    try:
        _story(site, processes)
    finally:
        proxy.close()
    if not killed.is_set():
        pytest.skip(f"the story took only {len(proxy.seen)} requests")


def _story(site: Site, processes: list[Remediator]) -> None:
    bad = site.nodes(3)
    foreign = site.node("foreign")
    site.node("spare")
    site.cordon(foreign)
    for node in bad:
        for pod in range(PODS):
            site.pod(f"{node[-1]}-{pod}", node)
        site.condition(node, "True")
    brakes = {"maxHeld": MAX_HELD + 1, "maxDraining": 1}  # one place is the foreign cordon's
    config = site.config(
        rules=[{"condition": "TestFault", "for": "50ms", "action": "drain"}],
        brakes=brakes,
        recovery={"holdDown": "50ms"},
        drain={"unmanagedPods": "evict"},
        signal={"enabled": False},
        lease=LEASE,
    )
    watcher = Watcher(site, foreign)
    with watcher.watching():
        processes.append(site.remediator(config, leading=False))
        left = set(bad)
        while left:
            drained = until(lambda: _next(site, left, processes, config), f"one of {left} drained")
            assert site.pods(drained) == []
            site.condition(drained, "False")
            left.remove(drained)
        for node in bad:
            until(lambda node=node: _given_back(site, node, processes, config), f"{node} back")
    assert watcher.wrongs == []
    assert watcher.looks > 10
    assert site.cordoned(foreign)
    assert site.state(foreign) == {}


def _next(site: Site, left: set[str], processes: list[Remediator], config: Path) -> str:
    _revive(site, processes, config)
    return next((node for node in sorted(left) if site.phase(node) == "drained"), "")


def _given_back(site: Site, node: str, processes: list[Remediator], config: Path) -> bool:
    _revive(site, processes, config)
    return not site.cordoned(node)


def _revive(site: Site, processes: list[Remediator], config: Path) -> None:
    """As a Deployment would: a new process when the last one has died."""
    if processes[-1].process.poll() is not None:
        processes.append(site.remediator(config, leading=False))
