"""The one annotation that outlives the process: what we did to a node, and why.

JSON of at most 1 KiB under `selfheal.dev/state`; schema version `v`. A value that cannot be
read is never overwritten: the node is left alone and this is reported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from selfheal_remediator.kube.objects import Node

STATE_KEY = "selfheal.dev/state"
EXCLUDE_KEY = "selfheal.dev/exclude"
SCHEMA_VERSION = 1
MAX_BYTES = 1024
#: Seconds beyond which a number is no time: anybody who may write nodes can write any number here.
MAX_SECONDS = 2**40


class Phase(Enum):
    """Where a node is on its way."""

    SEEN = "seen"  # the condition is bad, its `for` is running
    NOTED = "noted"  # observe rule
    CORDONED = "cordoned"  # cordoned; not (yet) drained
    DRAINING = "draining"  # cordoned; being drained
    DRAINED = "drained"  # cordoned; empty
    CANCELLED = "cancelled"  # a person uncordoned it; this occurrence is over
    SUSPECT = "suspect"  # uncordoned: the detector is suspected
    HEALED = "healed"  # uncordoned; kept only for the flap count

    @property
    def cordoned(self) -> bool:
        """Whether we keep the node out of service in this phase."""
        return self in (Phase.CORDONED, Phase.DRAINING, Phase.DRAINED)


@dataclass(frozen=True, slots=True)
class State:
    """Content of the annotation. Times are seconds since the epoch, whole seconds."""

    phase: Phase
    by: str
    condition: str = ""
    status: str = ""
    reason: str = ""
    action: str = ""
    latched: bool = False
    transition: int = 0
    first_seen: int = 0
    since: int = 0
    drain_started: int = 0
    #: Seconds of the drain's deadline that were used when this was written.
    drain_used: int = 0
    no_room: int = 0
    boot_id: str = ""
    scale_down_mark: bool = False
    #: Which rule `first_seen` is about (Rule.mark); empty = not written down.
    rule: str = ""
    #: When it was reported that nothing but a human can end this, 0 = it was not.
    reported: int = 0
    cordons: tuple[int, ...] = ()
    #: How often owners put pods here despite the cordon, and up to which pod (see returns.py).
    returns: tuple[tuple[str, int], ...] = ()
    returned: str = ""

    def to_json(self) -> str:
        """Compact JSON of at most 1 KiB: the reason is shortened, the returns are combined
        into one count, then the oldest cordons are dropped.

        The cordons are the flap count, by which a node waits for a person: a detector's text
        must not displace them.
        """
        state = self
        if self._excess(state) > 0:
            state = self._with_shorter_reason()
        if self._excess(state) > 0:
            merged = (("", max((count for _, count in state.returns), default=0)),)
            state = replace(state, returns=merged if state.returns else ())
        while self._excess(state) > 0 and state.cordons:
            state = replace(state, cordons=state.cordons[1:])
        return state._dump()

    def _excess(self, state: State) -> int:
        return len(state._dump().encode()) - MAX_BYTES

    def _with_shorter_reason(self) -> State:
        """The longest beginning of the reason with which all fits, or none of it."""
        low, high = 0, len(self.reason)
        while low < high:
            middle = (low + high + 1) // 2
            if self._excess(replace(self, reason=self.reason[:middle])) > 0:
                high = middle - 1
            else:
                low = middle
        return replace(self, reason=self.reason[:low])

    def _dump(self) -> str:
        raw: dict[str, Any] = {"v": SCHEMA_VERSION, "phase": self.phase.value}
        for field, name in _NAMES.items():
            value = getattr(self, field)
            if value:
                raw[name] = list(value) if isinstance(value, tuple) else value
        if self.phase.cordoned and self.returns:
            # Of this occurrence only: a node that is uncordoned has no cordon to come back past.
            raw["returns"], raw["returned"] = dict(self.returns), self.returned
        return json.dumps(raw, separators=(",", ":"), ensure_ascii=False)


_NAMES = {
    "by": "by",
    "condition": "condition",
    "status": "status",
    "reason": "reason",
    "action": "action",
    "latched": "latched",
    "transition": "transition",
    "first_seen": "firstSeen",
    "since": "since",
    "drain_started": "drainStarted",
    "drain_used": "drainUsed",
    "no_room": "noRoom",
    "boot_id": "bootID",
    "scale_down_mark": "scaleDownMark",
    "rule": "rule",
    "reported": "reported",
    "cordons": "cordons",
}
_TYPES: dict[str, type] = {
    **dict.fromkeys(("by", "condition", "status", "reason", "action", "boot_id", "rule"), str),
    "returned": str,
    **dict.fromkeys(("latched", "scale_down_mark"), bool),
    **dict.fromkeys(("transition", "first_seen", "since", "drain_started", "no_room"), int),
    "drain_used": int,
    "reported": int,
}


def _can_be_written(text: str) -> bool:
    """Whether the text is valid UTF-8: JSON may contain lone surrogates, logs may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Unreadable(ValueError):
    """The annotation is not ours to interpret; says what is wrong with it."""


def parse_state(text: str) -> State:
    """The state from the annotation's text. Raises Unreadable."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("v") != SCHEMA_VERSION:
        version = raw.get("v") if isinstance(raw, dict) else None
        raise Unreadable(f"schema version {version!r}, this version reads {SCHEMA_VERSION}")
    try:
        phase = Phase(raw.get("phase"))
    except ValueError as error:
        raise Unreadable(f"unknown phase {raw.get('phase')!r}") from error
    values: dict[str, Any] = {}
    for field, kind in _TYPES.items():
        name = _NAMES.get(field, field)
        value = raw.get(name, kind())
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Unreadable(f"{name} is {value!r}, expected {kind.__name__}")
        if isinstance(value, str) and not _can_be_written(value):
            raise Unreadable(f"{name} is no text")
        if isinstance(value, int) and abs(value) > MAX_SECONDS:
            raise Unreadable(f"{name} is no number of seconds")
        values[field] = value
    cordons = raw.get("cordons", [])
    times = isinstance(cordons, list) and all(
        type(item) is int and abs(item) <= MAX_SECONDS for item in cordons
    )
    if not times:
        raise Unreadable("cordons is not a list of seconds")
    returns = raw.get("returns", {})
    if not isinstance(returns, dict) or not all(
        type(item) is int and _can_be_written(key) for key, item in returns.items()
    ):
        raise Unreadable("returns is not an object of counts")
    return State(phase=phase, cordons=tuple(cordons), returns=tuple(returns.items()), **values)


def read_state(node: Node) -> State | None:
    """Our annotation on the node. Raises Unreadable."""
    text = node.annotations.get(STATE_KEY)
    return parse_state(text) if text else None


def cordoned_by(owner: str, node: Node) -> bool:
    """Whether the node's annotation says that this remediator cordoned it."""
    try:
        state = read_state(node)
    except Unreadable:
        return False
    return state is not None and state.phase.cordoned and state.by == owner
