"""A cluster in which a scenario takes place: the running remediator before a recording FakeApi.

Time is the scenario's: `advance` moves the clock by which the remediator decides. Every wait is for
something that the remediator does; `settled` waits until it has evaluated all that the API shows.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from selfheal_remediator.config import Config
from tests.pure.golden.record import Normal, Request, rendered
from tests.pure.remediator import running as support
from tests.pure.remediator.fake_api import FakeApi, Json
from tests.pure.remediator.running import NODES, PODS, until

#: A node that only shows by its annotation that what came before it has been evaluated.
MARKER = "marker"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/d/leases/selfheal-remediator"
POLICIES = "/apis/selfheal.dev/v1alpha1/namespaces/d/healingpolicies"
BUDGETS = "/apis/policy/v1/namespaces/d/poddisruptionbudgets"
#: No renewal in the time that a scenario takes, also on a busy machine.
SLOW_LEASE = {"duration": "600s", "renewInterval": "200s", "renewDeadline": "400s"}
COUNTED = ("actions_total", "healing_restarts_total")


class Clock:
    """Seconds since the epoch, moved by hand beside the machine's."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._offset + self.ahead


class World(FakeApi):
    """Objects, the remediator, and the record of what it asked for."""

    def __init__(self) -> None:
        super().__init__(self._disturbed)
        self.clock = Clock()
        self.start = time.time()
        self.requests: list[Request] = []
        #: What goes wrong with a request, by (verb, path); `answers` = by pod, its evictions'.
        self.trouble: Callable[[str, str], str] = lambda verb, path: ""
        self.answers: dict[str, list[tuple[int, Json]]] = {}
        #: Pods whose evictions are accepted and not carried out, and those that end slowly.
        self.kept: set[str] = set()
        self.slow: set[str] = set()
        self.made: Any = None
        self._query = threading.local()
        self._before_patch: Callable[[], None] | None = None
        self._text: list[str] = []
        self._marks = 0
        self.node(MARKER, "False")

    # -- objects ------------------------------------------------------------------------

    def stamp(self, ago: float = 0.0) -> str:
        """A time of the scenario, as the API writes it."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock() - ago))

    def node(self, name: str, fault: str = "False", **more: Any) -> None:
        """A node whose condition `Fault` has this status; one that exists is changed.

        more: labels, annotations, spec, boot_id, allocatable.
        """
        path = f"{NODES}/{name}"
        known = path in self.objects
        raw = self.get(path) if known else support.node(name, fault)
        for item in raw["status"]["conditions"]:
            item["lastHeartbeatTime"] = self.stamp()
            if item["type"] == "Fault":
                if known and item["status"] != fault:
                    item["lastTransitionTime"] = self.stamp()
                item["status"], item["reason"] = fault, "Why"
        raw["spec"] |= more.get("spec", {})
        raw["metadata"].setdefault("labels", {}).update(more.get("labels", {}))
        raw["metadata"]["annotations"] |= more.get("annotations", {})
        raw["status"]["nodeInfo"]["bootID"] = more.get("boot_id", "1")
        if "allocatable" in more:
            raw["status"]["allocatable"] = more["allocatable"]
        self.put(path, raw)

    def change(self, path: str, edit: Callable[[Json], Any]) -> None:
        """Somebody else changes an object."""
        raw = self.get(path)
        edit(raw)
        self.put(path, raw)

    def pod(self, name: str, where: str, **more: Any) -> None:
        """A pod of ReplicaSet `r`; more: labels, ready, priority, owner, requests."""
        raw = support.pod(name, where)
        raw["metadata"]["labels"] = more.get("labels", {"app": "web"})
        raw["metadata"]["creationTimestamp"] = self.stamp(3600)
        if "owner" in more:
            api, kind, owner = more["owner"]
            found = {"apiVersion": api, "kind": kind, "name": owner, "uid": owner}
            raw["metadata"]["ownerReferences"] = [{**found, "controller": True}]
        raw["spec"]["priority"] = more.get("priority", 0)
        if "requests" in more:
            raw["spec"]["containers"][0]["resources"] = {"requests": more["requests"]}
        ready = {"type": "Ready", "status": more.get("ready", "True")}
        raw["status"]["conditions"] = [{**ready, "lastTransitionTime": self.stamp(60)}]
        self.put(f"{PODS}/{name}", raw)

    def policy(self, app: str, **spec: Any) -> None:
        """A HealingPolicy for the pods of an app."""
        wanted = {
            "selector": {"matchLabels": {"app": app}},
            "unhealthyWhen": {"notReadyFor": "1s"},
            "failureThreshold": 1,
            **spec,
        }
        meta = {"name": app, "namespace": "d", "generation": 1}
        self.put(f"{POLICIES}/{app}", {"kind": "HealingPolicy", "metadata": meta, "spec": wanted})

    def lease(self, holder: str = "", **annotations: str) -> None:
        """The Lease as somebody leaves it; annotations without their prefix."""
        known = {f"selfheal.dev/{key}": value for key, value in annotations.items()}
        meta = {"name": "selfheal-remediator", "namespace": "d", "annotations": known}
        meta |= {"creationTimestamp": self.stamp(60), "labels": {"selfheal.dev/remediator": "true"}}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 3600, "leaseTransitions": 1,
                "renewTime": self.stamp(60).replace("Z", ".000000Z")}  # fmt: skip
        self.put(LEASE, {"kind": "Lease", "metadata": meta, "spec": spec})

    # -- the remediator -----------------------------------------------------------------

    @contextmanager
    def running(self, values: dict[str, Any] | None = None, lead: bool = True) -> Iterator[None]:
        """Run it with this configuration, and keep its counters for the record."""
        with support.running(self, Config.model_validate(config(values)), self.clock) as made:
            self.made = made
            until("the nodes are known", lambda: not made.ready())
            if lead:
                self.settled()
            yield
            if lead:
                self.settled()
            if any(path.startswith(POLICIES) for path in self.objects):
                self.advance(11)  # a status is written at most each ten seconds
                self.settled()
        wanted = tuple(f"selfheal_remediator_{name}" for name in COUNTED)
        lines = made.metrics.render().decode().splitlines()
        # The marker's changes are counted too: they only say how often the scenario waited.
        kept = [line for line in lines if line.startswith(wanted) and not line.endswith(" 0.0")]
        self._text = [line for line in kept if 'action="annotate"' not in line]

    def settled(self) -> None:
        """Wait until it has evaluated all that the API shows, and done what that calls for.

        The marker is recreated last, so it is seen last; its Event follows the answer to its
        change, and then nothing else may be under way.
        """
        self._marks += 1
        uid, path = f"{MARKER}-{self._marks}", f"{NODES}/{MARKER}"
        raw = self.get(path)
        kept = [item for item in raw["status"]["conditions"] if item["type"] != "Marker"]
        marker = {"type": "Marker", "status": "True", "lastTransitionTime": self.stamp(60)}
        raw["status"]["conditions"] = [*kept, {**marker, "lastHeartbeatTime": self.stamp()}]
        raw["metadata"]["uid"] = uid
        raw["metadata"]["annotations"] = {}
        self.put(path, None)
        self.put(path, raw)
        until("the marker is seen", lambda: self._reported_of(uid))
        self.quiet()

    def _reported_of(self, uid: str) -> bool:
        return any(
            one.path.endswith("/events") and one.body["involvedObject"]["uid"] == uid
            for one in list(self.requests)
        )

    def quiet(self) -> None:
        """Wait until no request is under way, and none follows from the last answers and from
        what the watches reported."""

        def nothing_new() -> bool:
            seen = len(self.requests)
            if not self.made.at_rest():
                return False
            self.turns()
            return self.made.at_rest() and seen == len(self.requests)

        for _ in range(2):
            until("all is answered", nothing_new)

    def turns(self, times: int = 3) -> None:
        """Let its main loop go round."""
        for _ in range(times):
            done = threading.Event()
            self.made.post(done.set)
            assert done.wait(support.PATIENCE)

    def advance(self, seconds: float) -> None:
        """Let time pass by the remediator's clock."""
        self.clock.ahead += seconds
        self.turns()

    def requested(self, verb: str, path: str, after: int = 0) -> bool:
        """Whether this was requested, since so many requests."""
        return any((one.verb, one.path) == (verb, path) for one in self.requests[after:])

    def event(self, reason: str, count: int = 1) -> None:
        """Wait for so many Events with this reason."""
        until(f"Event {reason}", lambda: self._reported(reason) >= count)

    def _reported(self, reason: str) -> int:
        return sum(
            one.path.endswith("/events") and one.body["reason"] == reason
            for one in list(self.requests)
        )

    def phase(self, node: str, phase: str) -> None:
        """Wait until the node's annotation says so; empty = it is gone."""
        until(
            f"{node} is {phase or 'as before'}", lambda: self.state(node).get("phase", "") == phase
        )

    def state(self, node: str) -> dict[str, Any]:
        """What is written on the node, empty = nothing."""
        text = self.get(f"{NODES}/{node}")["metadata"]["annotations"].get("selfheal.dev/state")
        return dict(json.loads(text)) if text else {}

    def gone(self, *pods: str) -> None:
        """Wait until these pods were evicted (or deleted)."""
        until(f"{pods} go", lambda: all(f"{PODS}/{name}" not in self.objects for name in pods))

    def metric(self, series: str, value: float) -> None:
        """Wait until `/metrics` shows this."""
        line = f"selfheal_remediator_{series} {value}"
        self.advance(1.1)  # they are counted once a second

        def shown() -> bool:
            self.made.post(lambda: None)
            return line in self.made.metrics.render().decode()

        until(line, shown)

    def status(self, policy: str, state: str, message: str = "") -> None:
        """Wait for this state in the policy's status, and for a message with these words."""

        def shown() -> bool:
            status = self.get(f"{POLICIES}/{policy}").get("status", {})
            return status.get("state") == state and message in status["message"]

        until(f"{policy} is {state}", shown)

    # -- the record ---------------------------------------------------------------------

    def record(self) -> str:
        """All that was seen of it."""
        text = rendered(self.requests, Normal(self.start), MARKER)
        counted = "".join(f"  {line}\n" for line in self._text)
        return f"{text}\nmetrics\n{counted}"

    def before_next_patch(self, what: Callable[[], None]) -> None:
        """Do this when the next change of a node has arrived and is not made yet."""
        self._before_patch = what

    def _disturbed(self, verb: str, path: str) -> str:
        found = self.trouble(verb, path)
        if found:
            self.requests.append(
                Request(verb, path, "", None, int(found) if found.isdigit() else 0)
            )
        return found

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        self._query.text = urlsplit(request.path).query
        super().handle(request)

    def _do(self, verb: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Json]:
        marker = path == f"{NODES}/{MARKER}"
        if verb == "PATCH" and self._before_patch and path.startswith(NODES) and not marker:
            what, self._before_patch = self._before_patch, None
            what()
        sent = json.loads(json.dumps(body))
        if verb == "DELETE":
            self.put(path, None)
            status, answer = 200, {"kind": "Status", "status": "Success"}
        else:
            status, answer = super()._do(verb, path, query, body)
        self.requests.append(Request(verb, path, self._query.text, sent or None, status))
        return status, answer

    def _evict(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        name = path.rpartition("/")[2]
        if self.answers.get(name):
            return self.answers[name].pop(0)
        if name in self.slow and not dry_run:
            ends = {"deletionTimestamp": self.stamp(-30), "deletionGracePeriodSeconds": 30}
            self.change(path, lambda raw: raw["metadata"].update(ends))
            return 201, {"kind": "Status", "status": "Success"}
        return super()._evict(path, body, dry_run=dry_run or name in self.kept)


def config(values: dict[str, Any] | None) -> dict[str, Any]:
    """A configuration with one rule about Fault, and the marker's."""
    given = dict(values or {})
    rules = given.pop("rules", [{"condition": "Fault", "for": 0, "action": "cordon"}])
    marker = {"condition": "Marker", "for": 0, "action": "observe"}
    return {
        "limits": {"maxUnavailable": "100%"},
        "signal": {"enabled": False},
        "recovery": {"stabilizationWindow": "60s"},
        "policies": {"enabled": False},
        "lease": SLOW_LEASE,
        **given,
        "rules": [*rules, marker],
    }
