"""All pods of an owner unhealthy at once: one restart tells whether the others are worth one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from selfheal_remediator.healing.canary import Canary, Outcome
from selfheal_remediator.healing.plan import Notice, Owner
from selfheal_remediator.healing.pod_health import Container, WatchedPod
from selfheal_remediator.healing.policy import Record, State, kept, policy_from_json
from selfheal_remediator.healing.policy_metrics import policy_values
from selfheal_remediator.kube.informer import Change
from tests.pure.remediator.healing_world import NODES, NOW, World, around, policy_json

KEY = "ns/web"
HUNG = {"unhealthyWhen": {"noProgressFor": "60s"}, "progress": {"port": 8080}}
UNREADY = {"unhealthyWhen": {"notReadyFor": "30s"}}
KINDS = {
    "Deployment": Owner("o", "Deployment", "web", "apps/v1", 3, template="1"),
    "StatefulSet": Owner("o", "StatefulSet", "web", "apps/v1", 3, template="a", renews="a"),
    "DaemonSet": Owner("o", "DaemonSet", "web", "apps/v1", 3, template="1"),
    "ReplicaSet": Owner("o", "ReplicaSet", "web", "apps/v1", 3),
    "a custom kind": Owner("o", "CloneSet", "web", "apps.kruise.io/v1alpha1", None),
}


class Story:
    """Three pods of one owner, one on each node. `cure`: whether fresh pods are healthy."""

    def __init__(self, spec: dict[str, Any] | None = None, kind: str = "Deployment") -> None:
        self.cure = True
        self.hung = spec is HUNG
        self.said: list[Notice] = []
        self.made = World({KEY: policy_json("web", **(spec or UNREADY))}, {"web": 3})
        owner = KINDS[kind]
        self.own(lambda name: owner)
        self.made.run(60)
        self.unhealthy: set[str] = set()

    def own(self, owner: Callable[[str], Owner]) -> None:
        self.made.owner = owner  # type: ignore[method-assign]
        if "rs-web" in self.made.healing.owners:
            self.made.healing.owner_known("rs-web", owner("web"))

    def sicken(self, *uids: str) -> None:
        """The pods (all of them, by default) break, or hang."""
        for uid in uids or tuple(self.made.pods):
            worker = self.made.workers[uid]
            if self.hung:
                worker.work, worker.last_progress = (self.made.now, 1e12), self.made.now
            else:
                worker.broken = True
            self.unhealthy.add(uid)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            for uid, pod in list(self.made.pods.items()):
                settled = pod.ready or not self.hung
                if not self.cure and uid not in self.unhealthy and settled:
                    self.sicken(uid)
            self.said += self.made.tick().notices

    @property
    def evicted(self) -> int:
        return len(self.made.evicted)

    @property
    def canary(self) -> Canary | None:
        record = self.made.healing.policy_states[KEY].records.get("o")
        return record.canary if record is not None else None

    @property
    def state(self) -> State:
        status = self.made.healing.policy_states[KEY].status
        assert status is not None
        return status.state

    def reasons(self) -> list[str]:
        return [notice.reason for notice in self.said]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [UNREADY, HUNG], ids=["not ready", "hung"])
def test_one_restart_that_helps_is_followed_by_the_others(kind: str, spec: dict[str, Any]) -> None:
    story = Story(spec, kind)
    story.sicken()
    while not story.evicted:
        story.run(1)
    first = story.made.now
    while story.evicted < 2:
        story.run(1)
        assert story.made.now < first + 400
    # The first was replaced, and its replacement was healthy while the cause lasts.
    trial = 60 if spec is HUNG else 30
    assert story.made.now - first >= story.made.start + trial
    assert "stays healthy" in " ".join(notice.message for notice in story.said)
    story.run(600)
    assert story.evicted == 3
    assert story.state is State.HEALTHY
    story.run(300)
    assert story.canary is None  # ten minutes of health: the next one is another matter


@pytest.mark.parametrize("cure", [True, False])
def test_a_replacement_made_in_the_same_second_as_another_pod_is_recognized(
    monkeypatch: pytest.MonkeyPatch, cure: bool
) -> None:
    """The API server's times of creation are whole seconds: here all are the same."""
    change = World._change

    def made_at_once(made: World, pod: WatchedPod) -> None:
        change(made, replace(pod, created=NOW))

    monkeypatch.setattr(World, "_change", made_at_once)
    story = Story()
    story.cure = cure
    story.sicken()
    while not story.evicted:
        story.run(1)
    story.run(400)
    canary = story.canary
    assert canary is not None
    assert (story.evicted > 1) is cure
    assert canary.outcome is (Outcome.PASSED if cure else Outcome.FAILED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [UNREADY, HUNG], ids=["not ready", "hung"])
