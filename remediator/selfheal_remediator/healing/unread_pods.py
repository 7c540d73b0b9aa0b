"""Pods of a policy, also those that cannot be read. Pure.

What was read of such a pod before may be wrong by now: it counts as degraded, so it is neither
restarted nor evidence that pods are healthy.
"""

from __future__ import annotations

from selfheal_remediator.failures import Malformed
from selfheal_remediator.healing.pod_health import WatchedPod, watched_from_json
from selfheal_remediator.kube.decoding import Unread, moment_at
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
        return WatchedPod(
            namespace=unread.namespace,
            name=unread.name,
            uid=unread.uid,
            version="",
            node="",
            owner_kind="",
            owner_name="",
            owner_uid="",
            owner_api="",
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
