"""A few nodes, some of them in groups, and a planner whose actions are carried out at once."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from selfheal_remediator.config import Config
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Action
from selfheal_remediator.node.annotation import STATE_KEY, Phase, read_state
from selfheal_remediator.node.planner import Planner
from tests.pure.remediator import builders
from tests.pure.remediator.builders import OWNER, condition

#: A Monday, 12:00 UTC.
NOON = datetime(2027, 1, 4, 12, tzinfo=UTC).timestamp()
NIGHTS = [{"start": "22:00", "end": "04:00"}]


def group(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "nodeSelector": {"matchLabels": {"pool": name}}, **more}


def config(*groups: dict[str, Any], **more: Any) -> Config:
    settings = {
        "rules": [{"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}],
        "limits": {"maxUnavailable": "100%", "maxDraining": 9},
        "signal": {"enabled": False},
        "recovery": {"stabilizationWindow": 0},
        "drain": {"deadline": "30d"},
        "groups": list(groups),
        **more,
    }
    return Config.model_validate(settings)


class Cluster:
    """The nodes as they are, and a planner whose actions are carried out at once."""

    def __init__(self, settings: Config, now: float = NOON) -> None:
        self.now, self.version = now, 1
        self.planner = Planner(settings, OWNER, now - 86400)
        self.nodes: dict[str, Node] = {}

    def put(self, found: Node) -> None:
        self.version += 1
        self.nodes[found.name] = replace(found, version=str(self.version))
        change = Change(found.name, None, self.nodes[found.name])
        self.planner.apply(change, self.now)

    def remove(self, name: str) -> None:
        self.planner.apply(Change(name, self.nodes.pop(name), None), self.now)

    def fault(self, name: str, status: str) -> None:
        bad = condition(status, transition=self.now, heartbeat=self.now)
        self.put(builders.with_condition(self.nodes[name], bad))

    def move(self, name: str, pool: str) -> None:
        self.put(replace(self.nodes[name], labels={"pool": pool}))

    def annotate(self, name: str, **annotations: str | None) -> None:
        """drain and drain_until, None = removed."""
        known = dict(self.nodes[name].annotations)
        for key, text in annotations.items():
            known.pop(f"selfheal.dev/{key.replace('_', '-')}", None)
            if text is not None:
                known[f"selfheal.dev/{key.replace('_', '-')}"] = text
        self.put(replace(self.nodes[name], annotations=known))

    def turn(self) -> list[Action]:
        """Plan and carry out until nothing is called for."""
        done: list[Action] = []
        while actions := self.planner.plan(self.now).actions:
            for action in actions:
                self._carry_out(action)
            done += actions
        return done

    def _carry_out(self, action: Action) -> None:
        found = self.nodes[action.node]
        annotations = {key: text for key, text in found.annotations.items() if key != STATE_KEY}
        if action.state is not None:
            annotations[STATE_KEY] = action.state.to_json()
        cordoned = action.state is not None and action.state.phase.cordoned
        self.version += 1
        after = replace(
            found, unschedulable=cordoned, annotations=annotations, version=str(self.version)
        )
        self.nodes[action.node] = after
        self.planner.settled(action, after, self.now)

    def phase(self, name: str) -> Phase | None:
        state = read_state(self.nodes[name])
        return state.phase if state is not None else None

    def waits(self, name: str) -> str:
        entry = self.planner.entry_named(name)
        assert entry is not None
        return f"{entry.blocked.cause}: {entry.blocked.text}" if entry.blocked else ""

    def pools(self) -> Counter[str]:
        return Counter(found.labels["pool"] for found in self.nodes.values())

    def count(self, phases: set[Phase], pool: str | None = None) -> int:
        return sum(
            self.phase(name) in phases
            for name, found in self.nodes.items()
            if pool in (None, found.labels["pool"])
        )
