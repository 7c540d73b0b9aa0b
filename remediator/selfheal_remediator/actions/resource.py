"""The step `resource`: creates one object, and watches it until another system is done with it.

The object's label names the step of the occurrence, so that it is created once. The Node says how
far the object is (step_object.py).

medik8s' operators work this way: a remediation has the name of its node and is in the namespace of
its template, the condition Succeeded says how it ended, and it is deleted when the node is healthy
again, which undoes what it did to the node (`cleanUp: true`):
https://github.com/medik8s/self-node-remediation/blob/main/api/v1alpha1/selfnoderemediation_types.go
https://github.com/medik8s/fence-agents-remediation#readme
"""

from __future__ import annotations

from urllib.parse import quote

from selfheal_remediator.actions.discovery import find_resource
from selfheal_remediator.actions.step import StepOutcome, StepResult, StepRun
from selfheal_remediator.actions.step_object import note, noted, prepare
from selfheal_remediator.actions.template import object_from, shows
from selfheal_remediator.external_steps import OCCURRENCE_LABEL, ResourceSettings, texts_in
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.json_values import as_name, as_object, as_text
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import Answer, understood

#: How far an object of an occurrence is, as the Node says it.
CREATED, SUCCEEDED = "created", "succeeded"
#: Seconds until something that was just changed is read again.
SOON = 1.0


class ResourceStep:
    """See the module. A StepKind."""

    def __init__(self, api: KubernetesApi, settings: ResourceSettings) -> None:
        self._api, self._settings = api, settings

    def advance(self, run: StepRun, now: float) -> StepResult:
        """Create the object, or evaluate what became of it. Raises ApiFailure."""
        try:
            path, body = self._collection(), self._body(run)
        except _Impossible as error:
            return StepResult(StepOutcome.FAILED, str(error))
        turn = _Turn(self._api, self._settings, run, path, body)
        if run.dry_run:
            return turn.create()
        found = self._api.get_if_there(turn.path)
        if found is None:
            return turn.absent(now)
        with understood(turn.what):
            return turn.present(found, now)

    def _collection(self) -> str:
        """The path of the object's collection. Raises _Impossible, ApiFailure."""
        template, namespace = self._settings.template, self._settings.namespace
        version, kind = template["apiVersion"], template["kind"]
        resource = find_resource(self._api, version, kind)
        if resource is None:
            raise _Impossible(f"{kind} ({version}) is not installed in this cluster")
        if resource.namespaced and not namespace:
            raise _Impossible(f"{kind} needs template.metadata.namespace")
        if namespace and not resource.namespaced:
            raise _Impossible(f"{kind} has no namespace: remove template.metadata.namespace")
        return resource.collection(namespace)

    def _body(self, run: StepRun) -> Json:
        """Raises _Impossible, ApiFailure."""
        node = run.node
        values = {
            "node": node.name,
            "nodeUID": node.uid,
            "bootID": run.boot_id,
            "occurrence": run.occurrence,
            "rule": run.rule,
            "condition": run.condition,
        }
        if any("{providerID}" in text for text in texts_in(self._settings.template)):
            raw = self._api.node(node.name)
            with understood(f"node {node.name}"):
                values["providerID"] = as_text(as_object(raw.get("spec")).get("providerID"))
            if not values["providerID"]:
                raise _Impossible(f"node {node.name} has no providerID")
        return object_from(self._settings, values, run.occurrence)


class _Impossible(Exception):
    """It cannot be created as it is configured."""


