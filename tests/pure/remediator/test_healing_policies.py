"""Policies as values, what they remember, and what stands behind their pods."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.config import PODS_HUNG, Config, SettingsError, parse_config
from selfheal_remediator.healing.node_view import node_path, node_trouble, reported_of_nodes
from selfheal_remediator.healing.owners import owner_from, owner_of
from selfheal_remediator.healing.plan import Finding
from selfheal_remediator.healing.policy import (
    HOUR,
    MAX_OWNERS,
    Progress,
    Record,
    Restart,
    Saved,
    Status,
    Threshold,
    kept,
    policy_from_json,
)
from selfheal_remediator.healing.policy import State as PolicyState
from selfheal_remediator.healing.progress_probe import NoAnswer, ProgressProbe, reading_from
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase, State
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.selection import NO_MARKS
from tests.pure.remediator.builders import OWNER, node
from tests.pure.remediator.healing_world import NOW, policy, policy_json, watched
from tests.support.loopback import Handler, serving

# -- the spec --------------------------------------------------------------------------------


def test_a_policy_is_read_with_everything_in_it() -> None:
    found = policy(
        selector={
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        },
        healthThreshold="50%",
        unhealthyWhen={"noProgressFor": "1m30s", "terminatingFor": "1h"},
        progress={"port": "http"},
        restart={"backoff": "10s", "maxBackoff": "60s", "maxPerHour": 3, "gracePeriod": "4s"},
        paused=True,
    )
    assert found.selector == "a=1,b=2,tier in (x,y),!old"
    assert (found.symptoms.no_progress_for, found.symptoms.terminating_for) == (90.0, 3600.0)
    assert found.symptoms.not_ready_for is None
    assert found.progress == Progress("http", "/progress")
    assert found.restart == Restart(10.0, 60.0, 3, 4.0)
    assert (found.threshold, found.paused, found.problem) == (Threshold(50, True), True, "")


@pytest.mark.parametrize(
    ("threshold", "desired", "wanted"),
    [(Threshold(2), 3, 2), (Threshold(50, True), 3, 2), (Threshold(50, True), 4, 2)],
)
def test_a_percentage_is_rounded_up(threshold: Threshold, desired: int, wanted: int) -> None:
    assert threshold.of(desired) == wanted


def test_what_cannot_be_read_is_kept_with_its_problem() -> None:
    found = policy(unhealthyWhen={"notReadyFor": "soon"})
    assert "does not support it" in found.problem
    assert found.key == "ns/web"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"unhealthyWhen": {"notReadyFor": "soon"}},
            "spec.unhealthyWhen.notReadyFor is 'soon': 'soon' is not a duration such as 30s, 5m",
        ),
        ({"unhealthyWhen": {"notReadyFor": 30}}, "spec.unhealthyWhen.notReadyFor is 30: allowed"),
        ({"unhealthyWhen": {"terminatedNonZero": 1}}, "terminatedNonZero is 1: a valid boolean"),
        ({"unhealthyWhen": {"waitingReasons": "Error"}}, "waitingReasons is 'Error': a valid "),
        ({"unhealthyWhen": None}, "spec.unhealthyWhen is None"),
        ({"failureThreshold": "3"}, "spec.failureThreshold is '3': a valid integer"),
        ({"failureThreshold": True}, "spec.failureThreshold is True: a valid integer"),
        ({"failureThreshold": 0}, "spec.failureThreshold is 0: greater than or equal to 1"),
        ({"failureThreshold": 2.0}, "spec.failureThreshold is 2.0: a valid integer"),
        ({"healthThreshold": True}, "spec.healthThreshold is True: allowed is a number of pods"),
        ({"healthThreshold": "101%"}, "spec.healthThreshold is '101%': allowed is a number"),
        (
            {"healthThreshold": 0},
            'a number of pods of at least 1, or a percentage ("1%" to "100%")',
        ),
        ({"restart": {"maxPerHour": 61}}, "restart.maxPerHour is 61: less than or equal to 60"),
        ({"restart": {"backoff": 5}}, "spec.restart.backoff is 5: allowed is a duration"),
        ({"progress": {"port": 0}}, "spec.progress.port is 0: allowed is a number from 1 to 65535"),
        ({"progress": {"port": True}}, "spec.progress.port is True: allowed is a number from 1"),
        ({"progress": {}}, "spec.progress.port is missing"),
        ({"paused": "yes"}, "spec.paused is 'yes': a valid boolean"),
        ({"selector": {}}, "spec.selector is {}: allowed are matchLabels or matchExpressions"),
        ({"selector": {"matchLabels": {"a": 5}}}, "spec.selector.matchLabels.a is 5: a valid str"),
        (
            {"selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}},
            "spec.selector.matchExpressions[0].operator is 'Like': 'In', 'NotIn', 'Exists' or",
        ),
    ],
)
def test_a_spec_that_cannot_be_read_says_what_is_wrong_where(
    spec: dict[str, Any], problem: str
) -> None:
    found = policy(**spec)
    assert problem in found.problem
    assert (found.saved, found.generation) == (Saved(), 1)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ("text", "status is 'text'"),
        ({"restarts": "7"}, "status.restarts is '7': a valid integer"),
        ({"lastHealTime": "soon"}, "status.lastHealTime is 'soon': Invalid isoformat string"),
        ({"lastHealTime": "2026-01-01T00:00:00"}, "names no time zone"),
        ({"owners": [{}]}, "status.owners[0].uid is missing"),
        ({"owners": [{"uid": "u", "failures": -1}]}, "status.owners[0].failures is -1: greater"),
        ({"owners": [{"uid": "u", "restarts": [5]}]}, "status.owners[0].restarts[0] is 5: allowed"),
        (
            {"owners": [{"uid": "u", "canary": {"pod": "p", "state": "new"}}]},
            "status.owners[0].canary.state is 'new': 'under-way', 'passed' or 'failed'",
        ),
        ({"owners": [{"uid": f"u{n}"} for n in range(MAX_OWNERS + 1)]}, "status.owners is "),
        ({"pods": [{"name": "p"}]}, "status.pods[0].cause is missing"),
    ],
)
def test_a_status_that_cannot_be_read_stops_the_policy_and_says_what_is_wrong_where(
    status: Any, problem: str
) -> None:
    found = policy_from_json(policy_json() | {"status": status})
    assert found.problem.startswith("this version does not support it: status")
    assert problem in found.problem
    assert len(found.problem) < 400


def test_what_a_policy_has_spent_outlives_a_spec_that_cannot_be_read() -> None:
    raw = policy_json(paused="yes") | {"status": {"owners": [{"uid": "u", "failures": 2}]}}
    found = policy_from_json(raw)
    assert found.problem
    assert found.saved.records == (Record("u", failures=2),)


def test_all_mistakes_of_a_policy_are_reported_at_once() -> None:
    found = policy(failureThreshold="many", paused=5)
    assert "failureThreshold is 'many'" in found.problem
    assert "paused is 5" in found.problem
    many = [{"uid": n} for n in range(MAX_OWNERS)]
    problem = policy_from_json(policy_json() | {"status": {"owners": many}}).problem
    assert "status.owners[4].uid is 4: a valid string; and 45 more" in problem


@pytest.mark.parametrize(
    ("failures", "wait"), [(0, 0.0), (1, 5.0), (2, 10.0), (6, 160.0), (7, 300.0), (99, 300.0)]
)
def test_the_backoff_doubles_up_to_its_limit(failures: int, wait: float) -> None:
    assert Restart().wait(failures) == wait


def test_every_operator_has_its_text() -> None:
    items = [
        ({"key": "a", "operator": "NotIn", "values": ["x"]}, "a notin (x)"),
        ({"key": "a", "operator": "Exists"}, "a"),
    ]
    for item, text in items:
        assert policy(selector={"matchExpressions": [item]}).selector == text


# -- the status ------------------------------------------------------------------------------


@given(
    restarts=st.lists(st.floats(NOW - HOUR, NOW), max_size=60, unique=True),
    failures=st.integers(0, 9),
    gave_up=st.one_of(st.none(), st.integers(int(NOW) - 9999, int(NOW))),
)
def test_what_is_written_down_is_read_again_never_with_more_budget(
    restarts: list[float], failures: int, gave_up: int | None
) -> None:
    record = Record("u", "Deployment", "web", tuple(sorted(restarts)), failures, "p", gave_up, "3")
    status = Status(1, 3, 2, NOW, 7, PolicyState.HEALING, "", (), (record,), ())
    document = policy_json() | {"status": json.loads(json.dumps(status.to_json()))}
    [again] = policy_from_json(document).saved.records
    assert again.failures == failures
    assert again.gave_up == gave_up
    assert (again.uid, again.pod, again.template) == ("u", "p", "3")
    for moment in (NOW, NOW + HOUR / 2, NOW + HOUR):
        assert len(again.recent(moment)) >= len(record.recent(moment))
        assert len(again.restarts) == len(record.restarts)


def test_a_status_is_bounded() -> None:
    records = tuple(
        Record(f"u{number}", restarts=tuple(NOW - one for one in range(60)))
        for number in range(MAX_OWNERS + 10)
    )
    assert len(kept(records)) == MAX_OWNERS
    status = Status(1, 0, 0, None, 0, PolicyState.IDLE, "x" * 9999, (), records, ())
    text = json.dumps(status.to_json())
    assert len(text) < 150_000  # an object of the API may have 1.5 MiB
    assert len(status.to_json()["message"]) == 1024


# -- owners ----------------------------------------------------------------------------------


def _deployment(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web",
            "uid": "d",
            "generation": 4,
            "annotations": {"deployment.kubernetes.io/revision": "2"},
        },
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, **status},
    }


def _progressing(status: str, reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": "Progressing", "status": status, "reason": reason}]}


@pytest.mark.parametrize(
    ("status", "rolls"),
    [
        ({}, False),
        (_progressing("True", "NewReplicaSetAvailable"), False),
        ({"observedGeneration": 3}, True),
        ({"updatedReplicas": 1}, True),
        (_progressing("True", "ReplicaSetUpdated"), True),
        ({"updatedReplicas": 1, **_progressing("False", "ProgressDeadlineExceeded")}, False),
    ],
)
def test_whether_a_deployment_rolls(status: dict[str, Any], rolls: bool) -> None:
    found = owner_from(_deployment(**status), "Deployment")
    assert bool(found.rolling) is rolls
    assert (found.desired, found.template) == (3, "2")


@pytest.mark.parametrize(
    ("spec", "status", "rolls"),
    [
        ({}, {"currentRevision": "a", "updateRevision": "a"}, False),
        ({}, {"currentRevision": "a", "updateRevision": "b"}, True),
        (
            {"updateStrategy": {"type": "OnDelete"}},
            {"currentRevision": "a", "updateRevision": "b"},
            False,
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": 2}}},
            {"currentRevision": "a", "updateRevision": "b"},
            False,
        ),
    ],
)
def test_whether_a_stateful_set_rolls(
    spec: dict[str, Any], status: dict[str, Any], rolls: bool
) -> None:
    raw = {"metadata": {"name": "db", "uid": "s"}, "spec": spec, "status": status}
    assert bool(owner_from(raw, "StatefulSet").rolling) is rolls


def test_a_daemon_set_wants_a_pod_a_node() -> None:
    raw = {
        "metadata": {"name": "agent", "uid": "a"},
        "status": {"desiredNumberScheduled": 7, "updatedNumberScheduled": 5},
    }
    found = owner_from(raw, "DaemonSet")
    assert found.desired == 7
    assert "5 of 7" in found.rolling


def test_the_topmost_controller_is_the_owner() -> None:
    above = [{"kind": "Deployment", "apiVersion": "apps/v1", "name": "web", "uid": "d"}]
    above[0]["controller"] = True  # type: ignore[assignment]
    there = {
        "replicasets": {
            "metadata": {"name": "web-1", "uid": "rs-web", "ownerReferences": above},
            "spec": {"replicas": 1},
        },
        "deployments": _deployment(),
    }

    def read(namespace: str, api: str, plural: str, name: str) -> dict[str, Any] | None:
        return there.get(plural)

    found = owner_of(watched("p"), read)
    assert found is not None
    assert (found.kind, found.uid) == ("Deployment", "d")
    # A controller recreated under its name is another one; an unknown kind is itself the owner.
    assert owner_of(watched("p", owner_uid="other"), read) is None
    job = owner_of(watched("p", owner_kind="Job", owner_api="batch/v1"), read)
    assert job is not None
    assert (job.kind, job.desired) == ("Job", None)


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        (
            "key",
            ["a", "app.kubernetes.io/name", "A_b.c-9", "x.y/" + "n" * 63],
            ["", "a key", "-a", "a/", "/a", "a/b/c", "Up.per/a", "a),b in (c", "n" * 64],
        ),
        ("values", ["", "front-end", "1.2_x"], ["front end", "-a", "a,b", "x),app in (y"]),
    ],
)
def test_what_no_label_can_be_is_refused(
    field: str, allowed: list[str], refused: list[str]
) -> None:
    """Else the pods' LIST fails for ever, or takes other pods than the policy names."""
    crd = yaml.safe_load((Path(__file__).parents[3] / "chart/crds/healingpolicy.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    selector = schema["properties"]["spec"]["properties"]["selector"]["properties"]
    found = selector["matchExpressions"]["items"]["properties"][field]
    pattern = found.get("items", found)["pattern"]
    assert [text for text in allowed if not re.search(pattern, text)] == []
    assert [text for text in refused if re.search(pattern, text)] == []


# -- nodes -----------------------------------------------------------------------------------


def _known(found: Node) -> Planner:
    alone = Config.model_validate({"limits": {"minSchedulable": 0}})
    planner = Planner(alone, OWNER, NOW)
    planner.apply(Change(found.name, None, found), NOW)
    planner.plan(NOW)
    return planner


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (node(), ""),
        (node(deleting=True), "deleted"),
        (node("n", conditions={}), "not ready"),
        (node(unschedulable=True), "cordoned by somebody else"),
        (
            node(unschedulable=True, state=State(Phase.DRAINING, OWNER, since=int(NOW))),
            "being drained",
        ),
        (node(unschedulable=True, state=State(Phase.CORDONED, OWNER, since=int(NOW))), ""),
    ],
)
def test_when_the_pods_of_a_node_are_left_alone(found: Node, word: str) -> None:
    trouble = node_trouble(_known(found).entry_named("n"), NO_MARKS)
    assert word in trouble
    assert bool(trouble) is bool(word)


