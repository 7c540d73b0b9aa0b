"""Rollouts that progress keep pods from being restarted; those that have stopped do not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.owners import owner_from
from selfheal_remediator.healing.plan import Owner
from selfheal_remediator.healing.pod_health import Container, WatchedPod
from selfheal_remediator.healing.policy import State
from selfheal_remediator.healing.policy_metrics import policy_values
from selfheal_remediator.healing.restart_limits import refused_by_owner
from selfheal_remediator.healing.rollouts import advance
from selfheal_remediator.kube.informer import Change
from tests.pure.remediator.healing_world import NOW, World, around, policy, policy_json, watched

KEY = "ns/web"
Json = dict[str, Any]


def owner_json(kind: str, *, spec: Json | None = None, **status: Any) -> Json:
    """An owner of three pods; of a DaemonSet its nodes say how many it wants."""
    annotations = {
        "deployment.kubernetes.io/revision": "2",
        "deprecated.daemonset.template.generation": "2",
    }
    meta = {"name": "web", "uid": "owner", "generation": 4, "annotations": annotations}
    counts: Json = {"observedGeneration": 4, "replicas": 3, "desiredNumberScheduled": 3}
    if kind != "StatefulSet":
        counts |= {"updatedReplicas": 3, "updatedNumberScheduled": 3}
    return {
        "metadata": meta,
        "spec": {"replicas": 3, **(spec or {})},
        "status": {**counts, **status},
    }


def _progressing(status: str, reason: str) -> Json:
    return {"conditions": [{"type": "Progressing", "status": status, "reason": reason}]}


REVISIONS: Json = {"currentRevision": "a", "updateRevision": "b", "updatedReplicas": 1}
#: Rollouts that stand still: (kind, object, seconds after which that is certain).
STOPPED = {
    "Deployment, its deadline exceeded": (
        "Deployment",
        owner_json(
            "Deployment", updatedReplicas=1, **_progressing("False", "ProgressDeadlineExceeded")
        ),
        0,
    ),
    "Deployment, paused in the middle": (
        "Deployment",
        owner_json(
            "Deployment",
            spec={"paused": True},
            updatedReplicas=1,
            **_progressing("Unknown", "DeploymentPaused"),
        ),
        0,
    ),
    "Deployment, nobody says so": (
        "Deployment",
        owner_json(
            "Deployment",
            spec={"progressDeadlineSeconds": 300},
            updatedReplicas=1,
            **_progressing("True", "ReplicaSetUpdated"),
        ),
        300,
    ),
    "Deployment, more patient than others": (
        "Deployment",
        owner_json(
            "Deployment",
            spec={"progressDeadlineSeconds": 1200},
            **_progressing("True", "ReplicaSetUpdated"),
        ),
        1200,
    ),
    "Deployment without a deadline": (
        "Deployment",
        owner_json("Deployment", spec={"progressDeadlineSeconds": 2**31 - 1}, updatedReplicas=1),
        600,
    ),
    "StatefulSet": ("StatefulSet", owner_json("StatefulSet", **REVISIONS), 600),
    "StatefulSet whose pods must be ready for long": (
        "StatefulSet",
        owner_json("StatefulSet", spec={"minReadySeconds": 300}, **REVISIONS),
        900,
    ),
    "DaemonSet": ("DaemonSet", owner_json("DaemonSet", updatedNumberScheduled=2), 600),
}


def _world(kind: str, raw: Callable[[], Json], seconds: float = 0.0) -> World:
    """Three pods of the owner, one of which breaks after so long a rollout."""
    made = World({KEY: policy_json("web")}, {"web": 3})
    made.owner = lambda name: owner_from(raw(), kind)  # type: ignore[method-assign]
    made.run(max(60.0, seconds), step=5.0)
    made.break_one("web")
    return made


def _conditions(made: World) -> dict[str, tuple[str, str]]:
    found = made.documents[KEY]["status"]["conditions"]
    return {item["type"]: (item["status"], item["message"]) for item in found}


@pytest.mark.parametrize(("kind", "raw", "seconds"), STOPPED.values(), ids=STOPPED.keys())
def test_an_owner_whose_rollout_has_stopped_is_healed_and_it_is_reported(
    kind: str, raw: Json, seconds: float
) -> None:
    made = _world(kind, lambda: raw)
    said: list[tuple[str, str]] = []
    while not made.evicted and made.now < NOW + 2 * 3600:
        said += [(notice.reason, notice.message) for notice in made.tick(5.0).notices]
    assert made.evicted
    assert made.now - NOW >= seconds
    assert made.now - NOW < seconds + 120
    [text] = [message for reason, message in said if reason == "RolloutStuck"]
    assert text.startswith(f"{kind} web: ")
    status, message = _conditions(made)["RolloutStuck"]
    assert (status, f"{kind} web: " in message) == ("True", True)
    assert policy_values(made.healing.policy_states.values()).stuck == {(KEY,): 1}
    [order] = made.restarts
    # It is asked for again right before the eviction: an owner that stands still as before.
    assert refused_by_owner(order, owner_from(raw, kind), made.now) is None


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("Deployment", lambda n: {"updatedReplicas": n, "replicas": 99}),
        ("Deployment", lambda n: {"updatedReplicas": 1, "replicas": 99 - n}),
        ("StatefulSet", lambda n: {**REVISIONS, "updatedReplicas": n}),
        ("DaemonSet", lambda n: {"updatedNumberScheduled": n, "desiredNumberScheduled": 99}),
    ],
    ids=["new pods", "old pods go", "revisions", "nodes"],
)
def test_a_rollout_that_progresses_is_left_alone_however_long(
    kind: str, steps: Callable[[int], Json]
) -> None:
    made = World({KEY: policy_json("web")}, {"web": 3})

    def raw() -> Json:
        return owner_json(kind, **steps(1 + int((made.now - NOW) / 500)))

    made.owner = lambda name: owner_from(raw(), kind)  # type: ignore[method-assign]
    made.run(60)
    made.break_one("web")
    for _ in range(720):
        made.tick(10.0)
        made.healing.owner_known("rs-web", made.owner("web"))
    assert made.evicted == []
    assert _conditions(made)["RolloutStuck"][0] == "False"
    assert policy_values(made.healing.policy_states.values()).stuck == {(KEY,): 0}


def test_a_pod_that_is_ready_now_and_then_is_no_progress() -> None:
    made = World({KEY: policy_json("web")}, {"web": 3})

    def owner(name: str) -> Owner:
        available = 2 + int(made.now / 20) % 2
        return owner_from(
            owner_json("Deployment", updatedReplicas=1, availableReplicas=available), name
        )

    made.owner = lambda _: owner("Deployment")  # type: ignore[method-assign, assignment]
    made.run(60)
    made.break_one("web")
    for _ in range(80):
        made.tick(10.0)
        made.healing.owner_known("rs-web", made.owner("web"))
    assert len(made.evicted) >= 1


def test_another_template_begins_another_rollout() -> None:
    raw = owner_json("StatefulSet", **REVISIONS)
    made = _world("StatefulSet", lambda: raw, 550.0)
    raw["status"]["updateRevision"] = "c"
    made.healing.owner_known("rs-web", made.owner("web"))
    made.run(500, step=5.0)
    assert made.evicted == []
    made.run(150, step=5.0)
    assert len(made.evicted) == 1


def test_how_long_it_has_stopped_is_known_to_the_next_leader() -> None:
    raw = owner_json("StatefulSet", **REVISIONS)
    made = _world("StatefulSet", lambda: raw, 550.0)
    made.new_leader()
    made.run(200, step=5.0)
    assert len(made.evicted) >= 1
    made.new_leader()
    made.run(30, step=5.0)
    assert _conditions(made)["RolloutStuck"][0] == "True"
    raw["status"]["currentRevision"] = "b"
    made.healing.owner_known("rs-web", made.owner("web"))
    made.run(4000, step=5.0)
    assert made.documents[KEY]["status"]["owners"] == []
    assert _conditions(made)["RolloutStuck"][0] == "False"


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
def test_where_no_controller_would_replace_it_no_pod_is_restarted_and_it_is_reported(
    kind: str,
) -> None:
    made = _world(kind, lambda: owner_json(kind, observedGeneration=3))
    said = [notice for _ in range(300) for notice in made.tick(5.0).notices]
    assert made.evicted == []
    [text] = {notice.message for notice in said if notice.reason == "HealingThrottled"}
    assert "kube-controller-manager" in text


@pytest.mark.parametrize("rest", [0, 900])
def test_pods_beyond_those_wanted_are_no_scale_in_for_ever(rest: float) -> None:
    """A stopped rollout keeps its surge; one that is scaled in has it for a moment."""
    made = World({KEY: policy_json("web")}, {"web": 3})
    stopped = _progressing("False", "ProgressDeadlineExceeded")
    raw = owner_json(
        "Deployment", spec={"replicas": 2}, updatedReplicas=1, **({} if rest else stopped)
    )
    if rest:
        raw["status"] |= {"updatedReplicas": 3}
    made.owner = lambda name: owner_from(raw, "Deployment")  # type: ignore[method-assign]
    made.run(60)
    made.break_one("web")
    made.run(rest / 3)
    assert made.evicted == []
    made.run(120 + rest)
    assert len(made.evicted) >= 1


@pytest.mark.parametrize(
    ("fresh", "goes"),
    [
        (owner_json("StatefulSet", **REVISIONS), True),
        (owner_json("StatefulSet", **{**REVISIONS, "updatedReplicas": 2}), False),
        (owner_json("StatefulSet", **{**REVISIONS, "updateRevision": "c"}), False),
        (owner_json("StatefulSet", observedGeneration=3, **REVISIONS), False),
        (owner_json("StatefulSet", **{**REVISIONS, "currentRevision": "b"}), True),
        (owner_json("StatefulSet", spec={"replicas": 2}, **REVISIONS), False),
    ],
    ids=["as before", "progress", "another template", "not seen", "over", "scaled in"],
)
def test_what_the_owner_says_right_before_the_eviction(fresh: Json, goes: bool) -> None:
    made = _world("StatefulSet", lambda: owner_json("StatefulSet", **REVISIONS), 700.0)
    while not made.restarts:
        made.tick()
    [order] = made.restarts
    assert (refused_by_owner(order, owner_from(fresh, "StatefulSet"), made.now) is None) is goes


# -- what no restart of the same template heals ----------------------------------------------


def _waiting(reason: str, **more: Any) -> Json:
    return {
        "phase": "Pending",
        "ready": False,
        "containers": (Container("main", waiting=reason),),
        "revision": "b",
        **more,
    }


@pytest.mark.parametrize(
    ("pod", "spec", "status", "restarted"),
    [
        (_waiting("ImagePullBackOff"), {}, {}, True),
        (_waiting("CreateContainerConfigError"), {}, {}, True),
        (_waiting("", waits_for_node="0/3 nodes fit", containers=()), {}, {}, True),
        (_waiting("ImagePullBackOff", revision="a"), {}, {}, False),
        (_waiting("ImagePullBackOff", revision=""), {}, {}, False),
        (_waiting("ImagePullBackOff"), {"updateStrategy": {"type": "OnDelete"}}, {}, False),
        (
            _waiting("ImagePullBackOff"),
            {"updateStrategy": {"rollingUpdate": {"partition": 1}}},
            {},
            False,
        ),
        (_waiting("ImagePullBackOff"), {}, {"currentRevision": "z"}, False),
    ],
    ids=[
        *("image", "configuration", "no room", "the wanted one", "not reported", "by hand"),
        *("partition", "still rolled out"),
    ],
)
def test_a_pod_of_a_taken_back_template_is_restarted(
    pod: Json, spec: Json, status: Json, restarted: bool
) -> None:
    """kubernetes/kubernetes#67250: the StatefulSet waits for it, and never replaces it."""
    revisions = {"currentRevision": "a", "updateRevision": "a", "updatedReplicas": 2, **status}
    owner = owner_from(owner_json("StatefulSet", spec=spec, **revisions), "StatefulSet")
    made = World({KEY: policy_json("web")}, {"web": 3})
    made.owner = lambda name: owner  # type: ignore[method-assign]
    made.run(60)
    broken = made.of("web")[0]
    del made.pods[broken.uid]
    made.pods[broken.uid] = replace(broken, **pod)
    made.workers[broken.uid].broken = True
    made.notify(broken, broken, made.pods[broken.uid])
    made.run(200)
    assert bool(made.evicted) is restarted


