"""Pods of a policy, also those that cannot be read. Pure.

What was read of such a pod before may be wrong by now: it counts as degraded, so it is neither
restarted nor evidence that pods are healthy. Its owner and node are read if they can be: it is one
of the pods that the owner desires.
"""

from __future__ import annotations

from contextlib import suppress

from selfheal_remediator.failures import Malformed
from selfheal_remediator.healing.pod_health import WatchedPod, watched_from_json
from selfheal_remediator.kube.decoding import Unread, moment_at
from selfheal_remediator.kube.json_values import as_object, as_text, controller_of
from selfheal_remediator.kube.objects import Json


def watched_or_unread(raw: Json) -> WatchedPod:
    """A pod from the API's JSON, also one that cannot be read.

    Raises Malformed when it does not say which pod it is.
    """
    try:
        return watched_from_json(raw)
    except Malformed as failure:
        unread = Unread.of(raw, failure)
        if not (unread.uid and unread.namespace and unread.name):
            raise
        kind, api, owner, owner_uid = _owner(raw)
        return WatchedPod(
            namespace=unread.namespace,
            name=unread.name,
            uid=unread.uid,
            version="",
            node=_node(raw),
            owner_kind=kind,
            owner_name=owner,
            owner_uid=owner_uid,
            owner_api=api,
            phase="Unknown",
            deletion=moment_at(raw, "deletionTimestamp"),
            finalizers=(),
            mirror=False,
            ready=False,
            created=moment_at(raw, "creationTimestamp") or 0.0,
            kept=False,
            ready_changed=None,
            waits_for_node="",
            address="",
            ports={},
            containers=(),
            unread=unread.problem,
        )


def _owner(raw: Json) -> tuple[str, str, str, str]:
    """As `controller_of`; empty = none, or it cannot be read."""
    with suppress(TypeError):
        return controller_of(as_object(raw["metadata"])) or ("", "", "", "")
    return "", "", "", ""


def _node(raw: Json) -> str:
    """The node's name; empty = none, or it cannot be read."""
    with suppress(TypeError):
        return as_text(as_object(raw.get("spec")).get("nodeName"))
    return ""