def test_a_node_that_is_not_known_is_gone() -> None:
    assert node_trouble(None, NO_MARKS) == "it is gone"


@pytest.mark.parametrize(
    ("found", "acts"),
    [
        (node(), True),
        (node(annotations={EXCLUDE_KEY: "forensics"}), False),
        (node(labels={"selfheal.dev/exclude": "true"}), False),
        (node(labels={"node-role.kubernetes.io/control-plane": ""}), False),
    ],
)
def test_where_the_rules_would_empty_a_node(found: Node, acts: bool) -> None:
    planner = _known(found)
    assert node_path(planner.entry_named("n"), planner.config, NO_MARKS) is acts
    without = planner.config.model_copy(update={"rules": ()})
    assert not node_path(planner.entry_named("n"), without, NO_MARKS)


def test_a_finding_is_a_condition_to_the_rules_and_its_end_is_one_too() -> None:
    planner = _known(node())
    finding = {"n": Finding("n", NOW, "pods of 2 owners are unhealthy here")}
    said = reported_of_nodes({}, finding, (), NOW)
    planner.signal(said, NOW)
    assert planner.plan(NOW + 3).actions == ()
    [action] = planner.plan(NOW + 61).actions
    assert action.state is not None
    assert (action.state.condition, action.state.action) == (PODS_HUNG, "drain")
    # Said again it is the same occurrence; then it is over; then it is said of nobody any more.
    assert reported_of_nodes(said, finding, (), NOW + 70) == said
    over = reported_of_nodes(said, {}, (), NOW + 80)
    assert (over["n"].status, over["n"].transition) == ("False", NOW + 80)
    planner.signal({}, NOW + 90)
    entry = planner.entry_named("n")
    assert entry is not None
    assert PODS_HUNG not in entry.node.conditions


