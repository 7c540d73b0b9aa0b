"""Which pod is restarted when: one owner's pods, budgets, nodes, siblings, leaders."""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfheal_remediator.healing.owner_evaluation import FORGIVE_AFTER
from selfheal_remediator.healing.plan import Owner, RestartAction
from selfheal_remediator.healing.pod_evaluation import healthy_wanted
from selfheal_remediator.healing.pod_health import Cause, Container
from selfheal_remediator.healing.policy import HOUR, State, policy_from_json
from tests.pure.remediator.healing_world import NODES, NOW, Worker, World, around, policy_json

KEY = "ns/web"


def world(wanted: int = 3, *, settle: bool = True, **more: Any) -> World:
    """One Deployment under one policy, up and well."""
    spec = more.pop("spec", {})
    made = World({KEY: policy_json("web", **spec)}, {"web": wanted}, **more)
    if settle:
        made.run(60)
        assert state(made) is State.HEALTHY
    return made


def state(made: World, key: str = KEY) -> State:
    """The policy in one word."""
    status = made.healing.policy_states[key].status
    assert status is not None
    return status.state


def message(made: World, key: str = KEY) -> str:
    """What the policy's status says."""
    status = made.healing.policy_states[key].status
    assert status is not None
    return status.message


def notices(made: World, seconds: float) -> list[tuple[str, str]]:
    """(reason, message) of what is said on the policy within so much time."""
    said: list[Any] = []
    for _ in range(round(seconds)):
        said += [(notice.reason, notice.message) for notice in made.tick().notices]
    return said


# -- when ------------------------------------------------------------------------------------


def test_a_pod_not_ready_long_enough_is_restarted_once() -> None:
    made = world()
    made.break_one("web")
    made.run(29)
    assert made.restarts == []
    made.run(25)
    assert len(made.evicted) == 1
    made.run(300)
    assert len(made.evicted) == 1
    assert state(made) is State.HEALTHY


def test_failed_observations_in_a_row_are_needed_unless_too_few_are_healthy() -> None:
    patient = world(spec={"failureThreshold": 6})
    patient.break_one("web")
    patient.run(45)
    assert patient.evicted == []
    patient.run(30)
    assert len(patient.evicted) == 1

    urgent = world(spec={"failureThreshold": 6, "healthThreshold": "100%"})
    urgent.break_one("web")
    urgent.run(45)
    assert len(urgent.evicted) == 1


def test_a_pod_that_recovers_by_itself_is_left_alone() -> None:
    made = world()
    for _ in range(20):
        made.break_one("web")
        made.run(25)
        made.break_one("web", broken=False)
        made.run(10)
    assert made.restarts == []


def test_only_a_hung_pod_gets_a_short_grace() -> None:
    made = world(
        spec={
            "unhealthyWhen": {"notReadyFor": "30s", "noProgressFor": "60s"},
            "progress": {"port": "http"},
            "restart": {"gracePeriod": "7s"},
        }
    )
    hung = next(iter(made.workers.values()))
    hung.work, hung.last_progress = (made.now, made.now + 1e9), made.now
    made.run(80)
    made.break_one("web", index=2)
    made.run(120)
    assert [(order.cause, order.grace) for order in made.restarts] == [
        (Cause.NO_PROGRESS, 7),
        (Cause.NOT_READY, None),
    ]


def test_a_hung_pod_is_restarted_as_soon_as_its_time_is_over() -> None:
    made = world(spec={"unhealthyWhen": {"noProgressFor": "60s"}, "progress": {"port": 8080}})
    begun = made.now
    hung = next(iter(made.workers.values()))
    hung.work, hung.last_progress = (begun, begun + 1e9), begun
    made.run(63)
    assert len(made.restarts) == 1
    assert made.restarts[0].at - begun <= 62


