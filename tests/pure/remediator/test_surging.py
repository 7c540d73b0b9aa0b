"""When a drain has the Deployment of a pod read, and what is left to its rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes.client import Configuration

from selfheal_remediator.config import ApiBudget, Config, Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.pod_surge import LATER_AGAIN, LEFT_FOR, WAIT_AGAIN
from selfheal_remediator.drain.running import Callbacks, Instructions, RunningDrain
from selfheal_remediator.drain.surge import MAY_OPEN, Decision, Surge, cordon_mark
from selfheal_remediator.drain.surge_errand import Errand, carry_out, deployment_of
from selfheal_remediator.drain.surge_requests import SurgeRequests
from selfheal_remediator.drain.surging import AT_ONCE, PATIENCE, take_due
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.budgets import Budget, budget_from_json
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.events import ObjectEvent
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.threads.pool import Workers
from tests.pure.remediator.builders import NOW, OWNER, pod
from tests.pure.remediator.deployments import deployment, replica_set
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, node
from tests.pure.remediator.running import pod as running_pod

Json = dict[str, Any]


def budget(allowed: int = 0, expected: int = 1, **spec: Any) -> Budget:
    """Of the pods `app: web`; needs one."""
    counts = {"disruptionsAllowed": allowed, "expectedPods": expected}
    return budget_from_json(
        {
            "metadata": {"namespace": "default", "name": "web", "uid": "b", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
            "status": {"desiredHealthy": 1, "observedGeneration": 1, **counts},
        }
    )


def refused(*pods: Pod, outcome: Outcome = Outcome.BUDGET, **of_budget: int) -> NodeDrain:
    """A drain whose pods a budget refused just now."""
    made = NodeDrain("n", "uid-n", NOW, NOW + 600, Surroundings(Drain()), synced=True)
    for item in pods:
        made.pod_changed(None, item)
    made.begin_wave(0)
    made.step(NOW)
    for item in pods:
        made.answered(item.uid, EvictionResult(outcome, "no"), NOW)
    made.budget_changed(budget(**of_budget), NOW)
    return made


def due(made: NodeDrain, now: float) -> list[str]:
    """The pods whose Deployments are read now."""
    return [one.name for one in take_due(made.evictions.values(), made.budgets, now)[0]]


def answer(made: NodeDrain, item: Pod, surge: Surge, now: float) -> None:
    made.evictions[item.uid].surge.answered(Decision(surge, "why", "default/web"), now)


def test_a_pod_that_its_budget_never_lets_go_is_asked_about_at_once_and_once() -> None:
    made = refused(pod("a"))
    assert due(made, NOW) == ["a"]
    assert due(made, NOW + 1000) == []  # its answer is awaited


@pytest.mark.parametrize("outcome", [one for one in Outcome if not one.over])
def test_only_a_budgets_refusal_is_a_reason(outcome: Outcome) -> None:
    made = refused(pod("a"), outcome=outcome)
    assert bool(due(made, NOW)) is (outcome is Outcome.BUDGET)


@pytest.mark.parametrize(
    ("api", "kind"),
    [
        ("apps/v1", "StatefulSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
        ("apps.kruise.io/v1alpha1", "CloneSet"),
        ("example.com/v1", "ReplicaSet"),
    ],
)
def test_other_controllers_pods_are_none_of_it(api: str, kind: str) -> None:
    assert due(refused(pod("a", owner_api=api, owner_kind=kind)), NOW + PATIENCE) == []


def test_a_budget_that_may_open_has_some_time_to() -> None:
    made = refused(pod("a"), expected=2)
    assert due(made, NOW + PATIENCE - 1) == []
    assert take_due(made.evictions.values(), made.budgets, NOW)[1] == NOW + PATIENCE
    assert due(made, NOW + PATIENCE) == ["a"]


def test_so_many_are_rolled_out_at_a_time() -> None:
    pods = [pod(f"p{number}") for number in range(AT_ONCE + 2)]
    made = refused(*pods)
    assert len(due(made, NOW)) == AT_ONCE
    for item in pods[:AT_ONCE]:
        answer(made, item, Surge.ROLLING, NOW)
    assert due(made, NOW) == []
    made.pod_changed(pods[0], None)
    assert due(made, NOW) == [pods[AT_ONCE].name]


@pytest.mark.parametrize(
    ("surge", "first", "longest"), [(Surge.WAIT, *WAIT_AGAIN), (Surge.REFUSED, *LATER_AGAIN)]
)
def test_what_does_not_change_is_read_ever_more_rarely(
    surge: Surge, first: float, longest: float
) -> None:
    item = pod("a")
    made, now, waits = refused(item), NOW, []
    for _ in range(8):
        assert due(made, now) == ["a"]
        answer(made, item, surge, now)
        later = take_due(made.evictions.values(), made.budgets, now)[1]
        assert later is not None
        waits.append(later - now)
        now = later
    assert waits[:2] == [first, 2 * first]
    assert waits[-1] == longest


def test_a_pod_that_a_rollout_replaces_is_not_evicted_and_not_stuck() -> None:
    item = pod("a")
    made = refused(item)
    due(made, NOW)
    answer(made, item, Surge.ROLLING, NOW)
    made.budget_changed(budget(allowed=1, expected=2), NOW + 1)  # the new pod is ready
    assert made.step(NOW + 1).evict == ()
    assert not made.evictions[item.uid].stuck(NOW + 1)
    assert due(made, NOW + 10) == ["a"]
    # Nobody can read how far the rollout is: the budget lets the pod go.
    made.evictions[item.uid].surge.failed(NOW + 10)
    assert made.step(NOW + LEFT_FOR).evict == (item,)


def test_past_the_deadline_a_rollout_keeps_no_pod_from_its_deletion() -> None:
    item = pod("a")
    made = refused(item)
    late = made.deadline + 1
    due(made, late)
    answer(made, item, Surge.ROLLING, late)
    assert made.step(late, on_deadline="delete").delete == (item,)


# -- the errand ---------------------------------------------------------------------------------

APPS = "/apis/apps/v1/namespaces/default"
SET, WEB = f"{APPS}/replicasets/rs", f"{APPS}/deployments/web"
NODE_UID = f"uid-{NODES}/n"
POD = "/api/v1/namespaces/default/pods/a"


def there(where: str, **meta: Any) -> Json:
    """The pod `a` as the API server has it."""
    raw = running_pod("a", where)
    raw["metadata"] |= {"namespace": "default", "uid": pod("a").uid, **meta}
    raw["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return raw


@pytest.fixture
def server() -> Iterator[FakeApi]:
    """A draining node, and the Deployment of its pod."""
    made = FakeApi(lambda verb, path: "")
    raw = node("n", "True", unschedulable=True)
    state = State(Phase.DRAINING, OWNER, "Fault", "True", since=int(NOW))
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    made.put(f"{NODES}/n", raw)
    made.put(SET, replica_set())
    made.put(WEB, deployment())
    made.put(POD, there("n"))
    yield made
    made.close()


def api(server: FakeApi) -> KubernetesApi:
    access = Configuration()
    access.host = server.url
    return KubernetesApi(access, "d", ApiBudget())


def errand(may_go: Any = lambda: True, *, by: Budget | None = None) -> Errand:
    mark = cordon_mark(NODE_UID, int(NOW))
    return Errand(pod("a"), (by or budget(),), "", "n", NODE_UID, mark, may_go)


def test_it_reads_decides_and_writes_once(server: FakeApi) -> None:
    result = carry_out(api(server), errand(), NOW)
    assert result.done
    assert result.decision is not None
    assert result.decision.surge is Surge.START
    assert not carry_out(api(server), errand(), NOW).done
    assert [path for _, path, _ in server.did] == [WEB]


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        (SET, None),
        (SET, replica_set(uid="another")),
        (SET, replica_set(ownerReferences=[])),
        (
            SET,
            replica_set(
                ownerReferences=[
                    {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web"}
                    | {"uid": "web-uid", "controller": True}
                ]
            ),
        ),
        (WEB, None),
        (WEB, deployment(meta={"uid": "another"})),
    ],
)
def test_a_pod_may_be_of_no_deployment(server: FakeApi, path: str, raw: Json | None) -> None:
    server.put(path, raw)
    assert deployment_of(api(server), pod("a")) is None
    assert not carry_out(api(server), errand(), NOW).done
    assert server.did == []


def leftover(server: FakeApi, phase: str) -> None:
    """Another pod of the budget."""
    raw = there("n", uid="left", name="left", labels={"app": "web"})
    raw["status"] = {"phase": phase}
    server.put(f"{POD.rpartition('/')[0]}/left", raw)


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_finished_is_no_reason_to_wait(server: FakeApi, phase: str) -> None:
    """A number as minAvailable: the API server counts each pod that there is."""
    leftover(server, phase)
    assert carry_out(api(server), errand(by=budget(expected=2, minAvailable=1)), NOW).done


@pytest.mark.parametrize("phase", ["Running", "Pending", "Unknown"])
def test_a_pod_that_may_be_ready_yet_is_waited_for(server: FakeApi, phase: str) -> None:
    leftover(server, phase)
    result = carry_out(api(server), errand(by=budget(expected=2, minAvailable=1)), NOW)
    assert result.decision is not None
    assert (result.decision.surge, result.decision.why) == (Surge.WAIT, MAY_OPEN)
    assert server.did == []


@pytest.mark.parametrize("spec", [{"minAvailable": "50%"}, {"maxUnavailable": 1}])
def test_what_counts_replicas_counts_no_finished_pods(server: FakeApi, spec: Json) -> None:
    """Two are wanted: the other one may come."""
    leftover(server, "Failed")
    assert not carry_out(api(server), errand(by=budget(expected=2, **spec)), NOW).done
    assert server.did == []


@pytest.mark.parametrize("after", [0, 1])
def test_a_drain_that_ended_meanwhile_begins_nothing(server: FakeApi, after: int) -> None:
    answers = [True] * after + [False] * 9
    result = carry_out(api(server), errand(lambda: answers.pop(0)), NOW)
    assert (result.decision, result.done) == (None, False)
    assert server.did == []


class Later(Workers):
    """Keeps what is handed to it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None], *_: object) -> None:
        self.jobs.append(job)


