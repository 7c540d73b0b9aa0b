"""When a node's drain would evict its pods, and in which order, for `plan`. Pure."""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.config import Config
from selfheal_remediator.drain.filters import Fate, Sorting
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.node.annotation import Phase, known_state
from selfheal_remediator.node.work_clock import first_eviction


def numbered(found: list[tuple[Sorting, Pod]]) -> list[tuple[Sorting, Pod]]:
    """The waves in their order from 0 on, with the priority that each is about."""
    waves = sorted({sorting.wave for sorting, _ in found if sorting.fate is Fate.EVICT})
    numbers = {wave: number for number, wave in enumerate(waves)}
    return [
        (
            replace(
                sorting,
                wave=numbers[sorting.wave],
                reason="; ".join(filter(None, (sorting.reason, f"priority {pod.priority}"))),
            )
            if sorting.fate is Fate.EVICT
            else sorting,
            pod,
        )
        for sorting, pod in found
    ]


def delay_notes(node: Node, config: Config, now: float, begins: float) -> set[str]:
    """When its first pod may be evicted, where that is still to come; as a note. begins: when the
    drain would begin, if it has not."""
    state = known_state(node)
    cordoned = now if state is None or not state.phase.cordoned else state.since
    moment = first_eviction(cordoned, config.drain.delay, begins)
    return (
        {f"no pod is evicted before {time_text(moment)} (drain.delay)"}
        if moment > begins
        else set()
    )


def drain_began(node: Node, now: float, begins: float) -> float:
    """When the node's drain began, or would."""
    state = known_state(node)
    began = 0 if state is None or state.phase is not Phase.DRAINING else state.drain_started
    return float(began) if 0 < began <= now else begins