def test_pods_are_asked_in_turn_never_all_at_once() -> None:
    spec = {"unhealthyWhen": {"noProgressFor": "60s"}, "progress": {"port": 8080}}
    made = world(wanted=100, spec=spec)
    asked = [[ask.uid for ask in made.tick().probes] for _ in range(30)]  # three times its interval
    assert max(map(len, asked)) <= 30
    often = Counter(uid for uids in asked for uid in uids)
    assert often.keys() == made.pods.keys()
    assert set(often.values()) <= {2, 3}


def test_below_the_threshold_means_of_the_wanted_pods() -> None:
    made = world(wanted=2, spec={"healthThreshold": 5})
    policy_state = made.healing.policy_states[KEY]
    assert healthy_wanted(policy_state) == 2
    assert policy_state.status is not None
    above = next(c for c in policy_state.status.conditions if c.type == "ThresholdAboveDesired")
    assert above.holds
    assert "5 counts as 2" in above.message


def test_zero_wanted_is_idle() -> None:
    made = world()
    made.wanted["web"] = 0
    made.run(60)
    assert state(made) is State.IDLE
    assert made.restarts == []


# -- one at a time, and not for ever ---------------------------------------------------------


def test_two_broken_pods_go_one_after_the_other() -> None:
    made = world(wanted=4)
    made.break_one("web", index=0)
    made.break_one("web", index=1)
    made.run(50)
    assert len(made.evicted) == 1
    made.run(300)
    assert len(made.evicted) == 2
    first, second = (moment for moment, *_ in made.evicted)
    assert second - first >= made.grace


def _always_broken(made: World, seconds: float) -> None:
    """One pod is healthy, all others break as soon as they are up."""
    keep = min(pod.uid for pod in made.of("web"))
    for _ in range(round(seconds)):
        for pod in made.of("web"):
            made.workers[pod.uid].broken = pod.uid != keep
        made.tick()


def test_the_backoff_doubles_then_it_is_given_up_loudly() -> None:
    made = world(wanted=2, spec={"restart": {"maxPerHour": 4, "backoff": "60s"}}, grace=1.0)
    said: list[Any] = []
    keep = min(pod.uid for pod in made.of("web"))
    for _ in range(3000):
        for pod in made.of("web"):
            made.workers[pod.uid].broken = pod.uid != keep
        said += [notice.reason for notice in made.tick().notices]
    moments = [moment for moment, *_ in made.evicted]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert len(moments) == 4
    assert gaps[1] >= 120
    assert gaps[2] >= 240
    assert state(made) is State.GAVE_UP
    assert Counter(said)["HealingGaveUp"] == 1
    assert "4 restarts within" in message(made)


def test_given_up_stays_so_when_the_hour_is_over_and_ends_with_health() -> None:
    made = world(wanted=2, spec={"restart": {"maxPerHour": 1}})
    _always_broken(made, 3 * HOUR / 10 + 60)
    assert len(made.evicted) == 1
    assert state(made) is State.GAVE_UP
    _always_broken(made, HOUR)
    assert len(made.evicted) == 1
    for worker in made.workers.values():
        worker.broken = False
    made.run(FORGIVE_AFTER + 60)
    assert state(made) is State.HEALTHY
    made.break_one("web")
    made.run(90)
    assert len(made.evicted) == 2


def test_another_template_is_a_new_chance() -> None:
    made = world(wanted=2, spec={"restart": {"maxPerHour": 1}})
    _always_broken(made, 300)
    assert state(made) is State.GAVE_UP
    made.now += HOUR  # the hour is over, and it is still given up
    _always_broken(made, 120)
    assert len(made.evicted) == 1
    usual = made.owner
    made.owner = lambda name: replace(usual(name), template="2")  # type: ignore[method-assign]
    made.healing.owner_known("rs-web", made.owner("web"))
    _always_broken(made, 120)
    assert len(made.evicted) == 2


def test_a_changed_policy_is_a_new_chance() -> None:
    made = world(wanted=2, spec={"restart": {"maxPerHour": 2}})
    _always_broken(made, 900)
    assert state(made) is State.GAVE_UP
    made.documents[KEY]["metadata"]["generation"] = 2
    made.documents[KEY]["spec"]["restart"] = {"maxPerHour": 3}
    made.new_leader()
    _always_broken(made, 600)
    assert len(made.evicted) == 3