WANTED = Config.model_validate({"drain": {"surge": True}})


def requests(
    server: FakeApi,
    later: Later,
    instructions: Instructions | None = None,
    events: list[ObjectEvent] | None = None,
) -> SurgeRequests:
    """What hands out surges. events: about Deployments."""
    seen = [] if events is None else events
    nothing = Callbacks(done=lambda _: None, no_room=lambda *_: None, nodes=list,
                        say=lambda *_: None, evicted=lambda _: None, not_ours=lambda _: None,
                        returned=lambda _: None, of_object=seen.append)  # fmt: skip
    use = instructions or Instructions(WANTED)
    return SurgeRequests(api(server), use, later, lambda job: job(), nothing, lambda: NOW)


def draining(made: NodeDrain) -> RunningDrain:
    """The drain under way on the server's node."""
    made.node, made.uid = "n", NODE_UID
    return RunningDrain(made, mark=cordon_mark(NODE_UID, int(NOW)))


@pytest.mark.parametrize(
    ("settings", "begun"),
    [
        ({"drain": {"surge": True}}, True),
        ({}, False),
        ({"drain": {"surge": True}, "mode": "dryRun"}, False),
    ],
)
def test_what_waits_for_its_turn_goes_by_the_configuration_of_then(
    server: FakeApi, settings: Json, begun: bool
) -> None:
    """It may wait behind evictions that hang."""
    instructions, later = Instructions(WANTED), Later()
    requests(server, later, instructions).send(draining(refused(pod("a"))), pod("a"))
    instructions.config = Config.model_validate(settings)
    [job] = later.jobs
    job()
    assert bool(server.did) is begun