def test_a_policy_that_is_not_about_readiness_does_not_take_it_for_broken() -> None:
    spec = {"unhealthyWhen": {"terminatedNonZero": True}}
    made = World({KEY: policy_json("web", **spec)}, {"web": 3})
    revisions: Json = {"currentRevision": "a", "updateRevision": "a"}
    owner = owner_from(owner_json("StatefulSet", **revisions), "StatefulSet")
    made.owner = lambda name: owner  # type: ignore[method-assign]
    made.run(60)
    broken = made.of("web")[0]
    made.workers[broken.uid].broken = True
    made.pods[broken.uid] = replace(broken, **_waiting("ImagePullBackOff"))
    made.notify(broken, broken, made.pods[broken.uid])
    made.run(200)
    assert made.evicted == []


# -- dead nodes ------------------------------------------------------------------------------


def test_a_daemon_set_with_a_dead_node_is_healed_on_the_living_ones_one_after_the_other() -> None:
    healing = Healing(10.0)
    healing.adopt(policy(), NOW)
    owner = owner_from(owner_json("DaemonSet", updatedNumberScheduled=2), "DaemonSet")
    healing.owner_known("ds", owner)
    pods = [
        watched(f"p{n}", node=f"n{n}", owner_kind="DaemonSet", owner_uid="ds", ready=n == 3)
        for n in range(4)
    ]
    pods[0] = replace(pods[0], deletion=NOW - 3600)  # its node is dead: it never goes
    for pod in pods:
        healing.pod_changed(KEY, Change(pod.name, None, pod))
    healing.pods_known(KEY)
    sky = around(node_trouble=lambda name: "not ready" if name == "n0" else "")
    restarted: list[tuple[float, str]] = []
    now = NOW
    while now < NOW + 1800:
        now += 5.0
        for order in healing.evaluate(now, sky).restarts:
            restarted.append((now, order.pod.name))
            healing.accepted(order, now)
            healing.pod_changed(KEY, Change(order.pod.name, order.pod, None))
            is_healthy = replace(
                order.pod, uid=f"{order.pod.uid}+", ready=True, created=now, ready_changed=now
            )
            healing.pod_changed(KEY, Change(is_healthy.name, None, is_healthy))
    assert [name for _, name in restarted] == ["p1", "p2"]
    assert restarted[0][0] >= NOW + 600
    assert restarted[1][0] - restarted[0][0] < 120
    status = healing.policy_states[KEY].status
    assert status is not None
    assert status.state is not State.GAVE_UP


