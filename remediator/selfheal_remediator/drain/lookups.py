"""What has to be read about a pod before a drain may decide about it, and when. Pure.

A drain reads its pods' volumes and DaemonSets when it begins, but pods also come later: of a
DaemonSet made since, or bound to the node past its cordon. What is not known of such a pod is
read before it is evicted. Until it is known the pod stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.drain.filters import (
    Surroundings,
    of_daemon_set,
    of_kept_owner,
    stays_by_taint,
)
from selfheal_remediator.kube.placement import Terms
from selfheal_remediator.kube.pods import Pod

#: Seconds until a read that failed is tried again: first, and longest.
FIRST_RETRY, LONGEST_RETRY = 1.0, 300.0
#: After so many failures in a row the node counts as drained without an answer: the pod stays, is
#: reported, and is still looked up.
GIVE_UP_WAITING = 3


class Subject(Enum):
    """What is looked up."""

    DAEMON_SET = "DaemonSet"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Question:
    """Whether the DaemonSet of this uid exists, or where the claim's volume can be used."""

    subject: Subject
    namespace: str
    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """exists: of a DaemonSet. terms, tied: of a claim's volume, the nodes that it can be used on
    (None = any), and whether no other node is among them."""

    exists: bool = False
    terms: Terms | None = None
    tied: bool = False


def questions(pod: Pod, around: Surroundings) -> list[Question]:
    """What is not known yet and decides about the pod."""
    if pod.mirror or pod.finished or of_kept_owner(pod, around.drain):
        return []
    if stays_by_taint(pod, around):
        return []
    if of_daemon_set(pod) and around.daemon_sets is not None:
        key = (pod.namespace, pod.owner_name, pod.owner_uid)
        if key in around.daemon_sets:
            return []
        if pod.owner_uid not in around.gone_daemon_sets:
            return [Question(Subject.DAEMON_SET, pod.namespace, pod.owner_name, pod.owner_uid)]
    if pod.deletion is not None:
        return []
    claims = {claim for claim in pod.claims if (pod.namespace, claim) not in around.claim_terms}
    return [Question(Subject.CLAIM, pod.namespace, claim) for claim in sorted(claims)]


def with_answer(around: Surroundings, question: Question, answer: Answer | None) -> Surroundings:
    """What is known with this answer; None = it could not be read."""
    if question.subject is Subject.DAEMON_SET:
        return _with_daemon_set(around, question, answer)
    claim = (question.namespace, question.name)
    if answer is None:
        return replace(around, unknown_claims=around.unknown_claims | {claim})
    local = around.local_claims - {claim}
    return replace(
        around,
        unknown_claims=around.unknown_claims - {claim},
        local_claims=local | {claim} if answer.tied else local,
        claim_terms={**around.claim_terms, claim: answer.terms},
    )


def _with_daemon_set(
    around: Surroundings, question: Question, answer: Answer | None
) -> Surroundings:
    uid = question.uid
    if answer is None:
        return replace(around, unknown_daemon_sets=around.unknown_daemon_sets | {uid})
    around = replace(around, unknown_daemon_sets=around.unknown_daemon_sets - {uid})
    if not answer.exists:
        # For good: no other DaemonSet ever gets its uid.
        return replace(around, gone_daemon_sets=around.gone_daemon_sets | {uid})
    known = around.daemon_sets or frozenset()
    return replace(around, daemon_sets=known | {(question.namespace, question.name, uid)})


@dataclass(slots=True)
class _Try:
    """awaited: its answer has not come."""

    awaited: bool = False
    failures: int = 0
    retry_at: float = 0.0


@dataclass(slots=True)
class Lookups:
    """The open questions of one drain."""

    _tries: dict[Question, _Try] = field(default_factory=dict)

    def keep(self, open_now: Iterable[Question]) -> None:
        """These are open; what is known of others is forgotten."""
        before = self._tries
        self._tries = {question: before.get(question) or _Try() for question in open_now}

    def due(self, now: float) -> tuple[Question, ...]:
        """The lookups to send now; they count as sent."""
        found = [q for q, one in self._tries.items() if not one.awaited and one.retry_at <= now]
        for question in found:
            self._tries[question].awaited = True
        return tuple(found)

    def answered(self, question: Question, now: float, *, failed: bool) -> None:
        """It was read, or that failed and is tried again, ever later."""
        one = self._tries.get(question)
        if one is None:
            return
        one.awaited = False
        if failed:
            one.failures += 1
            delay = delay_after(one.failures, first=FIRST_RETRY, longest=LONGEST_RETRY)
            one.retry_at = now + delay

    @property
    def pending(self) -> bool:
        """Whether an answer is worth waiting for before the node counts as drained."""
        return any(one.failures < GIVE_UP_WAITING for one in self._tries.values())

    @property
    def wake(self) -> float | None:
        """When the next lookup is due again."""
        moments = [one.retry_at for one in self._tries.values() if not one.awaited]
        return min(moments, default=None)
