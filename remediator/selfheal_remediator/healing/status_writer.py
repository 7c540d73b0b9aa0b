"""Writes the policies' statuses, so that the next leader continues from them.

The methods marked so run in a worker, all others on the main thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.policy import Policy, Status, policy_from_json
from selfheal_remediator.healing.term import Term
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import version_number
from selfheal_remediator.kube.json_values import as_name
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import is_conflict, understood
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Purpose, Workers

log = logging.getLogger(__name__)

#: Between two writes of a status in which only numbers changed; else it is written at once.
STATUS_EVERY = 10.0
#: A write that failed is tried again ever later, at the latest after so many seconds.
LONGEST_RETRY = 60.0
#: Seconds between two writes of one status, at least.
SOONEST = 1.0


@dataclass(slots=True)
class Written:
    """What was last written of a policy's status, and when the next write may be.

    busy: a write is under way. failures: how many in a row failed. restores: how often the server
    went back in time (etcd was restored) meanwhile: what was written before that counts for
    nothing.
    """

    status: Status | None = None
    again: float = 0.0
    busy: bool = False
    failures: int = 0
    restores: int = 0


class StatusWriter:
    """The statuses of all policies, by the policy's key."""

    def __init__(
        self,
        api: KubernetesApi,
        workers: Workers,
        term: Term,
        healing: Healing,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._workers, self._term = api, workers, term
        self._healing, self._clock = healing, clock
        self._written: dict[str, Written] = {}

    # -- policies -----------------------------------------------------------------------

    def restored(self, key: str) -> None:
        """etcd was restored: what was written is gone, and is written again."""
        written = self._of(key)
        written.status, written.again = None, 0.0
        written.restores += 1

    def forget(self, key: str) -> None:
        """The policy was deleted."""
        self._written.pop(key, None)

    # -- restarts, which write the status themselves -------------------------------------

    def begin_restart(self, key: str) -> int:
        """A restart will write the status; returns the restores until now."""
        written = self._of(key)
        written.busy = True
        return written.restores

    def end_restart(self, policy: Policy, status: Status, version: str, restores: int) -> None:
        """What the restart wrote over this version of the policy, the same version = nothing."""
        written = self._written.get(policy.key)
        if written is None:
            return
        written.busy = False
        if version != policy.version and written.restores == restores:
            self._note(policy, written, status, version)

    # -- writing ------------------------------------------------------------------------

    def write_due(self, now: float) -> float | None:
        """Begin the writes that are due; returns when others will be."""
        wakes = []
        for key, policy_state in self._healing.policy_states.items():
            status, written = policy_state.status, self._of(key)
            if status is None or written.busy or policy_state.pending or status == written.status:
                continue
            if not policy_state.history_known and policy_state.policy.history_lost == "status":
                continue  # whatever is written would take its place
            opens = written.again - STATUS_EVERY + SOONEST
            if written.failures or _only_numbers(written.status, status):
                opens = written.again
            if now < opens:
                wakes.append(opens)
                continue
            written.busy = True
            # What cannot be read is left for a person to repair.
            document = status.to_json() if policy_state.history_known else status.state_json()
            write = partial(self._write, policy_state.policy, status, document, written.restores)
            # Writes that hang leave room for the reads of others.
            self._workers.submit(write, Purpose.LOOKUPS, "statuses")
        return min(wakes, default=None)

    def _write(self, policy: Policy, status: Status, document: Json, restores: int) -> None:
        """In a worker."""
        version, failure = "", None
        try:
            what, runtime = f"the status of policy {policy.key}", self._workers.runtime
            with supervision.expected("worker", what, runtime=runtime):
                answer = self._api.patch_policy_status(
                    policy.namespace, policy.name, policy.version, document
                )
            if answer.ok:
                with understood("a HealingPolicy"):
                    version = as_name(answer.json()["metadata"]["resourceVersion"])
            else:
                failure = answer.failure()
                if is_conflict(failure):
                    version = self._version_now(policy)
        except ApiFailure as error:
            failure = error
        self._term.post(partial(self._settled, policy, status, version, failure, restores))

    def _version_now(self, policy: Policy) -> str:
        """In a worker: which version there is, empty = of another policy of this name. After a
        restore the watch need not tell. Raises ApiFailure."""
        what, runtime = f"the read of policy {policy.key}", self._workers.runtime
        with supervision.expected("worker", what, runtime=runtime):
            fresh = policy_from_json(self._api.policy(policy.namespace, policy.name))
        return fresh.version if fresh.uid == policy.uid else ""

    def _settled(
        self,
        policy: Policy,
        status: Status,
        version: str,
        failure: ApiFailure | None,
        restores: int,
    ) -> None:
        written = self._written.get(policy.key)
        policy_state = self._healing.policy_states.get(policy.key)
        if written is None or policy_state is None or policy_state.policy.uid != policy.uid:
            return  # it was deleted, or recreated under its name
        written.busy = False
        if written.restores != restores:
            return  # written again: it may have been written before the restore
        written.again = self._clock() + STATUS_EVERY
        conflict = failure is not None and is_conflict(failure)
        written.failures = 0 if failure is None or conflict else written.failures + 1
        if written.failures:
            pause = delay_after(written.failures, first=SOONEST, longest=LONGEST_RETRY)
            written.again = self._clock() + pause
        if failure is None:
            self._note(policy, written, status, "" if self._api.dry_run else version)
        elif not conflict:
            log.warning("the status of policy %s cannot be written: %s", policy.key, failure)
        elif version and policy_state.policy.version == policy.version:
            policy_state.policy = replace(policy_state.policy, version=version)

    def _note(self, policy: Policy, written: Written, status: Status, version: str) -> None:
        """The status was written over this version of the policy; what version that made."""
        written.status = status
        policy_state = self._healing.policy_states.get(policy.key)
        if version and policy_state is not None:
            same = policy_state.policy.version == policy.version
            later = version if same else later_version(policy_state.policy.version, version)
            policy_state.policy = replace(policy_state.policy, version=later)

    def _of(self, key: str) -> Written:
        return self._written.setdefault(key, Written())


def later_version(known: str, version: str) -> str:
    """Of two resourceVersions of one object, with no restore between them, the later one.

    Only for the precondition of a write: one that is wrong is refused, and read again.
    """
    return known if version_number(version) < version_number(known) else version


def _only_numbers(before: Status | None, now: Status) -> bool:
    """Whether nothing but counts and the list of pods differs."""
    if before is None:
        return False
    return (before.state, before.observed, before.records, before.restarts) == (
        now.state,
        now.observed,
        now.records,
        now.restarts,
    )
