"""The step `job`: a Job in the remediator's own namespace, on the node or beside it.

Its name comes from the occurrence: what a predecessor created is continued. It is created once,
and never after the step's deadline: the Node has the uid of the one that was (step_object.py), and
that one is not created again when somebody deleted it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from selfheal_remediator.actions.step import StepOutcome, StepResult, StepRun
from selfheal_remediator.actions.step_object import note, noted, prepare
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.json_values import as_name, as_object, as_objects, as_text
from selfheal_remediator.kube.objects import HOSTNAME_LABEL, Node
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.ladder import JobSettings

Json = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "selfheal-remediator"
NODE_ANNOTATION = "selfheal.dev/node"
OCCURRENCE_ANNOTATION = "selfheal.dev/occurrence"
#: What an unhealthy, cordoned node may be tainted with by Kubernetes.
TAINTS = tuple(
    f"node.kubernetes.io/{name}"
    for name in (
        *("unschedulable", "not-ready", "unreachable", "network-unavailable"),
        *("memory-pressure", "disk-pressure", "pid-pressure"),
    )
)
#: Seconds between two reads of a Job; of one that is to reboot its node likewise.
READ_EVERY = 5.0


class JobStep:
    """See the module. A StepKind."""

    def __init__(self, api: KubernetesApi, settings: JobSettings) -> None:
        self._api, self._settings = api, settings

    def advance(self, run: StepRun, now: float) -> StepResult:
        """Create the Job, or see what became of it. Raises ApiFailure."""
        if self._by_boot_id and _rebooted(run):
            return StepResult(StepOutcome.SUCCEEDED, "the node has another boot id")
        name = job_name(run)
        if run.dry_run:
            return self._result(name, self._create(name, run, now), run)
        job = self._api.get_if_there(f"{self._path}/{quote(name)}")
        if job is None and noted(run):
            return self._lost(f"Job {name} was deleted before it was seen to end")
        if job is None and run.withdrawn is not None:
            return run.withdrawn
        if job is None and now >= run.deadline:
            return StepResult(StepOutcome.FAILED, f"Job {name} was not created in time")
        if job is None:
            prepare(self._api, run)
            job = self._create(name, run, now)
        return self._followed(name, job, run)

    @property
    def _by_boot_id(self) -> bool:
        return self._settings.succeeded_by == "bootID"

    @property
    def _path(self) -> str:
        return f"/apis/batch/v1/namespaces/{quote(self._api.namespace)}/jobs"

    def _create(self, name: str, run: StepRun, now: float) -> Json:
        body = job_manifest(name, self._settings, run, now)
        answer = self._api.write("POST", self._path, body)
        if answer.status == 409 and answer.conflict:  # created meanwhile: continue with that one
            return self._api.get(f"{self._path}/{quote(name)}")
        if not answer.ok:
            raise answer.failure()
        with understood(f"Job {name}"):
            return as_object(answer.json())

    def _followed(self, name: str, job: Json, run: StepRun) -> StepResult:
        """What became of it; which one it is is written down while that may matter."""
        with understood(f"Job {name}"):
            uid = as_name(as_object(job["metadata"]).get("uid"))
        if noted(run) not in ("", uid):
            return self._lost(f"Job {name} was deleted, and this one is not of this step")
        result = self._result(name, job, run)
        if result.outcome is StepOutcome.RUNNING and not noted(run):
            note(self._api, run, uid)
        return result

    def _lost(self, text: str) -> StepResult:
        """What it did cannot be seen any more, but for a reboot, which it may have begun."""
        outcome = StepOutcome.RUNNING if self._by_boot_id else StepOutcome.FAILED
        return StepResult(outcome, text, READ_EVERY)

    def _result(self, name: str, job: Json, run: StepRun) -> StepResult:
        with understood(f"Job {name}"):
            meta = as_object(job["metadata"])
            annotations = as_object(meta.get("annotations"))
            conditions = as_objects(as_object(job.get("status")).get("conditions"))
        if annotations.get(OCCURRENCE_ANNOTATION) != run.occurrence:
            message = f"there is another Job {name}, which is not of this step"
            return StepResult(StepOutcome.FAILED, message)
        failed = _condition(conditions, "Failed")
        complete = _condition(conditions, "Complete")
        if self._by_boot_id:
            # The pod that reboots its node fails with it, before the new boot id is known.
            text = f"Job {name}: the node has the boot id that it had"
            if failed is not None:
                text += f"; {self._reason(name, failed)}"
            return StepResult(StepOutcome.RUNNING, text, READ_EVERY)
        if failed is not None:
            return StepResult(StepOutcome.FAILED, f"Job {name}: {self._reason(name, failed)}")
        if complete is not None:
            return StepResult(StepOutcome.SUCCEEDED, f"Job {name} is complete")
        return StepResult(StepOutcome.RUNNING, f"Job {name} runs", READ_EVERY)

    def _reason(self, name: str, failed: Json) -> str:
        """Why it failed: what its last pod said, else what the Job says."""
        text = f"{as_text(failed.get('reason'))} {as_text(failed.get('message'))}".strip()
        selector = f"batch.kubernetes.io/job-name={name}"
        pods = self._api.pods_labelled(self._api.namespace, selector)
        said = [line for page, _ in pods.pages() for pod in page for line in _last_words(pod)]
        return "; ".join([text or "failed", *said[-1:]])[:400]


def job_name(run: StepRun) -> str:
    """The Job's name, one for each step of an occurrence."""
    return f"selfheal-{run.occurrence}"


