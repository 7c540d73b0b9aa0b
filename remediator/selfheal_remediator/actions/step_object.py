"""What the Node says, until it is uncordoned, of the object that a step created.

Without it a leader that finds no object could not know whether there was one, and would create it,
and so repair the node, once more. One case is left: the leader dies between creating it and the
note, and somebody deletes it before the next leader finds it. It is created again: taken for lost,
each step would stay undone whose leader dies in the moment before it creates.
(Jobs that are created suspended would close that gap, for two more rights and one more state.)
"""

from __future__ import annotations

from typing import Any

from selfheal_remediator.actions.step import StepRun
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.node.annotation import STEP_OBJECT_KEY


def noted(run: StepRun) -> str:
    """What was written down for this step of this occurrence, empty = nothing."""
    occurrence, _, text = run.node.annotations.get(STEP_OBJECT_KEY, "").partition(" ")
    return text if occurrence == run.occurrence else ""


def prepare(api: KubernetesApi, run: StepRun) -> None:
    """Before anything is created: on a Node that takes no note, as a policy may forbid it, nothing
    is. What is written does not count as noted. Raises ApiFailure."""
    if not run.node.annotations.get(STEP_OBJECT_KEY, "").startswith(f"{run.occurrence} "):
        note(api, run, "")


def note(api: KubernetesApi, run: StepRun, text: str) -> None:
    """Write it down, if the Node still is the one that it is about. Raises ApiFailure, also for one
    that has no annotation any more: it is at no step."""
    key = STEP_OBJECT_KEY.replace("/", "~1")
    value = f"{run.occurrence} {text}"
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": run.node.uid},
        {"op": "add", "path": f"/metadata/annotations/{key}", "value": value},
    ]
    answer = api.patch_node(run.node.name, patch)
    if not answer.ok:
        raise answer.failure()
