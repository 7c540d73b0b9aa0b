"""How worker processes live and end, and what they show. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from selfheal_worker.model.load_time import LONGEST_LOAD
from tests.simulation.models.conditions import Condition
from tests.simulation.worker.checks import invariant
from tests.simulation.worker.faults import Kind
from tests.simulation.worker.history import ANSWERED, DEAD, History, Life, Sample
from tests.simulation.worker.invariants_of_results import distinguishable

#: Seconds that a SIGTERM's tick, requeueing and closing may take beside the grace period
#: (TICK, REQUEUE_PATIENCE, CLOSE_TIMEOUT), and a little.
_STOPPING = 0.5 + 2.0 + 3.0 + 0.5
#: Seconds in which a worker that can answer must, beside the time for calls.
_PATIENCE = 120.0
#: After a refused key the active model is probed at intervals of up to 5 minutes.
_ACCESS_PATIENCE = 330.0
#: Conditions in which the first probe of a model may last until the time to load it is over, also
#: where the server has recovered meanwhile.
_HOLDS_A_PROBE = (Condition.SILENT, Condition.DRIPS, Condition.ENDLESS)


@invariant(
    "ARCHITECTURE: It ends when nothing is in flight, or two seconds after the grace. design: "
    "SIGTERM: finish or requeue what is in flight within the grace period, exit 0."
)
def shutdown_is_within_the_grace(history: History) -> Iterator[str]:
    """From SIGTERM to the end of the process."""
    for life in history.lives:
        if life.terminated is None or life.killed is not None:
            continue
        ended = life.ended if life.ended is not None else history.over
        allowed = history.world.grace + _STOPPING
        if life.stopped_within(life.terminated, ended):
            continue
        if ended - life.terminated > allowed:
            yield f"{life.name} needed {ended - life.terminated:.1f} s, allowed are {allowed}"
        elif life.ended is not None and life.code not in (0, None):
            yield f"{life.name} ended with status {life.code}"


@invariant(
    "design, guarantee 7: /healthz fails only if this process is stuck, never because the "
    "broker or model server is down."
)
def healthz_is_about_the_process(history: History) -> Iterator[str]:
    """No worker that gets CPU is unhealthy."""
    lives = {one.name: one for one in history.lives}
    for one in history.samples:
        if _had_no_cpu(lives[one.worker], one, history) or _hangs(one, history):
            continue
        if found := one.status.unhealthy():
            yield f"{one.worker} is unhealthy at {one.at:.0f}: {found}"


def _had_no_cpu(life: Life, one: Sample, history: History) -> bool:
    return life.stopped_within(one.at - history.world.deadline - 60.0, one.at)


def _hangs(one: Sample, history: History) -> bool:
    """Whether a model in its process may have kept a thread for ever."""
    return any(
        fault.target in history.world.plug_ins and fault.condition is Condition.SILENT
        for fault in history.faults()
        if fault.at <= one.at
    )


@invariant("design, guarantee 6: N messages in flight per process.")
def in_flight_is_bounded(history: History) -> Iterator[str]:
    """Never more messages than handlers."""
    for one in history.samples:
        if one.status.in_flight > history.world.concurrency:
            yield f"{one.worker} has {one.status.in_flight} in flight at {one.at:.0f}"


@invariant(
    "issue 20: no consumer idle forever while a model is healthy. README: A fallback model may "
    "answer; work resumes by itself."
)
def nobody_is_idle_for_ever(history: History) -> Iterator[str]:
    """While messages wait and a worker can answer, some end comes within a bounded time."""
    for worker in sorted({one.worker for one in history.samples}):
        since: float | None = None
        ends = -1
        for one in (sample for sample in history.samples if sample.worker == worker):
            if not one.able or not one.ready or one.ends != ends:
                since, ends = one.at, one.ends
            elif since is not None and one.at - since > _idle_limit(history):
                yield (
                    f"{one.ready} messages wait at {one.at:.0f}, and {worker} has answered none "
                    f"since {since:.0f}: {one.status}"
                )
                break


def _idle_limit(history: History) -> float:
    world = history.world
    access = any(one.refuses_access for one in history.faults())
    loads = sum(one.load for one in world.servers)
    seconds = _ACCESS_PATIENCE if access else _PATIENCE
    if any(one.condition in _HOLDS_A_PROBE for one in history.faults()):
        seconds += LONGEST_LOAD
    return seconds + loads + 10 * world.deadline + max(world.ladder)


@invariant(
    "ARCHITECTURE: a model that keeps failing is left alone and probed; probing is closed when the "
    "probe succeeded. providers.md: probed at growing intervals of up to 30 seconds (keys: 5 "
    "minutes)."
)
def breakers_close_again(history: History) -> Iterator[str]:
    """At the end each worker is ready, and the active model answers what it can."""
    last = {one.worker: one for one in history.samples}
    alive = {one.name for one in history.lives if one.ended is None and one.terminated is None}
    for name in sorted(alive & last.keys()):
        if history.settled is not None and (why := last[name].status.not_ready):
            yield f"{name} is not ready at the end: {why}"
    if not distinguishable(history.world) or history.settled is None or _loads(history):
        return
    number = max(one.number for one in history.world.messages)
    for end in history.of(number):
        if end.kind == ANSWERED and end.result().get("degraded"):
            yield f"message {number} came when nothing failed, and its answer is degraded"


def _loads(history: History) -> bool:
    """Whether the active model may have to be loaded for the last message, for longer than a call
    may take."""
    world = history.world
    server = world.chain[0].server
    share = world.deadline / len(world.chain)
    if server is None or server.load < share:
        return False
    loads = (Kind.SWAP, Kind.UNLOAD)
    return any(one.kind in loads and one.target == server.name for one in world.faults)


@invariant("design: /metrics. alerts/metrics.md: selfheal_worker_messages_total by outcome.")
def metrics_agree_with_the_broker(history: History) -> Iterator[str]:
    """What a worker counted is what the broker got of it."""
    answered = Counter(one.worker for one in history.ends if one.kind == ANSWERED)
    dead = Counter(one.worker for one in history.ends if one.kind == DEAD)
    for life in history.lives:
        if not life.metrics or life.killed is not None:
            continue
        for outcome, got in (("answered", answered), ("dead_lettered", dead)):
            counted = life.metrics.get(f'selfheal_worker_messages_total{{outcome="{outcome}"}}')
            if counted is None:
                yield f"{life.name} shows no count of {outcome}"
                continue
            # A confirm that was lost with its connection is not counted, nor one that had not come
            # when the grace period was over.
            unconfirmed = life.lost_connections or _took_its_grace(life, history)
            fewer = counted < got[life.name] and not unconfirmed
            if fewer or counted > got[life.name]:
                yield f"{life.name} counted {counted:g} {outcome}, the broker got {got[life.name]}"


def _took_its_grace(life: Life, history: History) -> bool:
    if life.terminated is None or life.ended is None:
        return False
    return life.ended - life.terminated >= history.world.grace
