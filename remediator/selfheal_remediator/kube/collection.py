"""One list endpoint of the API: read in pages, and watched."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping

import urllib3

from selfheal_remediator.failures import ApiFailure, Malformed
from selfheal_remediator.kube.informer import WATCH_SECONDS, WatchEvent
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import object_from, understood
from selfheal_remediator.kube.transport import Transport
from selfheal_remediator.threads.runtime import Event

PAGE = 100


class Collection:
    """One list endpoint with its selectors: the `Source` of a reflector."""

    def __init__(
        self, transport: Transport, path: str, selectors: Mapping[str, str] | None = None
    ) -> None:
        self._transport, self._path, self._selectors = transport, path, dict(selectors or {})
        self._lock = transport.runtime.lock()
        self._response: urllib3.BaseHTTPResponse | None = None

    def pages(self, *, cached: bool = False) -> Iterator[tuple[list[Json], str]]:
        """Pages of raw objects and the list's resourceVersion.

        cached: one page, as old as the server's watch cache (resourceVersion=0); only where a
        later guard makes staleness harmless.
        """
        query = dict(self._selectors)
        if cached:
            query["resourceVersion"] = "0"
        else:
            query["limit"] = str(PAGE)
        while True:
            raw = self._transport.get(self._path, query)
            items, version, token = _page(raw, self._path)
            yield items, version
            if not token:
                return
            if token == query.get("continue"):
                raise Malformed(f"list {self._path} does not advance")
            query["continue"] = token

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        """Events since `version`, bookmarks included, until the server or `close` ends it."""
        query = {
            **self._selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(self._transport.runtime.random.randint(*WATCH_SECONDS)),
        }
        response = self._transport.open_watch(self._path, query)
        with self._lock:
            self._response = response
        try:
            # `close` may have come before there was anything to close.
            for line in _lines(response) if not stop.is_set() else ():
                if stop.is_set():
                    return
                yield _event(line)
        except (urllib3.exceptions.HTTPError, ValueError, OSError) as error:
            if stop.is_set():
                return
            raise ApiFailure(0, type(error).__name__, f"watch {self._path}: {error}") from error
        finally:
            with self._lock:
                self._response = None
            response.close()

    def close(self) -> None:
        """End a watch that runs in another thread."""
        with self._lock:
            if self._response is not None:
                try:
                    self._response.shutdown()
                except (OSError, RuntimeError, ValueError):
                    # It ended by itself in this moment: nothing is left to be closed.
                    return


def _page(raw: Json, path: str) -> tuple[list[Json], str, str]:
    """Objects, resourceVersion and continue token (empty = complete) of a list."""
    with understood(f"list {path}"):
        items, meta = raw["items"], raw["metadata"]
        version, token = meta["resourceVersion"], meta.get("continue") or ""
        if not isinstance(version, str) or not version or not isinstance(token, str):
            raise TypeError(f"resourceVersion {version!r}, continue {token!r}")
        if items is not None and not isinstance(items, list):
            raise TypeError(f"items is {type(items).__name__}")
    return items or [], version, token


_EVENTS = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR")


def _event(line: bytes) -> WatchEvent:
    raw = object_from(line)
    if raw is None or raw.get("type") not in _EVENTS or not isinstance(raw.get("object"), dict):
        raise Malformed(f"an event of a watch: {line[:100].decode('utf-8', 'replace')!r}")
    return WatchEvent(raw["type"], raw["object"])


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(65536, decode_content=True):
        pieces = (rest + chunk).split(b"\n")
        rest = pieces.pop()
        for piece in pieces:
            if piece:
                yield piece