def test_a_refused_eviction_uses_nothing_up() -> None:
    made = world(wanted=3, fate=lambda _: "refused")
    made.break_one("web")
    made.run(600)
    record = made.healing.policy_states[KEY].records["deploy-web"]
    assert (record.restarts, record.failures, record.pod) == ((), 0, "")
    assert made.evicted == []
    assert 2 < len(made.restarts) < 25  # asked again, ever more seldom
    assert "PDB says no" in message(made)
    assert state(made) is State.THROTTLED
    made.fate = lambda _: ""
    made.run(90)
    assert len(made.evicted) == 1


# -- hands off -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rolling": "a rollout is in progress"}, "rollout"),
        ({"desired": 2}, "scaled in"),
    ],
)
def test_owners_in_the_middle_of_something_are_left_alone(
    change: dict[str, Any], word: str
) -> None:
    made = world()
    made.owner = lambda name: replace(  # type: ignore[method-assign]
        Owner(f"deploy-{name}", "Deployment", name, "apps/v1", 3, "", "1"), **change
    )
    made.healing.owner_known("rs-web", made.owner("web"))
    made.break_one("web")
    made.run(200)
    assert made.restarts == []
    assert word in message(made)


def test_pods_of_a_node_in_trouble_are_left_alone() -> None:
    made = world(around=around(node_trouble=lambda node: "it is being drained"))
    made.break_one("web")
    made.run(200)
    assert made.restarts == []
    assert "being drained" in message(made)


def test_what_pods_showed_while_their_node_was_away_is_no_reason_when_it_is_back() -> None:
    """They count as unready while it was away, until its agent has spoken for them."""
    trouble = ["it is not ready, so the state of its pods is unknown"]
    made = world(around=around(node_trouble=lambda _: trouble[0]))
    made.break_one("web")
    made.run(300)
    trouble[0] = ""
    made.run(20)
    assert made.restarts == []
    assert "until a moment ago" in message(made)
    made.run(200)  # it stays so: now it is the pod's own illness
    assert len(made.evicted) == 1


@pytest.mark.parametrize("what", ["policy", "all"])
def test_paused_means_nothing_is_restarted(what: str) -> None:
    made = world(
        settle=False,
        spec={"paused": what == "policy"},
        around=around(stopped="paused: for a test" if what == "all" else ""),
    )
    made.run(60)
    made.break_one("web")
    made.run(200)
    assert made.restarts == []
    assert state(made) is (State.PAUSED if what == "policy" else State.THROTTLED)


def test_a_pod_that_starts_is_not_unhealthy_however_long_its_budget() -> None:
    made = world(settle=False, start=130.0)
    made.run(600)
    assert made.restarts == []
    assert state(made) is State.HEALTHY


def test_a_pod_without_a_controller_is_only_reported() -> None:
    made = world(wanted=1)
    [pod] = made.of("web")
    made.change(replace(pod, owner_uid="", owner_kind=""))
    made.break_one("web")
    made.run(120)
    assert made.restarts == []
    assert "no controller would replace it" in message(made)