# -- what is written down --------------------------------------------------------------------


def _changed_statuses(made: World) -> list[Json]:
    """Fills from now on: each status that is written and differs from the one before."""
    written: list[Json] = []
    write = made.write

    def noted(key: str, status: Json) -> None:
        if made.documents[key].get("status") != status:
            written.append(status)
        write(key, status)

    made.write = noted  # type: ignore[method-assign]
    return written


@pytest.mark.parametrize(("kind", "raw", "seconds"), STOPPED.values(), ids=STOPPED.keys())
def test_a_stuck_rollout_is_written_down_a_few_times_not_for_as_long_as_it_is_stuck(
    kind: str, raw: Json, seconds: float
) -> None:
    made = World({KEY: policy_json("web")}, {"web": 3})
    made.owner = lambda name: owner_from(raw, kind)  # type: ignore[method-assign]
    written = _changed_statuses(made)
    made.run(30, step=5.0)
    written.clear()
    made.run(seconds + 120, step=5.0)
    assert len(written) <= 12
    written.clear()
    made.run(3 * 3600, step=5.0)
    assert not written


def test_a_restart_that_is_refused_for_hours_is_written_down_once() -> None:
    made = World({KEY: policy_json("web")}, {"web": 3})
    made.run(30, step=5.0)
    made.break_one("web")
    made.fate = lambda _: "refused"
    made.run(600, step=5.0)
    written = _changed_statuses(made)
    made.run(3600)
    assert len(made.restarts) > 10  # it is tried again and again
    assert written == []
    assert made.documents[KEY]["status"]["state"] == "Throttled"


