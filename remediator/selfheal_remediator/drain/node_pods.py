"""The pods of a node that is to be emptied. Pure.

A pod that cannot be read is on the node all the same: it stays, and is reported, so that the node
does not count as empty.
"""

from __future__ import annotations

from selfheal_remediator.failures import ApiFailure, Json, Malformed
from selfheal_remediator.kube.decoding import Unread, moment_at
from selfheal_remediator.kube.objects import Capacity
from selfheal_remediator.kube.pods import Pod, pod_from_json


def node_pod_from_json(raw: Json) -> Pod:
    """A Pod from the API's JSON, also one that cannot be read.

    Raises ApiFailure when it does not say which pod it is: then the whole list counts as not read.
    """
    try:
        return pod_from_json(raw)
    except Malformed as failure:
        unread = Unread.of(raw, failure)
        if not (unread.uid and unread.namespace and unread.name):
            raise ApiFailure(0, "Unidentified", str(failure)) from failure
        return _unread_pod(raw, unread)


def _unread_pod(raw: Json, unread: Unread) -> Pod:
    return Pod(
        namespace=unread.namespace,
        name=unread.name,
        uid=unread.uid,
        version="",
        node="",
        labels={},
        owner_kind="(unread)",
        owner_name="",
        owner_uid="",
        owner_api="",
        phase="Unknown",
        deletion=moment_at(raw, "deletionTimestamp"),
        grace=None,
        finalizers=(),
        mirror=False,
        empty_dir=False,
        claims=(),
        priority=0,
        keep_reason=unread.problem,
        pinned=False,
        ready=False,
        requests=Capacity(0, 0, 1),
        node_selector={},
        tolerations=(),
    )
