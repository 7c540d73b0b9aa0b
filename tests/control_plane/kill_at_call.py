"""kill -9 of a remediator at its n-th API call, and the process that comes after it."""

import os
import random
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.control_plane.conftest import Stages
from tests.control_plane.proxy import Proxy
from tests.control_plane.site import Remediator, Site
from tests.control_plane.world import World

LEASE = {"duration": "4s", "renewInterval": "1s", "renewDeadline": "3s", "name": "remediator"}
LONG = os.environ.get("SELFHEAL_LONG") == "1"
SIDE_BY_SIDE = 5
#: Only a hang is longer.
PATIENCE = 240.0
#: What became of the call at which the process was killed: it never reached the API server; it
#: was carried out and the answer not heard; it was carried out only after the next one led.
WAYS = ("lost", "unheard", "late")
#: Timing moves a few calls at the end; nearly all points are reached.
SURE = 0.9


class Story:
    """What happens on a stage of its own while the process is killed at a call, once."""

    world: World
    #: Whether it is killed only at calls that change something, Events not among them.
    changes_only = False

    def __init__(self, site: Site, number: int, way: str) -> None:
        self.site, self.number, self.way = site, number, way
        self.wrongs: list[str] = []
        self.killed_at = ""
        self._processes: list[Remediator] = []
        self._successor_leads = threading.Event()
        self.proxy = Proxy(
            *(site.account, self._before, self._after),
            alone=site.name,
            changes_only=self.changes_only,
        )
        site.account = self.proxy.kubeconfig(site.account, site.folder / "proxied.kubeconfig")

    def tell(self) -> None:
        """All of it. Raises AssertionError when it does not continue."""
        raise NotImplementedError

    # -- the kill -------------------------------------------------------------------------

    def _before(self, number: int) -> bool:
        if number != self.number or self.killed_at or self.way == "unheard":
            return True
        self._kill()
        if self.way == "late":
            self._successor_leads.wait(PATIENCE)
            return True
        return False

    def _after(self, number: int) -> None:
        if number == self.number and not self.killed_at and self.way == "unheard":
            self._kill()

    def _kill(self) -> None:
        self.killed_at = self.proxy.seen[self.number - 1].partition("?")[0]
        self._processes[0].kill()
        self.world.notify()

    # -- continuing ------------------------------------------------------------------------

    def until(self, config: Path, what: str, look: Callable[[], Any]) -> Any:
        """What `look` returns as soon as it is true; a process that was killed is followed."""

        def alive_and_there() -> Any:
            if self._processes[-1].process.poll() is not None:
                self.start(config)
            if len(self._processes) > 1 and "leading as" in self._processes[-1].log:
                self._successor_leads.set()
            return look()

        return self.world.until(what, alive_and_there, PATIENCE)

    def start(self, config: Path) -> None:
        """As a Deployment would: the container again in its pod, or another pod."""
        assert len(self._processes) < 2, "it ended without being killed"
        pod = "again" if self.way in ("lost", "late") else f"pod-{len(self._processes)}"
        made = self.site.remediator(config, leading=False, POD_NAME=pod, POD_UID=f"uid-{pod}")
        self._processes.append(made)

    def end(self) -> None:
        """Nobody waits for the successor any more."""
        self._successor_leads.set()

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return len(self.proxy.seen)


def kill_everywhere(
    stages: Stages, kind: Callable[[Site, int, str], Story], name: str, short: int, from_: int = 1
) -> None:
    """Tell the story once whole, then once for each call at which it is killed, in each way.

    The short form takes `short` of these points, by a seed, of all but the last calls: timing moves
    a few of them. Calls before `from_` are left out.
    """
    whole = _notified(stages, kind, name, 0, "")
    assert whole.wrongs == [], "\n".join(whole.wrongs)
    last = whole.calls if LONG else int(SURE * whole.calls)
    every = [(number, way) for number in range(from_, last + 1) for way in WAYS]
    points: Sequence[tuple[int, str]] = every
    if not LONG:
        points = sorted(random.Random(20260131).sample(every, short))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        told = list(pool.map(lambda point: _notified(stages, kind, name, *point), points))
    killed = [one for one in told if one.killed_at]
    sys.stderr.write(
        f"\n{name}: {whole.calls} calls; killed at {len(killed)} of {len(points)} points "
        f"({len({one.number for one in killed})} different calls)\n"
    )
    wrong = [f"{one.number} {one.way} ({one.killed_at}): {w}" for one in told for w in one.wrongs]
    assert wrong == [], "\n".join(wrong)
    assert len(killed) >= SURE * len(points)


def _notified(
    stages: Stages, kind: Callable[[Site, int, str], Story], name: str, number: int, way: str
) -> Story:
    with stages(f"{name}-{number}{way and '-'}{way}") as site:
        story = kind(site, number, way)
        try:
            story.tell()
        except (AssertionError, TimeoutError) as error:
            story.wrongs += [str(error), *site.logs()]
        finally:
            story.end()
            story.proxy.close()
        return story
