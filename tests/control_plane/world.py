"""The nodes (or pods) of one stage as a watch shows them: every state they ever have is seen."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.collection import Collection
from selfheal_remediator.kube.objects import Json
from tests.control_plane.site import Site

Check = Callable[[dict[str, Json]], str]


class World:
    """Calls each check after every change; what they complain of is kept in `wrongs`.

    pods: labels of the pods that are evaluated, instead of the nodes.
    """

    def __init__(self, site: Site, *checks: Check, pods: str = "") -> None:
        path, labels = "/api/v1/nodes", f"test={site.name}"
        if pods:
            path, labels = f"/api/v1/namespaces/{site.name}/pods", pods
        self._source = Collection(site.api.transport, path, {"labelSelector": labels})
        self._checks = checks
        self._stop = threading.Event()
        self._news = threading.Condition()
        self.objects: dict[str, Json] = {}
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
            self._source.close()
            thread.join(10)

    def notify(self) -> None:
        """Something else happened that a waiting story may be about."""
        with self._news:
            self._news.notify_all()

    def until(self, what: str, look: Callable[[], Any], patience: float) -> Any:
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
        for raws, version in self._source.pages():  # noqa: B007 - the last page's is wanted
            for raw in raws:
                self.objects[raw["metadata"]["name"]] = raw
        return version

    def _run(self, version: str) -> None:
        while not self._stop.is_set():
            try:
                for event in self._source.watch(version, self._stop):
                    version = event.raw["metadata"]["resourceVersion"]
                    if event.type in ("ADDED", "MODIFIED", "DELETED"):
                        self._see(event.type, event.raw)
            except ApiFailure as failure:
                if not self._stop.is_set():
                    self.wrongs.append(f"cannot look: {failure}")
                return

    def _see(self, kind: str, raw: Json) -> None:
        name = raw["metadata"]["name"]
        with self._news:
            if kind == "DELETED":
                self.objects.pop(name, None)
            else:
                self.objects[name] = raw
            self.looks += 1
            for check in self._checks:
                wrong = check(self.objects)
                if wrong:
                    self.wrongs.append(wrong)
            self._news.notify_all()