def test_one_restart_that_does_not_help_is_the_only_one(kind: str, spec: dict[str, Any]) -> None:
    story = Story(spec, kind)
    story.cure = False
    story.sicken()
    story.run(7200)
    assert story.evicted == 1
    assert story.state is State.GAVE_UP
    assert story.reasons().count("HealingGaveUp") == 1
    [said] = [notice.message for notice in story.said if notice.reason == "HealingGaveUp"]
    assert "on every node" in said
    assert "did not help" in said
    canary = story.canary
    assert canary is not None
    assert canary.outcome is Outcome.FAILED
    status = story.made.healing.policy_states[KEY].status
    assert status is not None
    [gave_up] = [item for item in status.conditions if item.type == "GaveUp"]
    assert (gave_up.holds, gave_up.reason) == (True, "Siblings")
    values = policy_values(story.made.healing.policy_states.values())
    assert values.states == {(KEY, "GaveUp"): 1}


@pytest.mark.parametrize("moment", [0, 10, 40, 70, 120, 500])
@pytest.mark.parametrize("cure", [True, False])
def test_a_takeover_at_any_moment_makes_no_second_canary(moment: int, cure: bool) -> None:
    story = Story()
    story.cure = cure
    story.sicken()
    while not story.evicted:
        story.run(1)
    story.run(moment)
    before = story.evicted
    assert before == 1 or (cure and moment >= 40)
    story.made.new_leader()
    if not cure:
        story.run(3600)
        assert story.evicted == 1
        assert story.state is State.GAVE_UP
        return
    story.run(20)
    assert story.evicted == before
    story.run(900)
    assert story.evicted == 3
    assert story.state is State.HEALTHY


def test_leaders_that_change_all_the_time_make_no_second_canary() -> None:
    story = Story()
    story.cure = False
    story.sicken()
    for _ in range(100):
        story.run(31)
        story.made.new_leader()
    assert story.evicted == 1


def test_a_leader_that_died_before_it_evicted_leaves_the_canary_to_the_next() -> None:
    story = Story()
    story.sicken()
    evict = story.made._carry_out
    lost = story.made.documents

    def only_written(order: Any) -> None:
        lost[KEY]["status"] = order.status.to_json()

    story.made._carry_out = only_written  # type: ignore[method-assign]
    while lost[KEY]["status"].get("restarts", 0) == 0:
        story.run(1)
    story.made._carry_out = evict  # type: ignore[method-assign]
    story.made.new_leader()
    story.run(1500)
    assert story.evicted == 3
    assert story.state is State.HEALTHY


#: Where a leader dies: before it writes the restart down, before the eviction, after it.
DEATHS = ("before", "written", "evicted")


@pytest.mark.parametrize("cure", [True, False])
@pytest.mark.parametrize("spec", [UNREADY, HUNG], ids=["not ready", "hung"])
@pytest.mark.parametrize("deaths", list(product(DEATHS, repeat=2)), ids="-".join)
def test_leaders_that_die_between_any_two_calls_make_one_canary(
    deaths: tuple[str, ...], spec: dict[str, Any], cure: bool
) -> None:
    story = Story(spec)
    story.cure = cure
    story.sicken()
    made, left = story.made, list(deaths)
    evict = made._carry_out

    def dies(order: Any) -> None:
        death = left.pop(0) if left else ""
        if death in ("written", "evicted"):
            made._write(order.policy, order.status.to_json())
        if death == "evicted":
            made.fate = lambda _: "died"
        if death in ("", "evicted"):
            evict(order)
            made.fate = lambda _: ""
        if death:
            made.new_leader()

    made._carry_out = dies  # type: ignore[method-assign]
    while not made.evicted:
        story.run(1)
        assert made.now < NOW + 900
    trial = made.start + (60 if spec is HUNG else 30)
    story.run(trial - 5)
    assert story.evicted == 1
    story.run(1200)
    if cure:
        assert story.evicted == 3
        assert story.state is State.HEALTHY
    else:
        assert story.evicted == 1
        assert story.state is State.GAVE_UP