def test_what_somebody_put_back_as_it_was_is_not_rolled_out_again(server: FakeApi) -> None:
    """Who replaces whole objects removes what was written down, too."""
    found, item, later = refused(pod("a")), pod("a"), Later()
    surges, run = requests(server, later), draining(found)

    def surge() -> None:
        surges.send(run, item)
        later.jobs.pop()()

    surge()
    assert len(server.did) == 1
    server.put(WEB, deployment())
    surge()
    assert len(server.did) == 1
    assert found.evictions[item.uid].surge.decision.text == (
        "no surge of Deployment default/web: somebody has undone its rollout for this cordon"
    )


def test_a_rollout_whose_answer_was_lost_is_reported_once(server: FakeApi) -> None:
    """By whoever finds it."""
    found, later, events = refused(pod("a")), Later(), list[ObjectEvent]()
    surges, run = requests(server, later, events=events), draining(found)
    server.disturb = lambda verb, _: "lost" if verb == "PATCH" else ""
    for _ in range(3):
        surges.send(run, pod("a"))
        later.jobs.pop()()
        raw = server.get(WEB)
        raw["metadata"]["generation"] = 4  # its controller has not observed it
        server.put(WEB, raw)
    assert len(server.did) == 1
    assert [event.reason for event in events] == ["SurgeStarted"]


