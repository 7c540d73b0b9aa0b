"""What a remediator does in a modelled cluster, as the API server sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from selfheal_remediator.node.annotation import Phase, State
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Answer, Json, Request
from tests.simulation.cluster.store import Change
from tests.simulation.remediator.states import state_of

#: The phases of a node that is out of service.
OUT = tuple(phase for phase in Phase if phase.cordoned)


@dataclass(slots=True)
class NodeRecord:
    """Of one node, in virtual seconds. states: each annotation, and since when (None = none);
    taints: the keys of all that it had; gone: when it was deleted."""

    states: list[tuple[float, State | None]] = field(default_factory=list)
    taints: set[str] = field(default_factory=set)
    gone: float | None = None

    def first(self, *phases: Phase, after: float = 0.0) -> float | None:
        """When it first came to be in one of these phases, not before `after`."""
        return next(
            (
                when
                for when, state in self.states
                if state is not None and state.phase in phases and when >= after
            ),
            None,
        )

    def at(self, when: float) -> State | None:
        """The annotation as it was."""
        found = None
        for since, state in self.states:
            if since > when:
                break
            found = state
        return found

    def no_room(self) -> float | None:
        """When it was found that its pods fit nowhere else."""
        return next((when for when, state in self.states if state and state.no_room), None)

    def left(self, phase: Phase, after: float) -> float | None:
        """When it left the phase in which it was after that time."""
        there = False
        for when, state in self.states:
            here = state is not None and state.phase is phase
            if there and not here and when >= after:
                return when
            there = here
        return self.gone

    def moved(self, since: float, until: float) -> bool:
        """Whether it came to another phase, a step of it ended, or it was deleted, between these
        times."""
        known = self.at(since)
        before = None if known is None else (known.phase, known.steps, known.step_ended)
        for when, state in self.states:
            if since < when <= until:
                now = None if state is None else (state.phase, state.steps, state.step_ended)
                if now != before:
                    return True
        return self.gone is not None and since < self.gone <= until

    def back(self, after: float) -> float | None:
        """When it was in service again, or gone, after it was cordoned not before that time."""
        out = self.first(*OUT, after=after)
        if out is None:
            return None
        ends = (
            when
            for when, state in self.states
            if when > out and (state is None or not state.phase.cordoned)
        )
        return next(ends, self.gone)


@dataclass(slots=True)
class PodRecord:
    """Of one pod (uid). posts: its evictions, with the server's status; node: where it was."""

    name: str
    node: str
    posts: list[tuple[float, int]] = field(default_factory=list)
    finished: float | None = None
    deleted: float | None = None


class Record:
    """See the module. pods: by uid; nodes: by name; surged: Deployments that were rolled out."""

    def __init__(self, cluster: Cluster, actor: str) -> None:
        self._cluster, self._actor = cluster, actor
        self.pods: dict[str, PodRecord] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.surged: dict[str, float] = {}
        self._uids: dict[tuple[str, str], str] = {}
        cluster.store.subscribe(self._changed)
        cluster.api.on_request.append(self._answered)

    @property
    def _now(self) -> float:
        return self._cluster.simulation.now

    def _changed(self, change: Change) -> None:
        match change.key[0]:
            case "nodes":
                self._node(change)
            case "pods":
                self._pod(change)
            case "deployments" if change.new is not None:
                marks = change.new["metadata"].get("annotations") or {}
                if "selfheal.dev/surged" in marks:
                    self.surged.setdefault(change.key[2], self._now)

    def _node(self, change: Change) -> None:
        known = self.nodes.setdefault(change.key[2], NodeRecord())
        if change.new is None:
            known.gone = self._now
            return
        state = state_of(change.new)
        if not known.states or known.states[-1][1] != state:
            known.states.append((self._now, state))
        known.taints |= {taint["key"] for taint in change.new["spec"].get("taints") or ()}

    def _pod(self, change: Change) -> None:
        raw = change.new or change.last
        meta = raw["metadata"]
        self._uids[meta["namespace"], meta["name"]] = meta["uid"]
        known = self.pods.setdefault(
            meta["uid"], PodRecord(f"{meta['namespace']}/{meta['name']}", "")
        )
        known.node = str(raw["spec"].get("nodeName") or known.node)
        if _phase(raw) in ("Succeeded", "Failed") and known.finished is None:
            known.finished = self._now
        gone = change.new is None or meta.get("deletionTimestamp") is not None
        if gone and known.deleted is None:
            known.deleted = self._now

    def _answered(self, request: Request, answer: Answer) -> None:
        if request.method != "POST" or not request.path.endswith("/eviction"):
            return
        if not request.process.startswith(self._actor):
            return
        body = json.loads(request.body or b"{}")
        dry = (body.get("deleteOptions") or {}).get("dryRun") or request.query.get("dryRun")
        uid = ((body.get("deleteOptions") or {}).get("preconditions") or {}).get("uid")
        if not dry and uid in self.pods:
            self.pods[uid].posts.append((self._now, answer.status))


def _phase(raw: Json) -> str:
    return str((raw.get("status") or {}).get("phase") or "")
