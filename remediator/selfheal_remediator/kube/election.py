"""Leader election by a Lease, and the pause that it carries.

Time is measured by our own monotonic clock only; the times inside the Lease are for people. A
leader may write until `renewDeadline` after the last renewal was sent, which is before the
Lease can be taken over; a standby takes over when it has observed no renewal for the Lease's
duration, or at once when the holder has released it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

from selfheal_remediator.config import LeaseSettings
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.informer import Change, Reflector, Source
from selfheal_remediator.kube.objects import Json, as_name, as_text, as_whole, timestamp
from selfheal_remediator.kube.observe_first import FIRST_START_KEY, annotation_to_write
from selfheal_remediator.kube.responses import Answer, understood
from selfheal_remediator.randomness import RANDOM
from selfheal_remediator.threads import supervision

log = logging.getLogger(__name__)

PAUSE_KEY = "selfheal.dev/paused"
TRUST_KEY = "selfheal.dev/trust"
#: Until when (RFC 3339) the remediator changes nothing at all: it is being uninstalled.
STOP_KEY = "selfheal.dev/stopped-until"
#: For how many seconds, from its first observation: the uninstaller may have another clock.
STOP_FOR_KEY = "selfheal.dev/stopped-for"
#: A stop that was written to end so long (seconds) ago is of an earlier uninstall.
STOP_FORGOTTEN = 86400.0
LONGEST_STOP = 86400
#: A Lease that waits for its takeover longer than this (seconds, and times our own) is reported.
LONG_LEASE, LONG_LEASE_TIMES = 60.0, 4
#: The lease thread shows so often (seconds) that it lives, however long it waits.
TICK = 10.0
#: What an int32 of the API holds.
INT32 = 2**31 - 1
LABEL = "selfheal.dev/remediator"
#: How long an ending leader waits for its last changes of nodes.
SETTLE_SECONDS = 2.0
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class LeaseView:
    """The part of a Lease that an election needs."""

    name: str
    namespace: str
    uid: str
    version: str
    holder: str
    renewed: str
    transitions: int
    duration: float
    annotations: Mapping[str, str]
    created: float | None


def trusted_annotations(annotations: Mapping[str, str]) -> frozenset[str]:
    """Conditions that a human says are true on the Lease, however many nodes have them at once."""
    return frozenset(annotations.get(TRUST_KEY, "").replace(",", " ").split())


def stopped_until(annotations: Mapping[str, str]) -> float:
    """Until when nothing may be changed (seconds since the epoch), 0 = it may.

    It ends by itself, so that one that is installed again does not start stopped.
    """
    try:
        return timestamp(annotations.get(STOP_KEY)) or 0.0
    except ValueError:
        return 0.0


@dataclass(slots=True)
class Stop:
    """Until when (our clock) nothing may be changed, as a Lease's annotations say; 0 = it may.

    A stop without a number of seconds was written by hand: its time counts as it stands.
    """

    until: float = 0.0
    _read: tuple[str, str] = ("", "")

    def read(self, annotations: Mapping[str, str], now: float) -> float:
        """The Lease's current state; the time of an unchanged state continues."""
        text, seconds = annotations.get(STOP_KEY, ""), annotations.get(STOP_FOR_KEY, "")
        if (text, seconds) != self._read:
            self._read = (text, seconds)
            written = stopped_until(annotations)
            counted = re.fullmatch("[0-9]{1,9}", seconds) is not None
            if counted and written > now - STOP_FORGOTTEN:
                written = now + min(int(seconds), LONGEST_STOP)
            self.until = min(written, now + INT32)
        return self.until


