"""The nodes of one stage as a watch shows them: every state that they ever have is seen."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from remediator.answers import ApiFailure
from remediator.kubernetes_api import Collection
from remediator.snapshot import Json
from tests.control_plane.site import Site

Check = Callable[[dict[str, Json]], str]


class World:
    """Calls each check after every change; what they complain of is kept in `wrongs`."""

    def __init__(self, site: Site, *checks: Check) -> None:
        self._nodes = Collection(site.api, "/api/v1/nodes", {"labelSelector": f"test={site.name}"})
        self._checks = checks
        self._stop = threading.Event()
        self._news = threading.Condition()
        self.nodes: dict[str, Json] = {}
        self.wrongs: list[str] = []
        self.looks = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While the story runs."""
        version = self._list()
        thread = threading.Thread(target=self._run, args=(version,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._nodes.close()
            thread.join(10)

    def notify(self) -> None:
        """Something else happened that a waiting story may be about."""
        with self._news:
            self._news.notify_all()

    def until(self, look: Callable[[], Any], what: str, patience: float) -> Any:
        """What `look` returns as soon as it is true; asked again after every change."""
        ends = time.monotonic() + patience
        with self._news:
            while not (found := look()):
                if time.monotonic() > ends:
                    raise AssertionError(f"not within {patience:g}s: {what}")
                self._news.wait(1.0)
            return found

    def _list(self) -> str:
        version = ""
        for raws, version in self._nodes.pages():  # noqa: B007 - the last page's is wanted
            for raw in raws:
                self.nodes[raw["metadata"]["name"]] = raw
        return version

    def _run(self, version: str) -> None:
        while not self._stop.is_set():
            try:
                for event in self._nodes.watch(version, self._stop):
                    version = event.raw["metadata"]["resourceVersion"]
                    if event.type in ("ADDED", "MODIFIED"):
                        self._see(event.raw)
            except ApiFailure as failure:
                if not self._stop.is_set():
                    self.wrongs.append(f"cannot look: {failure}")
                return

    def _see(self, raw: Json) -> None:
        with self._news:
            self.nodes[raw["metadata"]["name"]] = raw
            self.looks += 1
            for check in self._checks:
                wrong = check(self.nodes)
                if wrong:
                    self.wrongs.append(wrong)
            self._news.notify_all()
