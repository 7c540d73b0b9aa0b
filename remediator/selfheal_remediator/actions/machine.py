"""The step `machine`: Cluster API replaces or remediates the Machine of the node.

Machines are in Cluster API's management cluster: this works where that is the cluster itself.

- how a deletion goes, the Node's included:
  https://cluster-api.sigs.k8s.io/tasks/automated-machine-management/machine_deletions
- whose Machines are replaced, which are skipped:
  https://cluster-api.sigs.k8s.io/tasks/automated-machine-management/healthchecking
- the annotation by which a MachineHealthCheck treats a Machine as unhealthy:
  https://github.com/kubernetes-sigs/cluster-api/blob/main/internal/controllers/machinehealthcheck/machinehealthcheck_targets.go
- external remediation, which repairs a Machine in place:
  https://github.com/kubernetes-sigs/cluster-api/blob/main/docs/proposals/20191030-machine-health-checking.md
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from selfheal_remediator.actions.step import StepOutcome, StepResult, StepRun
from selfheal_remediator.actions.step_object import note, noted, prepare
from selfheal_remediator.external_steps import MachineSettings
from selfheal_remediator.kube.client import CLUSTER_API, KubernetesApi
from selfheal_remediator.kube.json_values import (
    as_moment,
    as_name,
    as_object,
    as_objects,
    as_text,
    controller_of,
)
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.kube.transport import JSON

#: Of the Node: its Machine, and the namespace of its cluster, which is that of the Machine.
MACHINE, NAMESPACE = "cluster.x-k8s.io/machine", "cluster.x-k8s.io/cluster-namespace"
#: Of the Machine. Of the first only the presence counts for Cluster API; ours has the occurrence.
REMEDIATE = "cluster.x-k8s.io/remediate-machine"
PAUSED, SKIPPED = "cluster.x-k8s.io/paused", "cluster.x-k8s.io/skip-remediation"
#: What the Node says of a Machine that was marked, see step_object.py.
MARKED = "marked"
READ_EVERY, SOON = 10.0, 1.0
_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Machine:
    """The part of a Machine that a decision needs. id: `namespace/name`."""

    id: str
    uid: str
    version: str
    created: float | None
    deleting: bool
    annotations: Json
    #: (kind, API version) of its controller, None = it has none.
    controller: tuple[str, str] | None
    provider_id: str
    node: str
    phase: str
    checked: bool

    @property
    def path(self) -> str:
        """Its path below that of its API version."""
        namespace, _, name = self.id.partition("/")
        return f"namespaces/{quote(namespace)}/machines/{quote(name)}"


@dataclass(frozen=True, slots=True)
class NodeView:
    """What is known of the node; here: whether it is still there, as the one it was."""

    name: str
    here: bool
    machine: str
    namespace: str
    provider_id: str


class MachineStep:
    """See the module. A StepKind."""

    def __init__(self, api: KubernetesApi, settings: MachineSettings) -> None:
        self._api, self._settings = api, settings

    def advance(self, run: StepRun, now: float) -> StepResult:
        """Have the Machine deleted or remediated, or evaluate what became of it.

        Raises ApiFailure.
        """
        version = self._api.preferred_version(CLUSTER_API)
        if version is None:
            return StepResult(StepOutcome.FAILED, "Cluster API is not installed in this cluster")
        node = self._node(run)
        machine = self._find(version, node)
        if machine is not None and (machine.created or 0.0) > run.began:
            machine = None  # its successor, under the same name
        if machine is None:
            return _without_machine(node, run, now)
        if (problem := mismatch(machine, node)) or not node.here:
            text = problem or f"node {node.name} is gone, machine {machine.id} is not yet"
            outcome = StepOutcome.FAILED if problem else _unless_late(run, now)
            return StepResult(outcome, text, READ_EVERY)
        if machine.deleting:
            text = f"machine {machine.id} is being deleted, its phase is {machine.phase}"
            return StepResult(_unless_late(run, now), text, READ_EVERY)
        if self._settings.mode == "delete":
            return self._delete(version, machine, run, now)
        return self._remediate(version, machine, run, now)

    # -- reads --------------------------------------------------------------------------

    def _node(self, run: StepRun) -> NodeView:
        raw = self._api.get_if_there(f"/api/v1/nodes/{quote(run.node.name)}")
        with understood(f"node {run.node.name}"):
            meta = as_object(raw["metadata"]) if raw is not None else {}
            here = meta.get("uid") == run.node.uid
            marks = as_object(meta.get("annotations")) if here else run.node.annotations
            spec = as_object(raw.get("spec")) if raw is not None and here else {}
            return NodeView(
                name=run.node.name,
                here=here,
                machine=as_text(marks.get(MACHINE)),
                namespace=self._settings.namespace or as_text(marks.get(NAMESPACE)),
                provider_id=as_text(spec.get("providerID")),
            )

    def _find(self, version: str, node: NodeView) -> Machine | None:
        """By what the node says, else by what the Machines say."""
        if node.machine and node.namespace:
            place = f"namespaces/{quote(node.namespace)}/machines/{quote(node.machine)}"
            raw = self._api.get_if_there(f"/apis/{version}/{place}")
            return None if raw is None else machine_from_json(raw)
        machines = self._api.machines()
        raws = [] if machines is None else [raw for page, _ in machines.pages() for raw in page]
        found = [machine for machine in map(machine_from_json, raws) if _belongs(machine, node)]
        wanted = self._settings.namespace
        return next((one for one in found if not wanted or one.id.startswith(f"{wanted}/")), None)

    # -- writes -------------------------------------------------------------------------

    def _delete(self, version: str, machine: Machine, run: StepRun, now: float) -> StepResult:
        if (kept := _kept_from(machine, run)) is not None:
            return kept
        if now >= run.deadline:
            return StepResult(StepOutcome.FAILED, f"machine {machine.id} was not deleted in time")
        conditions = {"uid": machine.uid, "resourceVersion": machine.version}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}
        path = f"/apis/{version}/{machine.path}"
        return self._written("DELETE", path, body, machine, run, "is being deleted")

    def _remediate(self, version: str, machine: Machine, run: StepRun, now: float) -> StepResult:
        mark = machine.annotations.get(REMEDIATE)
        path = f"/apis/{version}/{machine.path}"
        # Repaired in place, as nothing but an external remediation does.
        repaired = run.node.ready and run.node.boot_id not in ("", run.boot_id)
        late = now >= run.deadline
        if mark == run.occurrence and (repaired or late):
            self._unmark(path, machine, run)
        if repaired:
            text = f"machine {machine.id} was remediated: the node has another boot id"
            return StepResult(StepOutcome.SUCCEEDED, text)
        if late:
            text = f"machine {machine.id} was not remediated in time"
            return StepResult(StepOutcome.FAILED, text)
        if mark is not None:
            who = "" if machine.checked else "; no MachineHealthCheck has checked it yet"
            text = f"machine {machine.id} is marked to be remediated{who}"
            if mark == run.occurrence and not noted(run):
                note(self._api, run, MARKED)
            return StepResult(StepOutcome.RUNNING, text, READ_EVERY)
        if noted(run):
            # By somebody who does not want it, or whose remediation has begun.
            text = f"machine {machine.id} is not marked to be remediated any more"
            return StepResult(StepOutcome.RUNNING, text, READ_EVERY)
        if (kept := _kept_from(machine, run)) is not None:
            return kept
        if not run.dry_run:
            prepare(self._api, run)
        key = REMEDIATE.replace("/", "~1")
        body: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": machine.uid},
            {"op": "test", "path": "/metadata/resourceVersion", "value": machine.version},
            {"op": "add", "path": f"/metadata/annotations/{key}", "value": run.occurrence},
        ]
        if not machine.annotations:
            body.insert(2, {"op": "add", "path": "/metadata/annotations", "value": {}})
        return self._written("PATCH", path, body, machine, run, "is marked to be remediated")

    def _unmark(self, path: str, machine: Machine, run: StepRun) -> None:
        """Nobody else removes the mark: the Machine would be remediated later, or again."""
        where = f"/metadata/annotations/{REMEDIATE.replace('/', '~1')}"
        body: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": machine.uid},
            {"op": "test", "path": where, "value": run.occurrence},
            {"op": "remove", "path": where},
        ]
        answer = self._api.write("PATCH", path, body, content_type=_PATCH, dry_run=run.dry_run)
        if not answer.ok:
            raise answer.failure()

    def _written(
        self, verb: str, path: str, body: object, machine: Machine, run: StepRun, text: str
    ) -> StepResult:
        kind = _PATCH if verb == "PATCH" else JSON
        answer = self._api.write(verb, path, body, content_type=kind, dry_run=run.dry_run)
        if answer.status == 404 or answer.conflict:
            changed = f"machine {machine.id} changed meanwhile"
            return StepResult(StepOutcome.RUNNING, changed, SOON)
        if not answer.ok:
            raise answer.failure()
        if run.dry_run:
            text = f"would be {text.removeprefix('is ').removeprefix('being ')}"
        again = READ_EVERY if verb == "DELETE" else SOON  # then it is noted
        return StepResult(StepOutcome.RUNNING, f"machine {machine.id} {text}", again)


@understood("a Machine")
def machine_from_json(raw: Json) -> Machine:
    """A Machine from the API's JSON. Raises Malformed."""
    meta, spec = as_object(raw["metadata"]), as_object(raw.get("spec"))
    status, owner = as_object(raw.get("status")), controller_of(meta)
    return Machine(
        id=f"{as_name(meta.get('namespace'))}/{as_name(meta.get('name'))}",
        uid=as_name(meta.get("uid")),
        version=as_name(meta.get("resourceVersion")),
        created=as_moment(meta.get("creationTimestamp")),
        deleting=meta.get("deletionTimestamp") is not None,
        annotations=as_object(meta.get("annotations")),
        controller=None if owner is None else owner[:2],
        provider_id=as_text(spec.get("providerID")),
        node=as_text(as_object(status.get("nodeRef")).get("name")),
        phase=as_text(status.get("phase")) or "unknown",
        checked=any(
            one.get("type") == "HealthCheckSucceeded"
            for one in as_objects(status.get("conditions"))
        ),
    )