def test_of_two_policies_the_older_one_heals() -> None:
    younger = policy_json("web")
    younger["metadata"] |= {"name": "also", "uid": "uid-also"}
    younger["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    made = world()
    made.documents["ns/also"] = younger
    made.new_leader()
    for pod in made.of("web"):
        made.healing.pod_changed("ns/also", _arrival(pod))
    made.break_one("web")
    made.run(60)
    assert {order.policy for order in made.restarts} == {KEY}


def _arrival(pod: Any) -> Any:
    from selfheal_remediator.kube.informer import Change

    return Change(pod.name, None, pod)


def test_what_was_seen_too_long_ago_restarts_nothing() -> None:
    made = world()
    made.break_one("web")
    made.run(5)
    made.healing.pods_unknown(KEY, "the watch of its pods is silent", made.now)
    made.run(200)
    assert made.restarts == []
    assert state(made) is State.DEGRADED
    assert "silent" in message(made)
    made.healing.pods_unknown(KEY, "", made.now)
    made.run(30)
    assert len(made.evicted) == 1


def test_pods_that_cannot_be_listed_at_all_are_reported() -> None:
    made = World({}, {})
    made.documents[KEY] = policy_json("web")
    made.healing.adopt(policy_from_json(made.documents[KEY]), made.now)
    made.tick()
    assert made.healing.policy_states[KEY].status is None
    made.healing.pods_unknown(KEY, "403 Forbidden", made.now)
    assert state(made) is State.DEGRADED
    assert message(made) == "403 Forbidden"


@pytest.mark.parametrize(
    ("finalizers", "trouble", "word"),
    [
        (("example.com/kept",), "", "finalizers example.com/kept"),
        ((), "it is gone", "it is gone"),
        ((), "", "does not stop"),
    ],
)
def test_a_pod_that_should_be_gone_is_named_with_its_finalizers(
    finalizers: tuple[str, ...], trouble: str, word: str
) -> None:
    made = world(
        spec={"unhealthyWhen": {"terminatingFor": "60s"}},
        around=around(node_trouble=lambda _: trouble),
        grace=1e9,
    )
    pod = made.of("web")[0]
    made.change(replace(pod, deletion=made.now + 30, finalizers=finalizers))
    said: list[Any] = []
    for _ in range(200):
        cordoned = made.pods.pop(pod.uid)  # the controllers may not take it away
        said += made.tick().notices
        made.pods[pod.uid] = cordoned
    assert [notice.reason for notice in said] == ["PodStuck"]
    assert word in said[0].message
    assert made.restarts == []
    status = made.healing.policy_states[KEY].status
    assert status is not None
    assert [(report.name, report.cause) for report in status.pods] == [(pod.name, "Terminating")]
    assert word in status.pods[0].detail


def test_controllers_that_nobody_needs_are_forgotten() -> None:
    made = world()
    assert not made.healing.retire("rs-web")  # it has pods
    made.healing.owner_known("rs-old", made.owner("web"))
    assert made.healing.retire("rs-old")
    made.wanted["web"] = 0
    made.run(60)
    assert not made.healing.retire("rs-web")  # who else would say that pods are wanted again?
    made.healing.drop(KEY)
    assert made.healing.retire("rs-web")


# -- several owners --------------------------------------------------------------------------


def two_owners(**more: Any) -> World:
    """`web` and `api`, with a pod of each on every node."""
    made = World(
        {KEY: policy_json("web"), "ns/api": policy_json("api")}, {"web": 3, "api": 3}, **more
    )
    made.run(60)
    return made


def _break_on(made: World, node: str) -> None:
    for pod in made.pods.values():
        if pod.node == node:
            made.workers[pod.uid].broken = True


def test_two_owners_unhealthy_on_one_node_are_a_finding_about_the_node() -> None:
    made = two_owners()
    _break_on(made, NODES[0])
    made.run(120)
    assert set(made.healing.findings) == {NODES[0]}
    assert made.restarts == []
    assert "pods of 2 owners" in made.healing.findings[NODES[0]].text
    for worker in made.workers.values():
        worker.broken = False
    made.run(20)
    assert made.healing.findings == {}


def test_the_first_of_two_owners_waits_until_the_second_is_certain() -> None:
    made = two_owners()
    for owner, pause in (("web", 12), ("api", 0)):
        for pod in made.of(owner):
            made.workers[pod.uid].broken = pod.node == NODES[0]
        made.run(pause)
    made.run(60)
    assert set(made.healing.findings) == {NODES[0]}
    assert made.restarts == []


def test_a_paused_policy_tells_nothing_about_nodes() -> None:
    made = two_owners()
    policy_state = made.healing.policy_states[KEY]
    policy_state.policy = replace(policy_state.policy, paused=True)
    _break_on(made, NODES[0])
    made.run(100)
    assert made.healing.findings == {}
    assert {owner for _, owner, _ in made.evicted} == {"api"}


def test_where_no_rule_would_empty_the_node_pods_are_healed_one_by_one() -> None:
    made = two_owners(around=around(node_path=lambda _: False))
    _break_on(made, NODES[0])
    made.run(200)
    assert {owner for _, owner, _ in made.evicted} == {"web", "api"}


def test_a_node_that_nobody_empties_does_not_keep_its_pods_unhealthy_for_ever() -> None:
    made = two_owners()
    _break_on(made, NODES[0])
    made.run(900)
    assert {owner for _, owner, _ in made.evicted} == {"web", "api"}


def test_one_owner_alone_is_no_finding() -> None:
    made = two_owners()
    made.break_one("web")
    made.run(100)
    assert made.healing.findings == {}
    assert len(made.evicted) == 1


def test_of_siblings_unhealthy_everywhere_one_is_restarted_and_its_failure_is_reported_once() -> (
    None
):
    made = world(wanted=3)
    said, unhealthy = [], set()
    for _ in range(900):
        for uid, worker in made.workers.items():
            if uid not in unhealthy:
                worker.broken = True
                unhealthy.add(uid)
        said += notices(made, 1)
    assert len(made.evicted) == 1
    assert [reason for reason, _ in said] == ["HealingTriggered", "HealingGaveUp"]
    assert "on every node" in said[1][1]
    assert state(made) is State.GAVE_UP
    made.break_one("web", broken=False)
    made.run(900)
    assert len(made.evicted) == 1  # a restart does not help the others


def test_of_siblings_unhealthy_everywhere_all_are_restarted_when_one_restart_helps() -> None:
    made = world(wanted=3)
    for worker in made.workers.values():
        worker.broken = True
    made.run(600)
    assert len(made.evicted) == 3
    assert state(made) is State.HEALTHY


# -- leaders ---------------------------------------------------------------------------------


def test_a_new_leader_continues_with_the_restart_under_way_and_the_budget() -> None:
    made = world(wanted=4, spec={"restart": {"maxPerHour": 2}})
    made.fate = lambda _: "died"
    made.break_one("web", index=0)
    made.break_one("web", index=1)
    made.break_one("web", index=2)
    while not made.evicted:
        made.tick()
    made.fate = lambda _: ""
    made.new_leader()
    made.run(20)
    assert len(made.evicted) == 1  # the first is still on its way
    made.run(600)
    assert len(made.evicted) == 2
    assert state(made) is State.GAVE_UP


def test_what_is_remembered_is_bounded() -> None:
    made = world(wanted=2, spec={"restart": {"maxPerHour": 60, "maxBackoff": "5s"}}, grace=1.0)
    _always_broken(made, 2 * HOUR)
    status = made.documents[KEY]["status"]
    [record] = status["owners"]
    assert 10 < len(record["restarts"]) <= 60
    made.wanted["web"] = 0
    made.run(HOUR + 120, step=10)
    assert made.documents[KEY]["status"]["owners"] == []


# -- properties ------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 400)),
        st.tuples(st.just("break"), st.integers(0, 7)),
        st.tuples(st.just("mend"), st.integers(0, 7)),
        st.tuples(st.just("hang"), st.integers(0, 7)),
        st.tuples(st.just("scale"), st.integers(0, 6)),
        st.tuples(st.just("leader"), st.just(0)),
        st.tuples(st.just("fate"), st.integers(0, 2)),
        st.tuples(st.just("budget"), st.integers(0, 4)),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, per_hour=st.integers(1, 6), seed=st.integers(0, 99))