@pytest.mark.parametrize("spec", [{}, {"unschedulable": False}])
def test_a_node_that_is_not_ours_any_more_begins_nothing(server: FakeApi, spec: Json) -> None:
    server.put(f"{NODES}/n", node("n", "True", **spec))
    assert not carry_out(api(server), errand(), NOW).done
    assert server.did == []


def test_a_deployment_that_changed_after_the_read_is_decided_about_again(server: FakeApi) -> None:
    def somebody(verb: str, path: str) -> str:
        if verb == "PATCH":
            server.put(WEB, deployment(replicas=3))
        return ""

    server.disturb = somebody
    result = carry_out(api(server), errand(), NOW)
    assert (result.decision, result.done) == (None, False)
    assert server.get(WEB)["spec"]["replicas"] == 3
    assert server.did == []


@pytest.mark.parametrize(
    "raw",
    [None, there("n", uid="another"), there("n", deletionTimestamp="2026-01-31T12:00:00Z")],
)
def test_a_pod_that_left_meanwhile_is_not_rolled_out(server: FakeApi, raw: Json | None) -> None:
    """The drain's watch may lag, and a request may wait behind evictions that hang."""
    server.put(POD, raw)
    result = carry_out(api(server), errand(), NOW)
    assert (result.decision, result.done) == (None, False)
    assert server.did == []


@pytest.mark.parametrize("status", ["400", "403", "422"])
def test_what_the_server_refuses_is_shown_and_tried_ever_more_rarely(
    server: FakeApi, status: str
) -> None:
    """A webhook or a ValidatingAdmissionPolicy (422 by default), or a quota of annotations."""
    server.disturb = lambda verb, _: status if verb == "PATCH" else ""
    result = carry_out(api(server), errand(), NOW)
    assert not result.done
    assert result.decision is not None
    assert result.decision.surge is Surge.REFUSED
    assert result.decision.text == (
        f"no surge of Deployment default/web: the API server refuses it ({status}: trouble)"
    )
    assert server.did == []


@pytest.mark.parametrize("path", [SET, WEB, f"{NODES}/n", f"{POD.rpartition('/')[0]}"])
def test_what_cannot_be_read_begins_nothing(server: FakeApi, path: str) -> None:
    server.disturb = lambda _, asked: "403" if asked == path else ""
    with pytest.raises(ApiFailure):
        carry_out(api(server), errand(), NOW)
    assert server.did == []


@pytest.mark.parametrize(("trouble", "made"), [("refused", 0), ("500", 0), ("lost", 1)])
def test_a_request_without_an_answer_is_not_repeated_blindly(
    server: FakeApi, trouble: str, made: int
) -> None:
    server.disturb = lambda verb, _: trouble if verb == "PATCH" else ""
    with pytest.raises(ApiFailure):
        carry_out(api(server), errand(), NOW)
    assert len(server.did) == made
    server.disturb = lambda verb, path: ""
    assert carry_out(api(server), errand(), NOW).done is not bool(made)
    assert len(server.did) == 1
