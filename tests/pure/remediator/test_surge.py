"""Whether a Deployment is rolled out for its only pod, and what the request says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.drain.surge import (
    FIRST_AGAIN,
    LONGEST_AGAIN,
    MOST,
    MOST_IN,
    NOTHING,
    SHARED,
    SURGED_KEY,
    Surge,
    cordon_mark,
    decide,
    start_patch,
    undo_patch,
)
from selfheal_remediator.failures import Malformed
from selfheal_remediator.kube.deployments import deployment_from_json
from selfheal_remediator.kube.placement import placement_from_spec
from tests.pure.remediator import json_patch
from tests.pure.remediator.builders import NOW
from tests.pure.remediator.deployments import WANTED, deployment, pod, rolling

Json = dict[str, Any]
MARK = cordon_mark("node-uid", int(NOW) - 60)
OTHER = cordon_mark("other-uid", int(NOW) - 600)


def decision(
    raw: Json | None, now: float = NOW, mark: str = MARK, **of_pod: Any
) -> tuple[str, str]:
    """What is decided, and why."""
    found = None if raw is None else deployment_from_json(raw)
    made = decide(found, pod(**of_pod), mark, now)
    return made.surge.value, made.why


def started(raw: Json, mark: str = MARK, now: float = NOW) -> Json:
    """The Deployment after the request that begins its rollout, as the API server has it then."""
    return changed(raw, start_patch(deployment_from_json(raw), mark, now))


def changed(raw: Json, patch: list[Json]) -> Json:
    after = json_patch.apply(raw, patch)
    meta = after["metadata"]
    meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
    meta["generation"] += after["spec"] != raw["spec"]
    return after


def with_status(raw: Json, *, reason: str = "ReplicaSetUpdated", **status: Any) -> Json:
    """Its controller has observed it."""
    progress = "False" if reason == "ProgressDeadlineExceeded" else "True"
    conditions = [{"type": "Progressing", "status": progress, "reason": reason}]
    seen = {"observedGeneration": raw["metadata"]["generation"], "conditions": conditions}
    return {**raw, "status": {**raw["status"], **seen, **status}}


FAILED: Json = {"reason": "ProgressDeadlineExceeded", "replicas": 2, "updatedReplicas": 1}
DONE: Json = {"reason": "NewReplicaSetAvailable", "replicas": 1, "updatedReplicas": 1}


# -- which Deployments ------------------------------------------------------------------------


def test_the_only_pod_of_a_deployment_is_surged() -> None:
    assert decision(deployment()) == ("start", "")


@pytest.mark.parametrize(
    "raw",
    [
        None,  # of a StatefulSet, a DaemonSet, a Job, a bare ReplicaSet, or of nothing
        deployment(annotations=None),
        deployment(annotations={"selfheal.dev/surge": "false"}),
        deployment(annotations={"selfheal.dev/surge": "True"}),
        deployment(meta={"labels": WANTED}, annotations={}),
        deployment(meta={"deletionTimestamp": "2026-01-31T12:00:00Z"}),
    ],
)
def test_what_nobody_wants_is_left_alone_without_a_word(raw: Json | None) -> None:
    assert decision(raw) == ("nothing", "")
    assert NOTHING.text == ""


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        (rolling(), ""),
        (rolling(maxSurge=1, maxUnavailable=0), ""),
        (rolling(maxSurge="1%", maxUnavailable="99%"), ""),  # 1 rounded up, 0 rounded down
        (rolling(maxSurge=3, maxUnavailable="0%"), ""),
        ({"type": "RollingUpdate"}, ""),
        ({"type": "Recreate"}, "its strategy is Recreate, which stops the old pod first"),
        (rolling(maxSurge=0, maxUnavailable=1), "its maxSurge is 0"),
        (rolling(maxSurge="0%"), "its maxSurge is 0"),
        (rolling(maxSurge=1, maxUnavailable=1), "its maxUnavailable lets a rollout stop"),
        (rolling(maxUnavailable="100%"), "its maxUnavailable lets a rollout stop"),
    ],
)
def test_a_rollout_must_bring_the_new_pod_first(strategy: Json, why: str) -> None:
    surge, text = decision(deployment(strategy=strategy))
    assert surge == ("refused" if why else "start")
    assert text.startswith(why)
    assert bool(text) is bool(why)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (deployment(replicas=2), "it has 2 replicas, a surge is for the only one"),
        (deployment(replicas=0), "it has 0 replicas, a surge is for the only one"),
        (deployment(paused=True), "its rollouts are paused"),
        (deployment(progressDeadlineSeconds=2**31 - 1), "it has no progressDeadlineSeconds"),
        (deployment(progressDeadlineSeconds=None), "it has no progressDeadlineSeconds"),
        (
            deployment(
                meta={
                    "ownerReferences": [
                        {"apiVersion": "a/v1", "kind": "App", "name": "shop", "uid": "u"}
                        | {"controller": True}
                    ]
                }
            ),
            "App shop manages it and might undo it",
        ),
        (
            deployment(annotations={**WANTED, SURGED_KEY: "{"}),
            "annotation selfheal.dev/surged: ",
        ),
        (
            deployment(annotations={**WANTED, SURGED_KEY: '{"at":["now"]}'}),
            "annotation selfheal.dev/surged: at[0] is 'now'",
        ),
    ],
)
def test_it_is_refused_with_the_reason(raw: Json, why: str) -> None:
    surge, text = decision(raw)
    assert surge == "refused"
    assert text.startswith(why)


@pytest.mark.parametrize("replicas", [None, 1])
def test_an_autoscaler_of_one_replica_does_not_matter(replicas: int | None) -> None:
    """A HorizontalPodAutoscaler or KEDA sets spec.replicas, which a rollout leaves as it is."""
    raw = deployment()
    raw["spec"]["replicas"] = replicas
    assert decision(raw) == ("start", "")
    assert (
        json_patch.apply(raw, start_patch(deployment_from_json(raw), MARK, NOW))["spec"]["replicas"]
        is replicas
    )


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (deployment(status={"observedGeneration": 2}), "its controller has not observed"),
        (deployment(status={"observedGeneration": None}), "its controller has not observed"),
        (deployment(status={"replicas": 2}), "a rollout is in progress (1 of 2 pods are new)"),
        (deployment(progressing=("True", "ReplicaSetUpdated")), "a rollout is in progress"),
        (deployment(progressing=("False", "ProgressDeadlineExceeded")), "its rollout has failed"),
        (deployment(status={"availableReplicas": 0}), "its pod is not available"),
        (deployment(status={"replicas": 0, "updatedReplicas": 0}), "its pod is not available"),
    ],
)
def test_another_rollout_is_waited_for(raw: Json, why: str) -> None:
    surge, text = decision(raw)
    assert surge == "wait"
    assert text.startswith(why)


def test_a_pod_that_is_not_ready_serves_nobody_yet() -> None:
    assert decision(deployment(), ready=False) == ("wait", "its pod is not available")


def apart(key: str, **labels: str) -> Any:
    """The placement of a pod with this anti-affinity."""
    term = {"topologyKey": key, "labelSelector": {"matchLabels": labels}}
    kind = "requiredDuringSchedulingIgnoredDuringExecution"
    return placement_from_spec({"affinity": {"podAntiAffinity": {kind: [term]}}}, "default")


ZONE = "topology.kubernetes.io/zone"


@pytest.mark.parametrize(
    ("of_pod", "why"),
    [
        ({"claims": ("data",)}, "its pod uses a volume (claim data)"),
        ({"placement": apart(ZONE, app="web")}, f"two of its pods may not be in one {ZONE}"),
        ({"placement": apart(ZONE, app="db")}, ""),
        ({"placement": apart("kubernetes.io/hostname", app="web")}, ""),  # this node is cordoned
    ],
)
def test_the_new_pod_must_be_able_to_run_beside_the_old_one(of_pod: Json, why: str) -> None:
    surge, text = decision(deployment(), **of_pod)
    assert surge == ("refused" if why else "start")
    assert text.startswith(why)


@pytest.mark.parametrize(
    "broken",
    [
        {"replicas": "1"},
        {"strategy": rolling(maxSurge="some")},
        {"strategy": {"rollingUpdate": []}},
        {"meta": {"uid": ""}},
        {"meta": {"resourceVersion": None}},
    ],
)
def test_what_cannot_be_read_is_not_decided(broken: Json) -> None:
    with pytest.raises(Malformed, match="a Deployment"):
        deployment_from_json(deployment(**broken))


def test_a_budget_that_may_let_the_pod_go_is_waited_for() -> None:
    found = deployment_from_json(deployment())
    assert decide(found, pod(), MARK, NOW, kept=False).text == (
        "no surge of Deployment default/web now: its PDB counts more pods than it needs"
    )
    several = deployment_from_json(deployment(replicas=2))
    assert decide(several, pod(), MARK, NOW, kept=False).text == ""
    rolls = deployment_from_json(started(deployment()))  # it counts the new pod too
    assert decide(rolls, pod(), MARK, NOW, kept=False).surge is Surge.ROLLING


def test_a_budget_that_counts_other_pods_would_let_one_of_them_go() -> None:
    def made(raw: Json) -> str:
        return decide(deployment_from_json(raw), pod(), MARK, NOW, unless=SHARED).text

    assert made(deployment()).startswith("no surge of Deployment default/web: its PDB counts other")
    assert "a rollout is in progress" in made(deployment(status={"replicas": 2}))
    assert "is rolled out" in made(started(deployment()))


# -- once, and not too often --------------------------------------------------------------------


def test_what_was_begun_is_not_begun_again_by_whoever_leads() -> None:
    raw = started(deployment())
    assert decision(raw)[0] == "rolling"  # its controller has not observed it
    assert decision(with_status(raw, replicas=2, updatedReplicas=1))[0] == "rolling"
    raw = with_status(raw, **DONE)
    assert decision(raw) == ("refused", "it was rolled out for this cordon")


def test_the_same_request_twice_is_refused_by_the_server() -> None:
    """Its answer was lost, or two leaders decided at the same moment."""
    raw = deployment()
    patch = start_patch(deployment_from_json(raw), MARK, NOW)
    with pytest.raises(json_patch.TestFailed):
        json_patch.apply(changed(raw, patch), patch)


def test_a_request_is_about_the_deployment_that_was_read() -> None:
    patch = start_patch(deployment_from_json(deployment()), MARK, NOW)
    for meta in ({"uid": "another"}, {"resourceVersion": "8"}):
        with pytest.raises(json_patch.TestFailed):
            json_patch.apply(deployment(meta=meta), patch)


def test_a_second_node_waits_for_the_rollout_of_the_first() -> None:
    raw = started(deployment())
    assert decision(raw, mark=OTHER)[0] == "wait"
    raw = with_status(raw, **DONE)
    surge, why = decision(raw, mark=OTHER)
    assert (surge, why[:39]) == ("wait", "its last rollout was a moment ago, the ")
    assert decision(raw, NOW + FIRST_AGAIN, OTHER) == ("start", "")


def test_rollouts_are_ever_rarer_and_at_most_so_many_a_day() -> None:
    raw, now, waits = deployment(), NOW, []
    for number in range(MOST):
        assert decision(raw, now, f"node-{number}") == ("start", "")
        begun = now
        raw = with_status(started(raw, f"node-{number}", now), **DONE)
        while decision(raw, now, "next")[0] == "wait":
            now += 60
        waits.append(now - begun)
    assert waits[:-1] == [FIRST_AGAIN * 2**n for n in range(MOST - 1)]
    assert max(waits[:-1]) <= LONGEST_AGAIN
    assert now >= NOW + MOST_IN
    assert decision(raw, now, "next") == ("start", "")
    written = json.loads(started(raw, "next", now)["metadata"]["annotations"][SURGED_KEY])
    assert len(written["at"]) == MOST  # what is older is not kept


def test_a_time_from_the_future_is_waited_for() -> None:
    said = json.dumps({"mark": OTHER, "at": [int(NOW) + 3600]})
    raw = deployment(annotations={**WANTED, SURGED_KEY: said})
    assert decision(raw)[0] == "wait"


def test_a_time_that_no_clock_wrote_is_not_waited_for_and_not_kept() -> None:
    said = json.dumps({"mark": OTHER, "at": [int(NOW) + 10**9, 2**40]})
    raw = deployment(annotations={**WANTED, SURGED_KEY: said})
    assert decision(raw) == ("start", "")
    written = json.loads(started(raw)["metadata"]["annotations"][SURGED_KEY])
    assert written["at"] == [int(NOW)]


# -- a rollout that fails -----------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, {"a": "b"}, {SURGED_KEY: OTHER}])
@pytest.mark.parametrize("annotations", [WANTED, {**WANTED, "more": "x"}])
def test_a_rollout_that_failed_is_undone_to_the_template_before(
    template: dict[str, str] | None, annotations: dict[str, str]
) -> None:
    raw = deployment(template=template, annotations=annotations)
    failed = with_status(started(raw), **FAILED)
    assert decision(failed) == ("undo", "its rollout has failed (ProgressDeadlineExceeded)")
    undone = changed(failed, undo_patch(deployment_from_json(failed)))
    assert undone["spec"]["template"]["metadata"].get("annotations") == template
    assert decision(undone) == ("refused", "its rollout for this cordon failed and was undone")
    assert decision(with_status(undone, **DONE))[0] == "refused"
    assert decision(with_status(undone, **DONE), NOW + FIRST_AGAIN, OTHER)[0] == "start"


@pytest.mark.parametrize("kept", [True, False])
def test_what_failed_after_its_drain_ended_is_undone_by_the_next_one(kept: bool) -> None:
    """Its node had recovered. The budget counts the new pod too, and may seem to have room."""
    failed = with_status(started(deployment(), OTHER), **FAILED)
    found = deployment_from_json(failed)
    made = decide(found, pod(), MARK, NOW, kept=kept)
    assert made.surge is Surge.UNDO
    undone = with_status(changed(failed, undo_patch(found)), **DONE)
    assert SURGED_KEY not in (undone["spec"]["template"]["metadata"].get("annotations") or {})
    assert decision(undone)[0] == "wait"
    assert decision(undone, NOW + FIRST_AGAIN) == ("start", "")
    somebodys = with_status(deployment(), **FAILED)
    assert decide(deployment_from_json(somebodys), pod(), MARK, NOW).surge is Surge.WAIT


@pytest.mark.parametrize(
    "more", [{"paused": True}, {"replicas": 2}, {"template": {"metadata": {"annotations": {}}}}]
)
def test_what_somebody_changed_meanwhile_is_not_undone(more: Json) -> None:
    raw = started(deployment())
    raw = {**raw, "spec": {**raw["spec"], **more}}
    raw["metadata"] = {**raw["metadata"], "generation": raw["metadata"]["generation"] + 1}
    surge, why = decision(with_status(raw, **FAILED))
    assert surge == "refused"
    assert "changed" in why


# -- whatever the Deployment is --------------------------------------------------------------------

counts = st.integers(0, 3)
percent = st.integers(0, 150).map(lambda n: f"{n}%") | counts
raws = st.builds(
    lambda surge, unavailable, status, replicas, paused, template, begun: (
        lambda raw: started(raw, begun) if begun else raw
    )(
        deployment(
            strategy=rolling(maxSurge=surge, maxUnavailable=unavailable),
            status=status,
            replicas=replicas,
            paused=paused,
            template=template,
        )
    ),
    percent,
    percent,
    st.fixed_dictionaries(
        {
            "observedGeneration": st.integers(1, 5),
            "replicas": counts,
            "updatedReplicas": counts,
            "availableReplicas": counts,
        }
    ),
    counts,
    st.booleans(),
    st.sampled_from([None, {}, {SURGED_KEY: OTHER}]),
    st.sampled_from(["", MARK, OTHER]),
)


@given(raw=raws, ready=st.booleans(), now=st.floats(NOW, NOW + 2 * MOST_IN))
def test_a_rollout_is_begun_only_beside_nothing_else_and_once(
    raw: Json, ready: bool, now: float
) -> None:
    if decision(raw, now, ready=ready)[0] != "start":
        return
    spec, status = raw["spec"], raw["status"]
    assert spec["replicas"] == 1
    assert not spec["paused"]
    assert ready
    assert status["observedGeneration"] >= raw["metadata"]["generation"]
    counted = ("replicas", "updatedReplicas", "availableReplicas")
    assert [status[key] for key in counted] == [1, 1, 1]
    after = started(raw, now=now)
    assert decision(after, now)[0] in ("rolling", "refused")
    unlike = {**after["spec"], "template": raw["spec"]["template"]}
    assert unlike == spec  # nothing but the template's annotation is changed


def test_each_decision_has_a_text() -> None:
    found = deployment_from_json(deployment(replicas=2))
    made = decide(found, pod(), MARK, NOW)
    assert made.text == (
        "no surge of Deployment default/web: it has 2 replicas, a surge is for the only one"
    )
    assert made.surge is Surge.REFUSED