def test_never_two_at_once_never_over_budget_never_below_what_a_budget_allows(
    steps: list[tuple[str, int]], per_hour: int, seed: int
) -> None:
    made = World(
        {
            KEY: policy_json(
                "web",
                unhealthyWhen={"notReadyFor": "5s", "noProgressFor": "20s"},
                progress={"port": 8080},
                failureThreshold=1,
                restart={"maxPerHour": per_hour, "maxBackoff": "5s"},
            )
        },
        {"web": 4},
        min_available=1,
        seed=seed,
    )
    made.run(30)
    for what, number in steps:
        if what == "wait":
            _watched_run(made, number, per_hour)
        elif what in ("break", "mend"):
            made.break_one("web", what == "break", number)
        elif what == "hang" and made.workers:
            worker = sorted(made.workers.items())[number % len(made.workers)][1]
            worker.work, worker.last_progress = (made.now, 1e12), made.now
        elif what == "scale":
            made.wanted["web"] = number
        elif what == "leader":
            made.new_leader()
        elif what == "fate":
            fates = ("", "refused", "died")
            made.fate = partial(_fate, fates[number])
        elif what == "budget":
            made.min_available = number
        _watched_run(made, 3, per_hour)


def _fate(fate: str, _: RestartAction) -> str:
    return fate