@pytest.mark.parametrize("deadline", [0.0, 30.0, 60.0, 305.0, 600.0, 1234.5, 86400.0])
def test_a_takeover_of_a_stuck_rollout_finds_it_stuck(deadline: float) -> None:
    known = advance(None, "rolls", "t", (1,), 0.0, deadline)
    seen = set()
    for moment in range(0, round(deadline) + 400, 10):
        known = advance(known, "rolls", "t", (1,), float(moment), deadline)
        assert known is not None
        assert known.waited <= moment
        assert moment - known.waited < max(60, deadline / 10) or known.waited >= deadline
        seen.add(known.waited)
    assert max(seen) >= deadline
    assert len(seen) <= 12


# -- the clock -------------------------------------------------------------------------------


@given(
    counts=st.lists(st.tuples(st.integers(0, 5), st.integers(-5, 0)), min_size=1, max_size=60),
)
def test_the_clock_begins_again_at_each_new_best_only(counts: list[tuple[int, int]]) -> None:
    known, best = None, [-9, -9]
    for number, progress in enumerate(counts):
        before = known
        known = advance(known, "rolls", "t", progress, float(number))
        assert known is not None
        better = any(new > old for new, old in zip(progress, best, strict=True))
        assert known.since == (float(number) if better or before is None else before.since)
        best = [max(pair) for pair in zip(progress, best, strict=True)]
    assert advance(known, "", "t", (9, 9), 99.0) is None


def test_restarts_are_forgiven_although_a_node_is_dead() -> None:
    """Its pod is unhealthy for as long: the others are judged without it."""
    made = World(
        {KEY: policy_json("web")},
        {"web": 6},
        around=around(node_trouble=lambda name: "not ready" if name == "node-a" else ""),
    )
    made.run(60)
    for pod in made.of("web"):
        made.workers[pod.uid].broken = pod.node == "node-a"
    made.break_one("web", index=next(n for n, p in enumerate(_named(made)) if p.node != "node-a"))
    made.run(900, step=5.0)
    assert len(made.evicted) == 1
    assert made.healing.policy_states[KEY].records["deploy-web"].failures == 0


def _named(made: World) -> list[WatchedPod]:
    return sorted(made.of("web"), key=lambda pod: pod.name)