def test_a_canary_that_was_never_evicted_and_recovers_is_none() -> None:
    story = Story()
    story.sicken()

    def only_written(order: Any) -> None:
        story.made._write(order.policy, order.status.to_json())

    evict, story.made._carry_out = story.made._carry_out, only_written  # type: ignore[method-assign]
    while story.canary is None:
        story.run(1)
    first = story.canary.pod
    story.made._carry_out = evict  # type: ignore[method-assign]
    story.made.new_leader()
    story.made.workers[first].broken = False
    story.run(300)
    assert story.evicted >= 1  # the others are worth a restart of their own
    assert first in story.made.pods


@pytest.mark.parametrize("cure", [True, False])
@pytest.mark.parametrize("which", ["an unhealthy one", "the replacement", "the canary itself"])
def test_a_pod_that_somebody_deletes_in_the_middle(which: str, cure: bool) -> None:
    story = Story()
    story.cure = cure
    story.sicken()
    if which == "the canary itself":
        story.run(20)
        story.made._gone(min(story.made.of("web"), key=lambda pod: pod.name))
        story.run(5)
    while not story.evicted:
        story.run(1)
    story.run(20)
    assert story.evicted == 1
    if which == "the replacement":
        story.made._gone(max(story.made.of("web"), key=lambda pod: pod.created))
    elif which == "an unhealthy one":
        story.made._gone(min(story.made.of("web"), key=lambda pod: pod.created))
    story.run(1800)
    if not cure:
        assert story.evicted == 1
        assert story.state is State.GAVE_UP
    else:
        assert story.evicted <= 3
        assert story.state is State.HEALTHY


@pytest.mark.parametrize("cure", [True, False])
@pytest.mark.parametrize("what", ["paused", "stopped"])
def test_a_pause_in_the_middle_keeps_what_the_canary_showed(what: str, cure: bool) -> None:
    story = Story()
    story.cure = cure
    story.sicken()
    while not story.evicted:
        story.run(1)
    policy_state = story.made.healing.policy_states[KEY]
    if what == "paused":
        policy_state.policy = replace(policy_state.policy, paused=True)
    else:
        story.made.around = around(stopped="paused: by a human")
    story.run(400)
    assert story.evicted == 1
    policy_state.policy = replace(policy_state.policy, paused=False)
    story.made.around = around()
    story.run(900)
    assert story.evicted == (3 if cure else 1)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
@pytest.mark.parametrize("decided", [False, True])
def test_a_new_revision_voids_the_canary(kind: str, decided: bool) -> None:
    story = Story(kind=kind)
    story.cure = False
    story.sicken()
    while not story.evicted:
        story.run(1)
    story.run(600 if decided else 20)
    assert story.evicted == 1
    assert story.canary is not None
    assert story.canary.under_way is not decided
    story.own(lambda name: replace(KINDS[kind], template="next"))
    story.run(300)
    assert story.evicted == 2  # a new canary, of the new revision
    assert story.canary is not None
    story.run(1200)
    assert story.evicted == 2


def test_pods_of_another_revision_void_the_canary_of_an_unknown_kind() -> None:
    story = Story(kind="a custom kind")
    story.cure = False

    def revised(revision: str) -> None:
        for pod in story.made.of("web"):
            story.made._change(replace(pod, revision=revision))

    revised("a")
    story.sicken()
    for _ in range(600):
        story.run(1)
        revised("a")
    assert story.evicted == 1
    assert story.canary is not None
    for _ in range(300):
        story.run(1)
        revised("b")
    assert story.evicted == 2


def test_a_changed_policy_is_a_new_chance() -> None:
    story = Story()
    story.cure = False
    story.sicken()
    story.run(900)
    assert story.evicted == 1
    document = story.made.documents[KEY]
    document["metadata"]["generation"] = 2
    story.made.healing.adopt(policy_from_json(document), story.made.now)
    story.run(900)
    assert story.evicted == 2
    assert story.state is State.GAVE_UP