def _watched_run(made: World, seconds: int, per_hour: int) -> None:
    for _ in range(seconds):
        ours = {uid for _, _, uid in made.evicted}
        going = [uid for uid in made.pods if uid in ours]
        before = len(made.evicted)
        made.tick()
        fresh = made.evicted[before:]
        assert len(fresh) <= 1
        if fresh:
            # Whoever we sent away before is gone, and only then the next one goes.
            assert [uid for uid in going if uid in made.pods] == []
            assert all(left >= wanted for left, wanted in made.left)
        moments = [moment for moment, *_ in made.evicted if moment > made.now - HOUR]
        assert len(moments) <= per_hour
        if fresh and made.fate(made.restarts[-1]) == "died":
            made.new_leader()


# -- an hour of healthy load -----------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_hour_of_healthy_load_restarts_nothing(seed: int) -> None:
    """Changing speed, idle times, scale-ups and scale-downs to zero, slow starts, a new leader."""
    made = World(
        {
            KEY: policy_json(
                "web",
                unhealthyWhen={
                    "noProgressFor": "60s",
                    "notReadyFor": "30s",
                    "waitingReasons": ["CrashLoopBackOff"],
                },
                progress={"port": 8080},
                healthThreshold="100%",
                failureThreshold=1,
            )
        },
        {"web": 3},
        start=45.0,
        seed=seed,
    )
    done = 0
    slowest = 1.0
    for second in range(3600):
        if second % 120 == 0:
            made.wanted["web"] = made.random.choice([0, 1, 2, 5, 8, 12])
            slowest = made.random.choice([0.5, 5.0, 30.0, 55.0])
        if second % 900 == 899:
            made.new_leader()
        for pod in list(made.pods.values()):
            done += _work(made, made.workers[pod.uid], pod.ready, slowest)
        made.tick()
    assert done > 300
    assert made.restarts == []
    assert state(made) in (State.HEALTHY, State.DEGRADED, State.IDLE)


def _work(made: World, worker: Worker, ready: bool, slowest: float) -> int:
    """Finish what is due, take the next message, or stay idle for a while."""
    finished = worker.work is not None and made.now >= worker.work[1]
    if finished:
        worker.work, worker.last_progress = None, made.now
    if worker.work is None and ready and made.random.random() < 0.3:
        worker.work = (made.now, made.now + made.random.uniform(0.1, slowest))
    return int(finished)


def test_a_crashing_pod_is_restarted_by_its_waiting_reason() -> None:
    made = world(spec={"unhealthyWhen": {"waitingReasons": ["CrashLoopBackOff"]}})
    pod = made.of("web")[0]
    made.workers[pod.uid].broken = True
    made.run(2)
    crashing = Container("main", waiting="CrashLoopBackOff", exit_code=1)
    made.change(replace(made.pods[pod.uid], containers=(crashing,)))
    made.run(40)
    assert [(order.pod.uid, order.cause) for order in made.restarts] == [(pod.uid, Cause.WAITING)]
    assert made.now > NOW