def test_a_new_leader_can_say_that_it_is_over() -> None:
    assert reported_of_nodes({}, {}, ["held"], NOW)["held"].status == "False"


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("policies: {evaluationInterval: 100ms}", "at least 1s"),
        ("policies: {progressTimeout: 0s}", "from 100ms to 30s"),
        ("policies: {rolloutDeadline: 500ms}", "rolloutDeadline must be at least 1s"),
        ("policies: {progressConcurrency: 0}", "progressConcurrency"),
        ("policies: {colour: blue}", "policies.colour: unknown key"),
    ],
)
def test_settings_that_make_no_sense_are_refused(text: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        parse_config(text, "test.yaml")


# -- progress --------------------------------------------------------------------------------


def _body(**values: Any) -> bytes:
    return json.dumps({"in_flight": 2, "last_progress": NOW - 30.0, **values}).encode()


def test_the_pods_own_clock_counts() -> None:
    # Its clock is an hour ahead of ours; its Date header says so.
    headers = {"date": "Fri, 15 Jan 2027 09:00:00 GMT"}  # NOW + 1h
    found = reading_from(_body(last_progress=NOW + 3570), headers, NOW)
    assert found.idle == 30.0
    assert reading_from(_body(), {}, NOW).idle == 30.0
    assert reading_from(_body(ready=False), {}, NOW).waits
    assert not reading_from(_body(), {}, NOW).waits


@pytest.mark.parametrize(
    "body", [b"", b"ok", b"[]", b"{}", b'{"in_flight": "many", "last_progress": 1}', b"\xff"]
)
def test_what_is_no_answer_about_progress_says_nothing(body: bytes) -> None:
    with pytest.raises(NoAnswer):
        reading_from(body, {}, NOW)


@contextmanager
def _answering(status: int, body: bytes, headers: Mapping[str, str]) -> Iterator[int]:
    class Answering(Handler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with serving(Answering) as server:
        yield server.port


def test_a_pod_is_asked_over_http() -> None:
    with _answering(200, _body(oldest_age=12.5), {}) as port:
        found = ProgressProbe(2.0).probe("127.0.0.1", port, "/progress", NOW)
    assert (found.in_flight, found.oldest) == (2, 12.5)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (503, _body(), {}),
        (302, b"", {"Location": "http://127.0.0.1:1/elsewhere"}),
        (200, b" " * 70_000, {}),
    ],
)
def test_other_answers_say_nothing(status: int, body: bytes, headers: dict[str, str]) -> None:
    with _answering(status, body, headers) as port, pytest.raises(NoAnswer):
        ProgressProbe(2.0).probe("127.0.0.1", port, "/progress", NOW)


def test_nobody_there_says_nothing() -> None:
    with pytest.raises(NoAnswer):
        ProgressProbe(0.2).probe("127.0.0.1", 1, "/progress", NOW)