def test_another_cause_has_no_canary_of_its_own() -> None:
    spec = {"unhealthyWhen": {"notReadyFor": "30s", "waitingReasons": ["CrashLoopBackOff"]}}
    story = Story(spec)
    story.cure = False
    story.sicken()
    story.run(900)
    assert story.evicted == 1

    def all_wait(reason: str) -> None:
        for pod in story.made.of("web"):
            item = replace(pod.containers[0], waiting=reason, running_since=None)
            story.made._change(replace(pod, containers=(item,)))

    for _ in range(900):
        all_wait("CrashLoopBackOff")
        story.run(1)
    assert story.evicted == 1
    for turn in range(3600):  # as pods that crash do: they wait, and run a little while
        for pod in story.made.of("web"):
            waits = turn % 120 < 80
            item = Container(
                "main",
                waiting="CrashLoopBackOff" if waits else "",
                running_since=None if waits else story.made.now - turn % 120,
            )
            story.made._change(replace(pod, containers=(item,)))
        story.run(1)
    assert story.evicted == 1


def test_a_replacement_that_is_neither_healthy_nor_unhealthy_is_not_waited_for_for_ever() -> None:
    story = Story()
    story.sicken()
    while not story.evicted:
        story.run(1)
    for _ in range(2000):
        story.run(1)
        for pod in story.made.of("web"):
            if pod.uid not in story.unhealthy:
                killed = Container("main", exit_code=137, exit_reason="OOMKilled")
                story.made.workers[pod.uid].broken = True
                story.made._change(replace(pod, ready=False, containers=(killed,)))
    assert story.evicted == 1
    assert story.state is State.GAVE_UP


def test_a_replacement_that_loads_a_model_is_waited_for() -> None:
    story = Story()
    story.made.start = 1500.0  # its startup probe allows three times as much
    story.sicken()
    story.run(1400)
    assert story.evicted == 1
    assert story.state is not State.GAVE_UP
    story.run(6000)
    assert story.evicted == 3
    assert story.state is State.HEALTHY


def test_after_a_failed_canary_ten_minutes_of_health_make_an_end_of_it() -> None:
    story = Story()
    story.cure = False
    story.sicken()
    story.run(900)
    assert (story.evicted, story.state) == (1, State.GAVE_UP)
    story.cure = True
    for worker in list(story.made.workers.values())[1:]:
        worker.broken = False
    story.run(900)
    assert (story.evicted, story.state) == (1, State.GAVE_UP)
    next(iter(story.made.workers.values())).broken = False
    story.run(590)
    assert story.canary is not None
    story.run(60)
    assert story.canary is None
    story.made.break_one("web")
    story.run(100)
    assert story.evicted == 2
    assert story.state is State.HEALTHY


@pytest.mark.parametrize("apart", [1, 5, 15, 29, 45, 70])
def test_pods_that_hang_one_after_the_other_are_no_way_around_it(apart: int) -> None:
    """The first was restarted before the others were certain: it is the canary."""
    story = Story(HUNG)
    begun, first = story.made.now, list(story.made.pods)
    for _ in range(3600):
        for place, uid in enumerate(first):
            if uid not in story.unhealthy and story.made.now >= begun + place * apart:
                story.sicken(uid)
        for uid, pod in story.made.pods.items():
            if uid not in first and uid not in story.unhealthy and pod.ready:
                story.sicken(uid)
        story.run(1)
    assert story.evicted <= (1 if apart <= 45 else 2)
    assert story.state is State.GAVE_UP


@pytest.mark.parametrize("leaders", [0, 37])
@pytest.mark.parametrize("apart", [1, 5, 15, 29, 45, 70])
def test_pods_that_hang_one_after_the_other_wait_for_the_first(apart: int, leaders: int) -> None:
    story = Story(HUNG)
    begun, first = story.made.now, list(story.made.pods)
    turn = 0
    while story.evicted < 3:
        turn += 1
        assert turn < 1800
        for place, uid in enumerate(first):
            hangs = story.made.now >= begun + place * apart
            if hangs and uid in story.made.pods and uid not in story.unhealthy:
                story.sicken(uid)
        story.run(1)
        if leaders and turn % 200 == leaders:
            story.made.new_leader()
    moments = [moment for moment, _, _ in story.made.evicted]
    assert moments[1] - moments[0] >= story.made.start + 60  # the time that the first needs to tell
    story.run(900)
    assert story.evicted == 3
    assert story.state is State.HEALTHY


def test_a_refused_canary_is_none() -> None:
    story = Story()
    story.made.fate = lambda _: "refused"
    story.sicken()
    story.run(300)
    assert story.evicted == 0
    assert story.canary is None
    assert story.state is State.THROTTLED
    story.made.fate = lambda _: ""
    story.run(900)
    assert story.evicted == 3


