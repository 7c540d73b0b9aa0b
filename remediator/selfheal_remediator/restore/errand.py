"""Carries out one action: all of it runs in a worker.

Everything is read again first, the ConfigMap last. What is applied is what the ConfigMap says then.
A server-side apply cannot be limited to objects that do not exist: where an upgrade changed the
ConfigMap meanwhile, what it says now is applied too. In a namespace that is being deleted the API
server makes nothing (its NamespaceLifecycle admission).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.json_values import as_list, as_name, as_object
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import Answer, understood
from selfheal_remediator.restore.engine import Action, Task
from selfheal_remediator.restore.live import Live, guards_of, live_of
from selfheal_remediator.restore.release import Kind, Release, Wanted, body, release_from_json
from selfheal_remediator.threads import supervision

#: So often an object is applied again because the ConfigMap changed meanwhile.
APPLIES = 3


class Outcome(Enum):
    """What became of an action; the value is the metric's label."""

    DONE = "done"
    DRY_RUN = "dry-run"
    #: Nothing was to be done any more; an uninstall or upgrade, a person or another leader did it.
    OVERTAKEN = "overtaken"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """uid: of the object; text: why it was not done, or what to do now, for people."""

    outcome: Outcome
    uid: str = ""
    text: str = ""


def carry_out(api: KubernetesApi, action: Action, begun: object) -> Result:
    """Do it. begun: the result of the fence when it was decided, see Transport.write."""
    wanted = action.wanted
    try:
        with supervision.expected("worker", f"restoring {wanted.key}", runtime=api.runtime):
            if action.task is Task.RESTORE:
                return _restore(api, action, begun)
            if action.task is Task.RELEASE:
                return _release(api, action, begun)
            return _correct(api, action, begun)
    except NotLeader:
        return Result(Outcome.OVERTAKEN, text="this process does not lead, or was stopped")
    except ApiFailure as failure:
        return Result(Outcome.FAILED, text=str(failure))


def _restore(api: KubernetesApi, action: Action, begun: object) -> Result:
    release, wanted = action.release, action.wanted
    if _read(api, release, wanted.kind, wanted.name) is not None:
        return Result(Outcome.OVERTAKEN, text=f"{wanted.key} exists again")
    applied: Wanted | None = None
    uid = ""
    for _ in range(APPLIES):
        fresh = _fresh(api, release)
        now_wanted = None if fresh is None else fresh.objects.get(wanted.key)
        if fresh is None or now_wanted is None:
            if applied is not None and fresh is not None:
                return Result(Outcome.DONE, uid, _UNWANTED.format(wanted.key))
            return Result(Outcome.OVERTAKEN, text=f"the release has no {wanted.key} any more")
        if applied is not None and applied.manifest == now_wanted.manifest:
            break
        answer = _apply(api, fresh, now_wanted, uid, begun)
        if answer.status == 409 and answer.conflict:
            return Result(Outcome.OVERTAKEN, text=f"{wanted.key} exists again")
        if not answer.ok:
            raise answer.failure()
        if api.dry_run:
            return Result(Outcome.DRY_RUN)
        uid, applied = _uid(answer, wanted), now_wanted
    return Result(Outcome.DONE, uid)


_UNWANTED = (
    "{} was made again in the same moment in which an upgrade took it out of the release: delete it"
)


def _apply(api: KubernetesApi, release: Release, wanted: Wanted, uid: str, begun: object) -> Answer:
    """Make it; uid: of the object that was made a moment ago, which is changed then."""
    made = body(release, wanted, guarded=True)
    if uid:
        made["metadata"]["uid"] = uid
    return api.apply(_path(release, wanted), made, release.manager, force=bool(uid), begun=begun)


def _release(api: KubernetesApi, action: Action, begun: object) -> Result:
    """Take the ConfigMap away as its owner."""
    release, wanted = action.release, action.wanted
    raw = _read_raw(api, release, wanted.kind, wanted.name)
    fresh = _fresh(api, release)
    if raw is None or fresh is None:
        return Result(Outcome.OVERTAKEN, text=f"{wanted.key} or its ConfigMap is gone")
    with understood(wanted.key):
        meta = as_object(raw["metadata"])
        owners = [as_object(owner) for owner in as_list(meta.get("ownerReferences"))]
        places = [at for at, owner in enumerate(owners) if owner.get("uid") == fresh.uid]
        if not places or fresh.uid not in guards_of(meta):
            return Result(Outcome.OVERTAKEN, text=f"{wanted.key} is not owned by its ConfigMap")
        at = f"/metadata/ownerReferences/{places[0]}"
        patch: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": as_name(meta["uid"])},
            {"op": "test", "path": f"{at}/uid", "value": fresh.uid},
            {"op": "remove", "path": at},
        ]
    answer = api.patch_object(_path(fresh, wanted), patch, begun=begun)
    if not answer.ok:
        raise answer.failure()
    return Result(Outcome.DRY_RUN if api.dry_run else Outcome.DONE, as_name(meta["uid"]))


def _correct(api: KubernetesApi, action: Action, begun: object) -> Result:
    """Set what differs, if it is still the same object and the release wants the same."""
    release, wanted = action.release, action.wanted
    live = _read(api, release, wanted.kind, wanted.name)
    fresh = _fresh(api, release)
    now_wanted = None if fresh is None else fresh.objects.get(wanted.key)
    same = live is not None and action.live is not None and live.uid == action.live.uid
    if live is None or not same or fresh is None or now_wanted is None:
        return Result(Outcome.OVERTAKEN, text=f"{wanted.key} was changed meanwhile")
    made = body(fresh, now_wanted, guarded=fresh.uid in live.guards)
    made["metadata"]["uid"] = live.uid
    answer = api.apply(_path(fresh, wanted), made, fresh.manager, force=True, begun=begun)
    if not answer.ok:
        raise answer.failure()
    return Result(Outcome.DRY_RUN if api.dry_run else Outcome.DONE, live.uid)


# -- fresh reads ------------------------------------------------------------------------------


def _fresh(api: KubernetesApi, release: Release) -> Release | None:
    """The ConfigMap as it is now; None where it is gone, going, another one, or switched off."""
    raw = api.config_map(release.namespace, release.config_map)
    if raw is None:
        return None
    fresh = release_from_json(raw)
    off = fresh.uid != release.uid or fresh.terminating or fresh.off
    return None if off else fresh


def _read_raw(api: KubernetesApi, release: Release, kind: Kind, name: str) -> Json | None:
    """The object as it is now; needs only the right to list."""
    selectors = {"fieldSelector": f"metadata.name={name}"}
    found = api.objects(kind.api, kind.plural, release.namespace, selectors)
    return next((raw for raws, _ in found.pages() for raw in raws), None)


def _read(api: KubernetesApi, release: Release, kind: Kind, name: str) -> Live | None:
    raw = _read_raw(api, release, kind, name)
    return None if raw is None else live_of(kind)(raw)


def _path(release: Release, wanted: Wanted) -> tuple[str, str, str, str]:
    """API version, plural, namespace, name."""
    return wanted.kind.api, wanted.kind.plural, release.namespace, wanted.name


def _uid(answer: Answer, wanted: Wanted) -> str:
    with understood(wanted.key):
        return as_name(as_object(answer.json()["metadata"])["uid"])
