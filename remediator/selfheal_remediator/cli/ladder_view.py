"""What `plan` shows of a rule's ladder: its steps, and `verify`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.actions.webhook import origin
from selfheal_remediator.config import Config
from selfheal_remediator.external_steps import ResourceSettings, WebhookSettings
from selfheal_remediator.ladder import ConditionSettings, JobSettings, Step, Verify
from selfheal_remediator.node.annotation import State
from selfheal_remediator.node.repair import ladder_text
from selfheal_remediator.node.spans import span


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step, or `verify`. Seconds; settle None = it has none."""

    kind: str
    what: str
    timeout: float
    settle: float | None


@dataclass(frozen=True, slots=True)
class LadderPlan:
    """What follows the drain. progress: how far it is, empty = no step was begun."""

    steps: tuple[StepPlan, ...]
    verify: StepPlan | None
    progress: str


def ladder_plan(config: Config, state: State | None, now: State | None) -> LadderPlan | None:
    """The ladder of the rule that the state is about, None = it has neither `then` nor `verify`.

    config: with the rules of the node's group. state: as it will be, now: as it is.
    """
    rule = config.rule_marked(state.rule) if state is not None else None
    if state is None or rule is None or not (rule.then or rule.verify):
        return None
    verify = _verify(rule.verify) if rule.verify is not None else None
    progress = ladder_text(config, now) if now is not None else ""
    return LadderPlan(tuple(map(_step, rule.then)), verify, progress)


def _step(step: Step) -> StepPlan:
    timeout = step.timeout if step.wait is None else step.wait
    return StepPlan(step.kind, _what(step), timeout, step.settle)


def _what(step: Step) -> str:
    """What it does, without anything that may be secret."""
    if step.job is not None:
        return _job(step.job)
    if step.machine is not None:
        return f"{step.machine.mode} the node's Machine"
    if step.resource is not None:
        return _resource(step.resource)
    if step.webhook is not None:
        return _webhook(step.webhook)
    return f"wait {span(step.wait or 0.0)}"


def _job(job: JobSettings) -> str:
    place = "on the node" if job.placement == "node" else "beside the node"
    end = "it is complete" if job.succeeded_by == "completion" else "the node has another boot ID"
    return f"a Job {place}, until {end}"


def _resource(resource: ResourceSettings) -> str:
    name = "/".join(filter(None, [resource.namespace, resource.template["metadata"]["name"]]))
    return f"create {resource.template['kind']} {name}"


def _webhook(webhook: WebhookSettings) -> str:
    return f"POST to {origin(webhook.url) or f'the URL in {webhook.url_file}'}"


def _verify(verify: Verify) -> StepPlan:
    return StepPlan(verify.kind, _proof(verify), verify.timeout, None)


def _proof(verify: Verify) -> str:
    if verify.job is not None:
        return _job(verify.job)
    wanted = verify.condition or ConditionSettings(type="")
    return f"condition {wanted.type} is {wanted.status}"
