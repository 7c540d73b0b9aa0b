"""A collection whose type may not be installed, in the thread that lists and watches it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from selfheal_remediator.failures import ApiFailure, Expired
from selfheal_remediator.kube.client import Collection
from selfheal_remediator.kube.informer import WatchEvent
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.threads.runtime import Event

#: How often to check whether the CustomResourceDefinition has been installed.
INSTALLED_EVERY = 60.0


class WhenInstalled:
    """A collection that counts as empty while its CustomResourceDefinition is not installed."""

    def __init__(self, source: Collection, absent: Callable[[], None]) -> None:
        self._source, self._report_absent = source, absent
        self._installed = True

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        self._installed = True
        try:
            yield from self._source.pages()
        except ApiFailure as failure:
            if failure.status != 404:
                raise
            self._installed = False
            self._report_absent()
            yield [], ""

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        if self._installed:
            yield from self._source.watch(version, stop)
            return
        stop.wait(INSTALLED_EVERY)
        raise Expired(410, "Expired", "to be listed again")

    def close(self) -> None:
        self._source.close()