def test_the_hourly_budget_holds_for_canaries() -> None:
    spec = {**UNREADY, "restart": {"maxPerHour": 1}}
    story = Story(spec)
    story.sicken()
    story.run(3000)
    assert story.evicted == 1
    assert story.state is State.GAVE_UP


@pytest.mark.parametrize("cure", [True, False])
def test_owners_whose_canaries_are_on_trial_say_nothing_about_nodes(cure: bool) -> None:
    """A fail-over hangs the workers of two owners: no node is to be blamed."""
    documents = {f"ns/{name}": policy_json(name, **HUNG) for name in ("web", "api")}
    made = World(documents, {"web": 2, "api": 2})
    made.run(60)
    for worker in made.workers.values():
        worker.work, worker.last_progress = (made.now, 1e12), made.now
    old = set(made.pods)
    for _ in range(1800):
        made.tick()
        assert made.healing.findings == {}
        if not cure:
            for uid in set(made.pods) - old:
                worker = made.workers[uid]
                worker.work = worker.work or (made.now, 1e12)
    restarted = [owner for _, owner, _ in made.evicted]
    assert sorted(restarted) == (["api", "api", "web", "web"] if cure else ["api", "web"])


def test_a_node_that_goes_bad_later_is_found_all_the_same() -> None:
    documents = {f"ns/{name}": policy_json(name) for name in ("web", "api")}
    made = World(documents, {"web": 3, "api": 3})
    made.run(60)
    for worker in made.workers.values():
        worker.broken = True
    made.run(1200)
    assert len(made.evicted) == 6
    for uid, pod in made.pods.items():
        made.workers[uid].broken = pod.node == NODES[0]
    made.run(120)
    assert set(made.healing.findings) == {NODES[0]}


@pytest.mark.parametrize("how", ["idle", "busy", "many leaders"])
@pytest.mark.parametrize("cure", [True, False])
@pytest.mark.parametrize("wanted", [2, 4])
@pytest.mark.parametrize("apart", [0, 8, 22, 40])
def test_a_sibling_that_may_just_be_hanging_too_is_no_evidence_against_a_node(
    apart: int, wanted: int, cure: bool, how: str
) -> None:
    """Two owners' pods hang node by node: never is a node to be blamed."""
    documents = {f"ns/{name}": policy_json(name, **HUNG) for name in ("web", "api")}
    made = World(documents, {"web": wanted, "api": wanted})
    made.run(60)
    begun, first, hung = made.now, dict(made.pods), set[str]()
    for turn in range(1200):
        for uid, pod in made.pods.items():
            worker = made.workers[uid]
            hangs = made.now >= begun + NODES.index(pod.node) * apart if uid in first else not cure
            if hangs and pod.ready and uid not in hung:
                hung.add(uid)
                worker.work, worker.last_progress = (made.now, 1e12), made.now
            elif how == "busy" and uid not in hung:  # a piece of work each ten seconds
                worker.last_progress = made.now // 10 * 10
                worker.work = (worker.last_progress, made.now)
        made.tick()
        assert made.healing.findings == {}
        if how == "many leaders" and turn % 83 == 0:
            made.new_leader()
    restarted = [owner for _, owner, _ in made.evicted]
    if cure:
        assert len(restarted) == 2 * wanted
    elif apart <= 8:
        assert sorted(restarted) == ["api", "web"]


@pytest.mark.parametrize("busy", [False, True])
def test_pods_of_two_owners_that_hang_on_one_node_are_evidence_against_it(busy: bool) -> None:
    documents = {f"ns/{name}": policy_json(name, **HUNG) for name in ("web", "api")}
    made = World(documents, {"web": 3, "api": 3})
    made.run(60)
    begun = made.now
    for _ in range(90):
        for uid, pod in made.pods.items():
            worker = made.workers[uid]
            if pod.node == NODES[0]:
                worker.work, worker.last_progress = (begun, 1e12), begun
            elif busy:  # each piece of work takes half a minute
                worker.last_progress = made.now // 30 * 30
                worker.work = (worker.last_progress, made.now)
        made.tick()
    assert set(made.healing.findings) == {NODES[0]}
    assert made.evicted == []


