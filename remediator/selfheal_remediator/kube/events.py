"""Kubernetes Events, best effort: they never fail or delay what they tell about."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL, Queue, Runtime

log = logging.getLogger(__name__)

COMPONENT = "selfheal-remediator"
#: Events about objects without a namespace live here.
NAMESPACE = "default"
MAX_MESSAGE = 1000
SAME_AGAIN_AFTER = 300.0
QUEUE = 2000
#: So many Events are remembered as sent, the last ones.
MOST_SAID = 10_000
#: So many of the last Events are kept for the status page.
MOST_RECENT = 200
#: An Event waits so long (seconds) for requests under way, unless so many wait behind it.
YIELD, BACKLOG = 1.0, 100
#: What an object's name may have (a DNS subdomain), and what is added to that of an Event.
MAX_NAME, SUFFIX = 253, 16


class EventApi(Protocol):
    """What the writer needs of the API (client.KubernetesApi)."""

    def write(
        self, method: str, path: str, body: object, *, timeout: float = ..., fenced: bool = ...
    ) -> Answer: ...

    def settle(self, seconds: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something that happened to a node."""

    node: str
    uid: str
    reason: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """Something that happened to an object in a namespace."""

    api: str
    kind: str
    namespace: str
    name: str
    uid: str
    reason: str
    message: str
    warning: bool


AnyEvent = NodeEvent | ObjectEvent


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """An Event that was sent. at: seconds since the epoch; problem: why it is not in the cluster,
    empty = it is."""

    event: ObjectEvent
    at: float
    problem: str = ""


def _subject(event: AnyEvent) -> ObjectEvent:
    """The event with its object spelled out; Nodes have no namespace."""
    if isinstance(event, ObjectEvent):
        return event
    return ObjectEvent(
        "v1", "Node", "", event.node, event.uid, event.reason, event.message, event.warning
    )


def _event_name(name: str, number: int) -> str:
    """A new name, which begins with as much of the object's as there is room for.

    number: a random one of 64 bits.
    """
    return f"{name[: MAX_NAME - SUFFIX - 1].rstrip('-.')}.{number:0{SUFFIX}x}"


class Reported:
    """The last Events that were sent, each for SAME_AGAIN_AFTER seconds."""

    def __init__(self) -> None:
        #: When each was last sent, the oldest first.
        self._sent: OrderedDict[AnyEvent, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sent)

    def has(self, event: AnyEvent, now: float) -> bool:
        """Whether the event was sent a moment ago."""
        return now - self._sent.get(event, -SAME_AGAIN_AFTER) < SAME_AGAIN_AFTER

    def add(self, event: AnyEvent, now: float) -> None:
        """The event is sent; what was sent long ago is forgotten."""
        self._sent[event] = now
        self._sent.move_to_end(event)
        while len(self._sent) > MOST_SAID or self._oldest() <= now - SAME_AGAIN_AFTER:
            self._sent.popitem(last=False)

    def _oldest(self) -> float:
        return next(iter(self._sent.values()), float("inf"))


class EventWriter:
    """Writes Events from a thread of its own; the same one again only after five minutes."""

    def __init__(
        self,
        api: EventApi,
        instance: str,
        count: Callable[[str], None],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._api, self._instance, self._count = api, instance, count
        self._runtime = runtime
        #: (AnyEvent, datetime), each with the time of its cause: it may have to wait for its turn;
        #: None = that was the last one.
        self._queue: Queue = runtime.queue()
        self._reported = Reported()
        #: The last Events, the oldest first. Only the thread `events` replaces it; all may read it.
        self.recent: tuple[RecentEvent, ...] = ()
        self._started = False
        self._stop, self._ended = runtime.event(), runtime.event()

    def start(self) -> None:
        """Begin to write."""
        self._started = True
        supervision.start("events", self._run, self._stop, runtime=self._runtime)

    def close(self, seconds: float) -> None:
        """Write what is waiting, for at most so long."""
        if self._queue.qsize() >= QUEUE:
            return
        self._queue.put(None)
        if self._started:
            self._ended.wait(seconds)

    def record(self, event: AnyEvent) -> None:
        """Queue one event; dropped (and counted) when too many wait."""
        now = self._runtime.monotonic()
        if self._reported.has(event, now):
            return
        if self._queue.qsize() >= QUEUE:
            self._count("dropped")  # not sent: the next one may be
            return
        self._queue.put((event, datetime.fromtimestamp(self._runtime.time(), UTC)))
        self._reported.add(event, now)

    def _run(self) -> None:
        while (queued := self._queue.get()) is not None:
            if self._queue.qsize() < BACKLOG:  # else the last ones would be dropped
                self._api.settle(YIELD)  # cordons and evictions go first, talk about them later
            event, when = _subject(queued[0]), queued[1]
            try:
                with supervision.expected("events", "an Event", runtime=self._runtime):
                    problem = self._write(event, when)
            except ApiFailure as failure:
                self._count("failed")
                log.debug("event not written: %s", failure)
                problem = f"not written: {failure}"
            self.recent = (
                *self.recent[1 - MOST_RECENT :],
                RecentEvent(event, when.timestamp(), problem),
            )
        self._ended.set()

    def _write(self, event: ObjectEvent, when: datetime) -> str:
        """Send one Event; why the server refuses it, empty = it does not. Raises ApiFailure."""
        path = f"/api/v1/namespaces/{event.namespace or NAMESPACE}/events"
        body = self._body(event, when)
        answer = self._api.write("POST", path, body, timeout=10.0, fenced=False)
        self._count("written" if answer.ok else "refused")
        if answer.ok:
            return ""
        log.debug("event refused: %s", answer.failure())
        return f"refused: {answer.failure()}"

    def _body(self, event: ObjectEvent, when: datetime) -> dict[str, object]:
        at = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        message = event.message
        if len(message) > MAX_MESSAGE:
            message = message[: MAX_MESSAGE - 1] + "…"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": _event_name(event.name, self._runtime.random.getrandbits(64)),
                "namespace": event.namespace or NAMESPACE,
            },
            "involvedObject": {
                "apiVersion": event.api,
                "kind": event.kind,
                "name": event.name,
                "uid": event.uid,
                **({"namespace": event.namespace} if event.namespace else {}),
            },
            "reason": event.reason,
            "message": message,
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance[:128],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
