"""Which StepKind carries out a step, by what the configuration says."""

from __future__ import annotations

from selfheal_remediator.actions.job import JobStep
from selfheal_remediator.actions.machine import MachineStep
from selfheal_remediator.actions.resource import ResourceStep
from selfheal_remediator.actions.step import StepKind
from selfheal_remediator.actions.waiting import ConditionStep, WaitStep
from selfheal_remediator.actions.webhook import WebhookStep
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.ladder import Step, Verify


def kind_of(part: Step | Verify, api: KubernetesApi) -> StepKind:
    """What carries out this step, or this `verify`. Raises ValueError for what is neither."""
    if part.job is not None:
        return JobStep(api, part.job)
    if isinstance(part, Step):
        return _step(part, api)
    if part.condition is not None:
        return ConditionStep(part.condition)
    raise ValueError(f"nothing carries out {part!r}")


def _step(part: Step, api: KubernetesApi) -> StepKind:
    if part.machine is not None:
        return MachineStep(api, part.machine)
    if part.resource is not None:
        return ResourceStep(api, part.resource)
    if part.webhook is not None:
        return WebhookStep(api, part.webhook)
    if part.wait is not None:
        return WaitStep(part.wait)
    raise ValueError(f"nothing carries out {part!r}")