class Two(World):
    """Two policies over one owner: `also`, and the older `web`."""

    def __init__(self) -> None:
        also = policy_json("also")
        also["spec"]["selector"] = {"matchLabels": {"app": "web"}}
        also["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
        super().__init__({KEY: policy_json("web"), "ns/also": also}, {"web": 3})

    def new_leader(self) -> None:
        super().new_leader()
        for pod in self.pods.values():
            self.healing.pod_changed("ns/also", Change(pod.name, None, pod))

    def _notify(self, pod: Any, old: Any, new: Any) -> None:
        super()._notify(pod, old, new)
        self.healing.pod_changed("ns/also", Change(pod.name, old, new))


@pytest.mark.parametrize("after", [0, 5, 40, 200])
@pytest.mark.parametrize("what", ["nothing", "the older is deleted", "the older looks elsewhere"])
def test_two_policies_over_one_owner_have_one_canary(what: str, after: int) -> None:
    made = Two()
    made.run(60)
    unhealthy: set[str] = set()
    moment = float("inf")
    for _ in range(1800):
        for uid, worker in made.workers.items():
            if uid not in unhealthy:
                worker.broken = True
                unhealthy.add(uid)
        made.tick()
        if made.evicted and moment == float("inf"):
            moment = made.now + after
        if moment <= made.now < moment + 1 and what == "the older is deleted":
            made.healing.drop(KEY)
            del made.documents[KEY]
        elif moment <= made.now < moment + 1 and what == "the older looks elsewhere":
            made.healing.selector_changed(KEY, made.now)
            made.healing.pods_known(KEY)
        if moment <= made.now and what == "the older looks elsewhere":
            for uid in list(made.pods):
                made.healing.policy_states[KEY].forget(uid)
    assert len(made.evicted) == 1


def test_a_canary_that_failed_is_remembered_before_owners_that_were_only_restarted() -> None:
    failed = Record("failed", canary=Canary("pod", NOW, "not-ready", Outcome.FAILED))
    others = [Record(f"u{number}", restarts=(NOW - 60 - number,)) for number in range(60)]
    assert kept((*others, failed))[0] == failed


class Crashing(Story):
    """As a kubelet runs containers that end after so many seconds, without a readiness probe."""

    def __init__(self, spec: dict[str, Any], lives: float, kind: str = "Deployment") -> None:
        super().__init__(spec, kind)
        self.lives = lives
        self.made.start = 2.0
        #: pod -> (crashes, running since; None = waits, waits until).
        self.containers: dict[str, tuple[int, float | None, float]] = {}

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            for uid, pod in list(self.made.pods.items()):
                if not hasattr(self, "containers") or pod.deletion is not None:
                    continue
                since = max(pod.created + 2.0, self.made.now if pod.created < NOW + 60 else 0.0)
                crashes, running, until = self.containers.get(uid, (0, since, 0.0))
                if running is not None and self.made.now >= running + self.lives:
                    crashes, running = crashes + 1, None
                    until = self.made.now + (
                        min(300, 10 * 2 ** (crashes - 2)) if crashes > 1 else 0
                    )
                if running is None and self.made.now >= until:
                    running = self.made.now
                self.containers[uid] = crashes, running, until
                item = Container(
                    "main",
                    waiting="CrashLoopBackOff" if running is None else "",
                    exit_code=1 if running is None else None,
                    running_since=running,
                    restarts=max(0, crashes - (running is None)),
                    ran=self.lives if crashes else None,
                )
                self.made.workers[uid].broken = running is None
                ready = running is not None and self.made.now >= running
                self.made._change(replace(pod, ready=ready, containers=(item,)))
            self.said += self.made.tick().notices


CRASHES = {
    "waiting": {"unhealthyWhen": {"waitingReasons": ["CrashLoopBackOff"]}},
    "terminated": {"unhealthyWhen": {"terminatedNonZero": True}},
    "not ready": {"unhealthyWhen": {"notReadyFor": "1s"}},
}


#: (threshold, seconds until a container crashes, kind of the owner).
CRASHED = [
    *((threshold, lives, "Deployment") for threshold in (1, 3) for lives in (0, 45, 280)),
    *((1, 45, kind) for kind in KINDS if kind != "Deployment"),
]


@pytest.mark.parametrize(("threshold", "lives", "kind"), CRASHED)
@pytest.mark.parametrize("spec", CRASHES.values(), ids=CRASHES.keys())
def test_a_replacement_that_has_not_crashed_yet_has_proved_nothing(
    spec: dict[str, Any], threshold: int, lives: float, kind: str
) -> None:
    story = Crashing({**spec, "failureThreshold": threshold}, lives, kind)
    story.run(2400)
    assert story.evicted <= 1
    assert "stays healthy" not in " ".join(notice.message for notice in story.said)
