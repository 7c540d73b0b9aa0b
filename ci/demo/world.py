"""What the demo sees of the cluster and of the results queue, kept up to date by watches.

Everything arrives by events under one condition variable, so that a step waits for "answers or
pods or nodes" without a poll.
"""

import codecs
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from ci.demo.kube import CommandFailed, Kube, Object, ending_with_us

T = TypeVar("T")
_AGAIN_SECONDS = 0.5  # before a watch that the API server ended is opened again


class NeverHappened(Exception):
    """A condition did not come true in its time; the message says which."""


@dataclass
class World:
    """Objects by kind and name (`world["nodes"]["n1"]`, `world["pods"]["namespace/name"]`), as the
    API server last reported them.

    `selections` maps a kind's name here to the arguments of `kubectl get`.
    """

    kube: Kube
    selections: Mapping[str, Sequence[str]]
    changed: threading.Condition = field(default_factory=threading.Condition)
    _objects: dict[str, dict[str, Object]] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        for kind in self.selections:
            self._objects[kind] = {}
            threading.Thread(target=self._follow, args=(kind,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for process in list(self._running.values()):
            process.terminate()

    def __getitem__(self, kind: str) -> dict[str, Object]:
        with self.changed:
            return dict(self._objects[kind])

    def until(
        self,
        what: str,
        condition: Callable[[], T | None],
        timeout: float,
        show: Callable[[], None] | None = None,
    ) -> T:
        """Wait until `condition()` is neither None nor False; it is asked again at each change.

        `timeout` in seconds; `show` is called at each change, at most four times a second, to tell
        a person. Raises NeverHappened.
        """
        deadline = time.monotonic() + timeout
        shown = float("-inf")
        while True:
            answer = condition()
            if answer is not None and answer is not False:
                return answer
            now = time.monotonic()
            if now >= deadline:
                raise NeverHappened(f"{what}: not within {timeout:.0f} s")
            if show and now - shown >= 0.25:
                shown = now
                show()
            with self.changed:
                self.changed.wait(min(1.0, deadline - now))

    def _follow(self, kind: str) -> None:
        command = [self.kube.kubectl_program, "get", *self.selections[kind]]
        watch = ending_with_us([*command, "--watch", "--output-watch-events", "-o", "json"])
        again = False
        while not self._stopped.is_set():
            with subprocess.Popen(
                watch,
                env=self.kube.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                self._running[kind] = process
                if self._stopped.is_set():
                    process.terminate()
                assert process.stdout is not None
                for event in decode(process.stdout.fileno()):
                    if again:
                        self._forget_the_gone(kind)
                        again = False
                    self._apply(kind, event)
            again = True
            self._stopped.wait(_AGAIN_SECONDS)

    def _forget_the_gone(self, kind: str) -> None:
        """Drops what went while no watch was open; a new one tells only what there is."""
        try:
            there = {_name(one) for one in self.kube.items(*self.selections[kind])}
        except CommandFailed:
            return  # the API server went again: the next watch looks again
        with self.changed:
            for name in self._objects[kind].keys() - there:
                del self._objects[kind][name]
            self.changed.notify_all()

    def _apply(self, kind: str, event: Object) -> None:
        if "name" not in event["object"].get("metadata", {}):
            return  # an error status; the watch ends and is opened again
        name = _name(event["object"])
        with self.changed:
            if event["type"] == "DELETED":
                self._objects[kind].pop(name, None)
            else:
                self._objects[kind][name] = event["object"]
            self.changed.notify_all()


def _name(thing: Object) -> str:
    """`namespace/name`, or the name of what is in no namespace."""
    metadata = thing["metadata"]
    return "/".join(str(metadata[key]) for key in ("namespace", "name") if key in metadata)


def decode(descriptor: int) -> Iterator[dict[str, Any]]:
    """The JSON objects that follow each other in a stream of bytes, each as soon as it is whole."""
    decoder, pieces, text = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")(), ""
    while chunk := os.read(descriptor, 1 << 16):
        text += pieces.decode(chunk)
        while text := text.lstrip():
            try:
                value, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break  # not whole yet
            text = text[end:]
            yield value