def job_manifest(name: str, settings: JobSettings, run: StepRun, now: float) -> Json:
    """The Job, with the node's name, what it tolerates and who made it. Pure."""
    template = copy.deepcopy(settings.template)
    labels = {MANAGED_BY: MANAGER, "selfheal.dev/rule": run.rule}
    marks = {NODE_ANNOTATION: run.node.name, OCCURRENCE_ANNOTATION: run.occurrence}
    meta = template["metadata"] = as_object(template.get("metadata"))
    meta["labels"] = {**as_object(meta.get("labels")), **labels}
    meta["annotations"] = {**as_object(meta.get("annotations")), **marks}
    spec = template["spec"]
    spec["restartPolicy"] = "Never"
    if settings.placement == "node":
        spec["nodeName"] = run.node.name
        spec["tolerations"] = [*as_objects(spec.get("tolerations")), *_tolerations(run.node)]
    else:
        spec["affinity"] = _beside(as_object(spec.get("affinity")), run.node)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {**marks, "selfheal.dev/condition": run.condition},
        },
        "spec": {
            "backoffLimit": settings.backoff_limit,
            "activeDeadlineSeconds": max(1, math.ceil(run.deadline - now)),
            "ttlSecondsAfterFinished": settings.ttl_seconds_after_finished,
            "template": template,
        },
    }


def _tolerations(node: Node) -> list[Json]:
    """Of what Kubernetes may taint it with, and of what it is tainted with."""
    keys = dict.fromkeys([*TAINTS, *(taint.key for taint in node.taints)])
    return [{"key": key, "operator": "Exists"} for key in keys]


def _beside(affinity: Json, node: Node) -> Json:
    """The affinity, and not on this node: its name, and its host's name, which may differ."""
    wanted = as_object(affinity.get("nodeAffinity"))
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = as_objects(as_object(wanted.get(key)).get("nodeSelectorTerms")) or [{}]
    field = {"key": "metadata.name", "operator": "NotIn", "values": [node.name]}
    host = node.labels.get(HOSTNAME_LABEL)
    label = [{"key": HOSTNAME_LABEL, "operator": "NotIn", "values": [host]}] if host else []
    others = [
        {
            **term,
            "matchFields": [*as_objects(term.get("matchFields")), field],
            "matchExpressions": [*as_objects(term.get("matchExpressions")), *label],
        }
        for term in terms
    ]
    return {**affinity, "nodeAffinity": {**wanted, key: {"nodeSelectorTerms": others}}}


def _rebooted(run: StepRun) -> bool:
    return bool(run.node.boot_id) and run.node.boot_id != run.boot_id


def _condition(conditions: Iterable[Json], kind: str) -> Json | None:
    return next(
        (c for c in conditions if c.get("type") == kind and c.get("status") == "True"), None
    )


def _last_words(pod: Json) -> list[str]:
    """What the pod's containers said at their end."""
    found = []
    for status in as_objects(as_object(pod.get("status")).get("containerStatuses")):
        ended = as_object(as_object(status.get("state")).get("terminated"))
        if ended and ended.get("exitCode") != 0:
            text = as_text(ended.get("message")).strip() or as_text(ended.get("reason"))
            found.append(f"{as_text(status.get('name'))}: {text or 'failed'}"[:200])
    return found