def mismatch(machine: Machine, node: NodeView) -> str:
    """Why the Machine that the node names is not its own, empty = it is. Pure."""
    if machine.node and machine.node != node.name:
        return f"machine {machine.id} is that of node {machine.node}"
    if machine.provider_id and node.provider_id and machine.provider_id != node.provider_id:
        return (
            f"machine {machine.id} has the providerID {machine.provider_id}, "
            f"the node has {node.provider_id}"
        )
    return ""


def refusal(machine: Machine) -> str:
    """Why the Machine is neither deleted nor marked, empty = it may be. Pure.

    Only a MachineSet and a control plane replace a Machine that is gone; of a paused one nothing
    would be done.
    """
    name = f"machine {machine.id}"
    if PAUSED in machine.annotations:
        return f"{name} is paused ({PAUSED})"
    if SKIPPED in machine.annotations:
        return f"{name} is not to be remediated ({SKIPPED})"
    if machine.controller is None:
        return f"{name} has no owner that would replace it"
    kind, version = machine.controller
    group = version.rpartition("/")[0]
    if (kind, group) == ("MachineSet", CLUSTER_API) or group == f"controlplane.{CLUSTER_API}":
        return ""
    return f"{name} belongs to a {kind} ({version}), which may not replace it"


def _kept_from(machine: Machine, run: StepRun) -> StepResult | None:
    """How the step ends where it may not begin, None = it may."""
    if problem := refusal(machine):
        return run.withdrawn or StepResult(StepOutcome.FAILED, problem)
    return run.withdrawn


def _belongs(machine: Machine, node: NodeView) -> bool:
    if machine.node:
        return machine.node == node.name
    if node.provider_id:
        return machine.provider_id == node.provider_id
    return bool(node.machine) and machine.id.endswith(f"/{node.machine}")


def _without_machine(node: NodeView, run: StepRun, now: float) -> StepResult:
    if not node.here:
        return StepResult(StepOutcome.SUCCEEDED, f"node {node.name} and its machine are gone")
    if not node.machine:
        return StepResult(StepOutcome.FAILED, f"no machine belongs to node {node.name}")
    text = f"machine {node.machine} is gone, node {node.name} is not yet"
    return StepResult(_unless_late(run, now), text, READ_EVERY)


def _unless_late(run: StepRun, now: float) -> StepOutcome:
    return StepOutcome.FAILED if now >= run.deadline else StepOutcome.RUNNING