class _Turn:
    """One turn of the step, with what it is about."""

    def __init__(
        self,
        api: KubernetesApi,
        settings: ResourceSettings,
        run: StepRun,
        collection: str,
        body: Json,
    ) -> None:
        self._api, self._settings, self._run = api, settings, run
        self._collection, self._body = collection, body
        name = body["metadata"]["name"]
        self.path = f"{collection}/{quote(name, safe='')}"
        place = "/".join(filter(None, [settings.namespace, name]))
        #: The object, for people.
        self.what = f"{body['kind']} {place}"

    def absent(self, now: float) -> StepResult:
        """There is no such object: create it, unless there was one."""
        if self._has_got_to(SUCCEEDED):
            return self._result(StepOutcome.SUCCEEDED, "succeeded, and was removed")
        if self._has_got_to(CREATED):
            return self._result(StepOutcome.FAILED, "was deleted before it was seen to succeed")
        if self._run.withdrawn is not None:
            return self._run.withdrawn
        if now >= self._run.deadline:
            return self._result(StepOutcome.FAILED, "was not created in time")
        prepare(self._api, self._run)
        return self.create()

    def create(self) -> StepResult:
        answer = self._api.write("POST", self._collection, self._body, dry_run=self._run.dry_run)
        if answer.status == 409 and answer.conflict and not self._run.dry_run:
            return self._result(StepOutcome.RUNNING, "exists by now", SOON)
        if answer.status in (400, 409, 422):
            said = answer.failure().message[:300]
            return self._result(StepOutcome.FAILED, f"is refused: {said}")
        _check(answer)
        if self._run.dry_run:
            return self._result(StepOutcome.RUNNING, "would be created")
        self._note(CREATED)
        return self._result(StepOutcome.RUNNING, "was created", SOON)

    def present(self, raw: Json, now: float) -> StepResult:
        """There is an object of this name. Raises TypeError for one that is none."""
        meta = as_object(raw["metadata"])
        owner = as_text(as_object(meta.get("labels")).get(OCCURRENCE_LABEL))
        if owner != self._run.occurrence:
            whose = f"of occurrence {owner}" if owner else "not of this remediator"
            return self._result(
                StepOutcome.FAILED,
                f"exists already and is {whose}; when nothing needs it any more, delete it",
            )
        if self._has_got_to(SUCCEEDED):
            return self._remove(meta, now)
        if not self._has_got_to(CREATED):
            self._note(CREATED)
        failed = self._settings.failed
        if failed is not None:
            over, shown = shows(raw, failed)
            if over:
                return self._result(StepOutcome.FAILED, f"failed and is kept: {shown}")
        over, shown = shows(raw, self._settings.succeeded)
        if over and self._settings.clean_up:
            self._note(SUCCEEDED)
            return self._remove(meta, now)
        if over:
            return self._result(StepOutcome.SUCCEEDED, f"succeeded: {shown}")
        late = now >= self._run.deadline
        outcome = StepOutcome.FAILED if late else StepOutcome.RUNNING
        return self._result(outcome, f"has not succeeded yet: {shown}")

    def _remove(self, meta: Json, now: float) -> StepResult:
        """It succeeded: delete it, and wait until it is gone, but no longer than the step lasts."""
        if meta.get("deletionTimestamp") is None:
            options = {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": {"uid": as_name(meta.get("uid"))},
            }
            answer = self._api.write("DELETE", self.path, options)
            if answer.status != 404 and not answer.conflict:
                _check(answer)
        if now >= self._run.deadline:
            return self._result(StepOutcome.SUCCEEDED, "succeeded; its removal was not awaited")
        return self._result(StepOutcome.RUNNING, "succeeded, and is being removed", SOON)

    def _has_got_to(self, stage: str) -> bool:
        stages = (stage,) if stage == SUCCEEDED else (CREATED, SUCCEEDED)
        return noted(self._run) in stages

    def _note(self, stage: str) -> None:
        note(self._api, self._run, stage)

    def _result(self, outcome: StepOutcome, text: str, again_after: float = 5.0) -> StepResult:
        return StepResult(outcome, f"{self.what} {text}", again_after)


def _check(answer: Answer) -> None:
    """Raises ApiFailure for a refusal."""
    if not answer.ok:
        raise answer.failure()