@understood("a Lease")
def lease_from_json(raw: Json) -> LeaseView:
    """A LeaseView from the API's JSON. Raises Malformed."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    return LeaseView(
        name=as_name(meta["name"]),
        namespace=as_name(meta["namespace"]),
        uid=as_name(meta["uid"]),
        version=as_name(meta["resourceVersion"]),
        holder=as_text(spec.get("holderIdentity")),
        renewed=as_text(spec.get("renewTime")),
        transitions=as_whole(spec.get("leaseTransitions")),
        duration=float(as_whole(spec.get("leaseDurationSeconds"))),
        annotations={key: as_text(value) for key, value in (meta.get("annotations") or {}).items()},
        created=timestamp(meta.get("creationTimestamp")),
    )


class LeaseApi(Protocol):
    """What the election needs of the API (client.KubernetesApi)."""

    def write(
        self,
        method: str,
        path: str,
        body: object,
        *,
        content_type: str = ...,
        timeout: float = ...,
        fenced: bool = ...,
        ignore_dry_run: bool = ...,
    ) -> Answer: ...

    def settle(self, seconds: float) -> bool: ...


class Closable(Source, Protocol):
    """A source whose watch can be ended from another thread."""

    def close(self) -> None: ...


class Leader:
    """Takes part in the election until `stop` is set; see the module.

    on_change(leading) and on_annotations(mapping) are called from the election's threads.
    """

    def __init__(
        self,
        api: LeaseApi,
        watch: Closable,
        settings: LeaseSettings,
        namespace: str,
        identity: str,
        on_change: Callable[[bool], None],
        on_annotations: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._api, self._watch, self._settings = api, watch, settings
        self._namespace, self.identity = namespace, identity
        self._on_change, self._on_annotations = on_change, on_annotations
        self._stop = threading.Event()
        self._reflector: Reflector[LeaseView] = Reflector(
            watch,
            lease_from_json,
            lambda view: view.name,
            self._changed,
            self._known,
            lambda failure: log.warning("lease watch: %s", failure),
            self._stop,
        )
        self._news = threading.Event()
        #: Also held while annotations are passed on: they arrive in the order of their versions.
        self._lock = threading.RLock()
        self._view: LeaseView | None = None
        self._seen_at = self._taken_in_at = time.monotonic()
        self._synced = False
        self._write_until = 0.0
        self.leading = False
        #: Counts terms of leadership; what was begun in one is not written in a later one.
        self._term = 0
        #: Why this process could not do a leader's work, empty = it can (set by the loop).
        self.unfit: Callable[[], str] = lambda: ""
        #: Called with the reason why a Lease that nobody renews cannot be taken (set by the loop).
        self.on_blocked: Callable[[str], None] = lambda _: None
        self._blocked_said = ("", 0.0)
        self._give_up = ""
        self._not_before = 0.0
        #: The installation's first start as last read from the Lease.
        self._first_start = ""
        #: How often in a row a renewal was refused.
        self._refused = 0
        self.last_tick = time.monotonic()
        self._path = (
            f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases/"
            f"{quote(settings.name)}"
        )

    # -- fencing ------------------------------------------------------------------------

    def fence(self) -> int:
        """Raises NotLeader unless a write may be sent now; returns the term of leadership."""
        if time.monotonic() >= self._write_until:
            raise NotLeader
        return self._term

    @property
    def annotations(self) -> Mapping[str, str]:
        """The Lease's annotations as last observed."""
        with self._lock:
            return self._view.annotations if self._view else {}

    @property
    def lease_uid(self) -> str:
        """The Lease's uid as last observed, empty = there is none."""
        with self._lock:
            return self._view.uid if self._view else ""

    @property
    def holder(self) -> str:
        """The Lease's holder as last observed."""
        with self._lock:
            return self._view.holder if self._view else ""

    # -- running ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: one thread watches the Lease, one renews or waits."""
        for name, target in (("lease-watch", self._reflector.run), ("lease", self._run)):
            supervision.start(name, target, self._stop)

    def give_up(self, why: str) -> None:
        """Let a standby lead: callable from any thread.

        This process stays on standby for at least the Lease's duration, and while it is unfit.
        """
        self._give_up = why
        self._news.set()

    def close(self) -> None:
        """Stop writing, release the Lease if we hold it, and end."""
        self._stop.set()
        self._news.set()
        self._watch.close()
        was_leading, self.leading = self.leading, False
        self._write_until = 0.0
        if was_leading:
            self._release()

    def _release(self) -> None:
        """Hand the Lease over at once, when nothing of ours is under way any more."""
        if not self._api.settle(SETTLE_SECONDS):
            return  # a change may still be under way: the Lease runs out by itself
        ops = [
            _op("test", "/spec/holderIdentity", self.identity),
            _op("replace", "/spec/holderIdentity", ""),
            _op("replace", "/spec/renewTime", _now()),
        ]
        try:
            with supervision.expected("lease", "the release of the lease"):
                answer = self._send("PATCH", self._path, ops, _JSON_PATCH)
            if not answer.ok:
                log.warning("lease not released: %s", answer.failure())
        except ApiFailure as failure:
            log.warning("lease not released: %s", failure)

    def _changed(self, change: Change[LeaseView]) -> None:
        with self._lock:
            known, old = self._view, change.old
            if change.new is None and known and old and known.uid != old.uid:
                return  # a Lease of before is gone: the one that is known was made since
            self._take_in(change.new, listed=change.restored)

    def _known(self) -> None:
        # What was listed counts even when its version is older: etcd may have been restored. But
        # not a list that was begun before what is known was heard: it is only late.
        with self._lock:
            listed = self._reflector.list_begun > self._taken_in_at
            view = next(iter(self._reflector.items.values()), None)
            if view is not None or listed:
                self._take_in(view, listed=listed)
        self._synced = True
        self._news.set()

    def _take_in(self, view: LeaseView | None, *, listed: bool = False) -> None:
        """The Lease as it is now, from the watch or from the answer to our own write.

        The watch may be behind our write: what it tells then is over, and a pause that it does
        not know of yet would be lifted for a moment.
        """
        with self._lock:
            if not listed and view and self._view and _older(view, self._view):
                return
            old, self._view = self._view, view
            if view is not None:  # an uninstall empties it
                self._first_start = view.annotations.get(FIRST_START_KEY, self._first_start)
            self._taken_in_at = time.monotonic()
            renewed = view is None or old is None or _fingerprint(old) != _fingerprint(view)
            if renewed:
                self._seen_at = self._taken_in_at
            if (view.annotations if view else {}) != (old.annotations if old else {}):
                self._on_annotations(view.annotations if view else {})
        if not self.leading:
            self._news.set()

    def _forget(self, view: LeaseView | None) -> None:
        """The Lease was deleted.

        The watch may have reported the deletion before the answer to our write set it again.
        """
        with self._lock:
            if view and self._view and self._view.uid == view.uid:
                self._take_in(None)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.last_tick = time.monotonic()
            self._news.clear()
            wait = 0.2
            try:
                if self.leading and self._give_up:
                    self._hand_over()
                with supervision.expected("lease", "this attempt to hold the lease"):
                    wait = self._renew() if self.leading else self._try_to_lead()
            except ApiFailure as failure:
                log.warning("lease: %s", failure)
                wait = min(1.0, self._settings.renew_interval / 4)
            if self.leading and time.monotonic() >= self._write_until:
                self._lose("it could not be renewed in time")
            self._wait(wait)

    def _wait(self, seconds: float) -> None:
        """Until so much time has passed or there is news; `last_tick` is updated meanwhile."""
        ends = time.monotonic() + seconds
        while not self._news.wait(max(0.0, min(TICK, ends - time.monotonic()))):
            self.last_tick = time.monotonic()
            if self.last_tick >= ends:
                return

    # -- leading ------------------------------------------------------------------------

    def _renew(self) -> float:
        sent, view = time.monotonic(), self._view
        ops = [
            _op("test", "/spec/holderIdentity", self.identity),
            _op("replace", "/spec/renewTime", _now()),
        ]
        answer = self._send("PATCH", self._path, ops, _JSON_PATCH)
        if self._stop.is_set():
            return 0.0
        if answer.ok:
            self._refused = 0
            renewed = lease_from_json(answer.json())
            self._write_until = sent + self._settings.renew_deadline
            self._take_in(renewed)
            return max(0.0, self._settings.renew_interval - (time.monotonic() - sent))
        if answer.status in (404, 422):
            self._lose("the Lease was deleted" if answer.status == 404 else "it was taken over")
            if answer.status == 404:
                self._forget(view)
            # Once is how a Lease changes hands. Again and again, something changes each that is
            # taken (an admission webhook, say), and it would be taken in a loop.
            self._refused += 1
            if self._refused > 1:
                pause = min(self._settings.duration, 0.1 * 2.0 ** min(self._refused, 10))
                self._not_before = time.monotonic() + pause
            # The watch reports who took it; until then we know an older Lease, of our own.
            return 0.0 if answer.status == 404 else RANDOM.uniform(0.5, 1.0)
        raise answer.failure()

    def _lose(self, why: str) -> None:
        self._write_until = 0.0
        self.leading = False
        log.warning("lost leadership: %s", why)
        self._on_change(False)

    def _hand_over(self) -> None:
        why, self._give_up = self._give_up, ""
        self._not_before = time.monotonic() + self._settings.duration
        self._lose(why)
        self._release()

    # -- standing by --------------------------------------------------------------------

    def _try_to_lead(self) -> float:
        self._give_up = ""
        if not self._synced:
            return 5.0
        left = self._not_before - time.monotonic()
        if left > 0:
            return left
        if self.unfit():
            return 1.0
        with self._lock:
            view, seen_at = self._view, self._seen_at
        if view is None:
            self._take(None)
        elif view.holder in ("", self.identity):
            self._take(view)
        else:
            # The holder's own duration counts, however long it is, as in client-go (isLeaseValid
            # in tools/leaderelection/leaderelection.go): its writes are fenced by nothing else.
            expires = seen_at + max(view.duration, self._settings.duration)
            left = expires - time.monotonic()
            if left > 0:
                self._say_blocked(view)
                return left
            log.warning("the leader %s stopped renewing", view.holder)
            self._take(view)
        # On a lost race the winner's write arrives by the watch; this is only the net.
        return 0.0 if self.leading else RANDOM.uniform(0.5, 1.0)

    def _say_blocked(self, view: LeaseView) -> None:
        """Once for each Lease whose duration keeps everybody else away for long."""
        long = max(LONG_LEASE, LONG_LEASE_TIMES * self._settings.duration)
        if view.duration <= long or self._blocked_said == (view.holder, view.duration):
            return
        self._blocked_said = (view.holder, view.duration)
        text = (
            f"the Lease {view.namespace}/{view.name} is held by {view.holder} with "
            f"leaseDurationSeconds {view.duration:.0f}: if that process is gone, nobody leads for "
            f"so long after its last renewal; delete the Lease then"
        )
        log.warning("%s", text)
        self.on_blocked(text)

    def _take(self, view: LeaseView | None) -> None:
        sent = time.monotonic()
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._settings.duration)),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": min(view.transitions + 1, INT32) if view else 0,
        }
        meta: dict[str, Any] = {"labels": {LABEL: "true"}}
        first = annotation_to_write(
            view.annotations if view else None,
            was_held=view is not None and bool(view.holder or view.renewed),
            now=time.time(),
            known=self._first_start,
        )
        if first is not None:
            meta["annotations"] = {FIRST_START_KEY: first}
        if view is None:
            meta["name"] = self._settings.name
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": meta,
                "spec": spec,
            }
            answer = self._send("POST", self._path.rpartition("/")[0], body, "application/json")
        else:
            meta["resourceVersion"] = view.version
            answer = self._send("PATCH", self._path, {"metadata": meta, "spec": spec}, _MERGE)
        if answer.status == 409:
            return
        if answer.status == 404:
            self._forget(view)
        if not answer.ok:
            raise answer.failure()
        if self._stop.is_set():
            return
        taken = lease_from_json(answer.json())
        self._term += 1
        self._write_until = sent + self._settings.renew_deadline
        self.leading = True
        self._take_in(taken)
        log.info("leading as %s", self.identity)
        self._on_change(True)

    def _send(self, method: str, path: str, body: object, content_type: str) -> Answer:
        return self._api.write(
            method,
            path,
            body,
            content_type=content_type,
            timeout=max(1.0, self._settings.renew_deadline / 2),
            fenced=False,
            ignore_dry_run=True,
        )


def _older(view: LeaseView, known: LeaseView) -> bool:
    """Whether it is the same Lease at an earlier time; versions are numbers that grow."""
    if view.uid != known.uid or not (view.version.isdigit() and known.version.isdigit()):
        return False
    return int(view.version) < int(known.version)


def _fingerprint(view: LeaseView) -> tuple[str, str, int]:
    return view.holder, view.renewed, view.transitions


def _op(op: str, path: str, value: object) -> Json:
    return {"op": op, "path": path, "value": value}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
