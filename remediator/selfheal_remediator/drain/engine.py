"""Draining one node: which pods to evict now, what blocks, when to retry. Pure engine.

The caller feeds in pods (from a watch of the node), disruption budgets and the server's
answers, and carries out what `step` returns. Nothing is polled: an accepted eviction is over
when the watch reports that the pod is gone; a pod refused by its budget is retried when the
budget's status allows it, with a slow retry as a fallback.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from selfheal_remediator.drain.filters import Fate, Sorting, Surroundings, sort_pod
from selfheal_remediator.drain.lookups import Answer, Lookups, Question, questions, with_answer
from selfheal_remediator.drain.returns import Returns
from selfheal_remediator.drain.standstill import Standstill
from selfheal_remediator.kube.deletion_check import NOT_DELETED, DeletionCheck
from selfheal_remediator.kube.objects import Budget, Pod
from selfheal_remediator.kube.responses import EvictionResult, Outcome, budget_shortage
from selfheal_remediator.moments import earliest

#: Seconds of the slow retry: first, and longest. Budgets wake a pod up long before.
FALLBACKS = {
    Outcome.BUDGET: (30.0, 120.0),
    Outcome.PROCESSING: (2.0, 30.0),
    Outcome.SEVERAL_BUDGETS: (60.0, 300.0),
    Outcome.THROTTLED: (1.0, 10.0),
    Outcome.NAMESPACE: (5.0, 60.0),
    Outcome.WEBHOOK: (5.0, 60.0),
    Outcome.FORBIDDEN: (30.0, 300.0),
    Outcome.INVALID: (30.0, 300.0),
    Outcome.UNAVAILABLE: (0.5, 15.0),
}
#: A Retry-After of a webhook or a proxy counts for at most so long (seconds).
LONGEST_RETRY_AFTER = 300.0
#: Seconds past a pod's deletion time before it counts as stuck.
STUCK_AFTER = 30.0
#: A pod's grace where its deletion names none (the API's default), in seconds.
DEFAULT_GRACE = 30


def fallback(outcome: Outcome, times: int) -> float:
    """Seconds until it is tried again after so many refusals in a row, from 1 on."""
    first, longest = FALLBACKS[outcome]
    return min(longest, first * 2.0 ** min(times - 1, 10))


class Step(Enum):
    """How far one pod's eviction is."""

    IDLE = "idle"
    POSTED = "posted"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(slots=True)
class Eviction:
    """One pod that is to go."""

    pod: Pod
    sorting: Sorting
    step: Step = Step.IDLE
    outcome: Outcome | None = None
    message: str = ""
    retry_at: float = 0.0
    refusals: int = 0
    #: Of them in a row: those that came although the budget has room, as its watch says.
    overtaken: int = 0
    posts: int = 0
    #: Past the deadline its deletion was ordered.
    deleting: bool = False
    refused_since: float | None = None
    #: When it was first observed terminating, by our own clock; None = it is not.
    deletion_seen: float | None = None
    #: What decides about it is being read: it is not evicted before.
    unclear: bool = False
    check: DeletionCheck = field(default_factory=DeletionCheck)
    #: It had leave to stay until now: it was not put here past the cordon.
    stayed: bool = False
    #: Its owner put it here past the cordon: it goes once that is written down.
    returned: bool = False


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why pods remain, grouped: `cause` is a bounded label, `text` is for people."""

    cause: str
    text: str
    pods: tuple[str, ...]
    since: float


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do now: pods to evict (or, past the deadline, to delete), what to read about others
    before, of which to read whether they are deleted, when to retry."""

    evict: tuple[Pod, ...] = ()
    delete: tuple[Pod, ...] = ()
    done: bool = False
    wake: float | None = None
    new_wave: int | None = None
    look_up: tuple[Question, ...] = ()
    check: tuple[Pod, ...] = ()


@dataclass(slots=True)
class NodeDrain:
    """The drain of one node. `deadline` is our clock; `synced` once its pods are known."""

    node: str
    uid: str
    started: float
    deadline: float
    around: Surroundings
    synced: bool = False
    wave: int = -1
    evictions: dict[str, Eviction] = field(default_factory=dict)
    others: dict[str, tuple[Pod, Sorting]] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    evicted: int = 0
    posts: int = 0
    empty_dirs: int = 0
    #: It was empty once, and is watched on.
    after: bool = False
    returns: Returns = field(default_factory=Returns)
    lookups: Lookups = field(default_factory=Lookups)
    standstill: Standstill = field(default_factory=Standstill)
    _left: dict[str, Sorting] = field(default_factory=dict)
    deadline_reported: bool = False
    #: The time at the last step: pods that request to stay for a time are sorted by it.
    _now: float = float("-inf")

    # -- what is known ------------------------------------------------------------------

    def pod_changed(self, old: Pod | None, new: Pod | None, *, late: bool = False) -> None:
        """An event of this node's pod watch; late: not shown by the first list."""
        if new is None or new.node != self.node:
            if old is not None:
                self._gone(old.uid)
            return
        known = self.evictions.get(new.uid)
        sorting = self._left.get(new.uid) or sort_pod(new, self.around, self._now)
        unclear = bool(questions(new, self.around))
        first = known is None or known.unclear  # what is not clear was not counted yet
        unseen = first and not unclear and new.uid not in self.others and new.deletion is None
        unseen = unseen and not late  # it was here before
        returned = unseen and sorting.fate is Fate.EVICT and self._has_returned(new)
        if returned:
            sorting = self._came_again(new, sorting)
        if sorting.fate is not Fate.EVICT:
            self.evictions.pop(new.uid, None)
            self.others[new.uid] = (new, sorting)
            return
        _, before = self.others.pop(new.uid, (None, None))
        if known is None:
            stayed = before is not None and before.fate is Fate.STAY
            self.evictions[new.uid] = Eviction(new, sorting, unclear=unclear, stayed=stayed)
            self.empty_dirs += new.empty_dir
        else:
            known.pod, known.sorting, known.unclear = new, sorting, unclear
        self.evictions[new.uid].returned |= returned
        if new.deletion is not None:
            self.returns.lost(new)

    def _has_returned(self, pod: Pod) -> bool:
        """Whether its owner put it here past the cordon: after another one of its pods left."""
        known = self.returns.returned_before(pod)
        return self.after or known or (self.synced and self.returns.has_lost(pod))

    def _came_again(self, pod: Pod, sorting: Sorting) -> Sorting:
        """Its owner put it here despite the cordon; after repeated returns it is left alone."""
        why = self.returns.refused(pod, self.after)
        if not why:
            return sorting
        again = Sorting(Fate.STAY, why)
        self._left[pod.uid] = again
        return again

    def watch_on(self) -> None:
        """The node is drained: from now on only pods that return are evicted."""
        self.after = True
        self.deadline = float("inf")
        self.wave = -1

    def surroundings_changed(self, around: Surroundings) -> None:
        """Something beside the pods became known: sort them again."""
        self.around = around
        pods = [item.pod for item in self.evictions.values()]
        for pod in [*pods, *(pod for pod, _ in self.others.values())]:
            self.pod_changed(pod, pod)

    def looked_up(self, question: Question, answer: Answer | None, now: float) -> None:
        """The answer of a lookup about pods; None = it could not be read."""
        self.lookups.answered(question, now, failed=answer is None)
        self.surroundings_changed(with_answer(self.around, question, answer))

    def _open_questions(self) -> list[Question]:
        pods = [item.pod for item in self.evictions.values()]
        pods += [pod for pod, _ in self.others.values()]
        return [question for pod in pods for question in questions(pod, self.around)]

    def _gone(self, uid: str) -> None:
        self.others.pop(uid, None)
        self._left.pop(uid, None)
        item = self.evictions.pop(uid, None)
        if item is not None:
            self.returns.lost(item.pod)
            self.evicted += 1

    def budget_changed(self, budget: Budget, now: float, *, gone: bool = False) -> None:
        """A budget's status changed: pods that it blocked may be tried again."""
        before = self.budgets.pop(budget.uid, None)
        if not gone:
            self.budgets[budget.uid] = budget
        refused = [item for item in self.evictions.values() if item.step is Step.REFUSED]
        left_alone = [
            item
            for item in refused
            if before is not None
            and before.covers(item.pod)
            and (gone or not budget.covers(item.pod))
        ]
        for item in left_alone:
            item.retry_at = now
        if gone or not budget.current:
            return
        covered = [item for item in self.evictions.values() if budget.covers(item.pod)]
        room = budget.allowed - sum(item.step is Step.POSTED for item in covered)
        waiting = [
            item
            for item in covered
            if item.step is Step.REFUSED and item.outcome in (Outcome.BUDGET, Outcome.PROCESSING)
        ]
        waiting.sort(key=lambda item: (item.refused_since or 0.0, item.pod.name))
        for item in waiting[: max(0, room)]:
            item.retry_at = now

    def answered(self, uid: str, result: EvictionResult, now: float) -> None:
        """The server's answer to the eviction of the pod with this uid."""
        item = self.evictions.get(uid)
        if item is None:
            return
        item.outcome, item.message = result.outcome, result.message
        if result.outcome.over:
            item.step = Step.ACCEPTED
            item.check.accepted(now)
            return
        item.step = Step.REFUSED
        item.refusals += 1
        item.refused_since = item.refused_since if item.refused_since is not None else now
        delay = fallback(result.outcome, item.refusals)
        asked = min(result.retry_after or 0.0, LONGEST_RETRY_AFTER)
        item.retry_at = now + max(delay, asked)
        if result.outcome is Outcome.BUDGET and self._has_room(item.pod):
            # The budget opened between the server's refusal and now: the watch was faster.
            item.retry_at = now + 0.05 * 2.0 ** min(item.overtaken, 8)
            item.overtaken += 1
        else:
            item.overtaken = 0

    def not_probed(self, uid: str) -> None:
        """The eviction was never sent: it may be tried again."""
        item = self.evictions.get(uid)
        if item is None or item.step is not Step.POSTED:
            return
        item.step = Step.REFUSED if item.refusals or item.check.ignored else Step.IDLE
        item.posts -= 1
        self.posts -= 1

    def checked(self, uid: str, now: float, *, deleted: bool) -> None:
        """A pod whose eviction was accepted was read; deleted: it is being deleted, or gone."""
        item = self.evictions.get(uid)
        if item is None or item.step is not Step.ACCEPTED or item.pod.deletion is not None:
            return
        if deleted:
            item.check.deleted(now)
            return
        item.step = Step.REFUSED
        item.retry_at = item.check.not_deleted(now)
        item.refused_since = item.refused_since if item.refused_since is not None else now

    def _to_check(self, now: float) -> tuple[tuple[Pod, ...], float | None]:
        """Pods that should be deleted by now, and when to check for others."""
        waiting = [
            (item, item.check.check_at)
            for item in self.evictions.values()
            if item.step is Step.ACCEPTED and item.pod.deletion is None
        ]
        due = [item for item, moment in waiting if moment is not None and moment <= now]
        for item in due:
            item.check.asked()
        later = [moment for _, moment in waiting if moment is not None and moment > now]
        return tuple(item.pod for item in due), min(later, default=None)

    def _has_room(self, pod: Pod) -> bool:
        covering = [budget for budget in self.budgets.values() if budget.covers(pod)]
        return bool(covering) and all(b.allowed > 0 and b.current for b in covering)

    # -- what to do ---------------------------------------------------------------------

    def step(
        self,
        now: float,
        *,
        on_deadline: str = "wait",
        stopped: bool = False,
        dry_run: bool = False,
    ) -> Orders:
        """Orders for now; the pods in them count as posted. `stopped` = start nothing new;
        `dry_run` = what is accepted is not carried out."""
        if not self.synced:
            return Orders()
        self._now = now
        going = ((uid, item.pod.deletion is not None) for uid, item in self.evictions.items())
        self.standstill.look(frozenset(going), now)
        stopped = stopped or self.without_place(now)
        stay_until = self._sort_again(now)
        self.lookups.keep(self._open_questions())
        if stopped:
            return Orders() if self.evictions else self._empty()
        look_up = self.lookups.due(now)
        orders = self._orders(now, on_deadline) if self.evictions else self._empty()
        check, check_at = ((), None) if dry_run else self._to_check(now)
        wake = earliest(orders.wake, self.lookups.wake, check_at, stay_until)
        return replace(orders, look_up=look_up, check=check, wake=wake)

    def standing_since(self, now: float) -> float | None:
        """Since when nothing leaves and nothing that is left can, as far as is known; None = the
        drain makes progress, has no place, or needs none any more (past its deadline)."""
        if self.after or not self.synced or not self.evictions:
            return None
        if now >= self.deadline or self.without_place(now):
            return None
        stuck = all(self._is_stuck(item, now) for item in self._at_hand(now))
        return self.standstill.since(now, stuck=stuck and self._current_wave(now) <= self.wave)

    def without_place(self, now: float) -> bool:
        """Whether it gave its place to another drain; past its deadline none is needed."""
        return self.standstill.given_at is not None and now < self.deadline

    def asks_for_place_at(self, now: float) -> float | None:
        """When it is to get a place again, None = there is nothing that it could do with one."""
        left = [item for item in self._at_hand(now) if item.pod.deletion is None]
        begins = bool(self.evictions) and self._current_wave(now) > self.wave
        if not (left or begins) or not self.without_place(now):
            return None
        moves = any(not self._is_stuck(item, now) or self._has_room(item.pod) for item in left)
        return self.standstill.asks_at(changed=begins or moves)

    def _at_hand(self, now: float) -> list[Eviction]:
        """The pods that are to go now: without those that only wait for the waves before theirs."""
        if not self.evictions:
            return []
        current = self._current_wave(now)
        return [
            item
            for item in self.evictions.values()
            if item.sorting.wave <= current
            or item.step is not Step.IDLE
            or item.pod.deletion is not None
        ]

    def _is_stuck(self, item: Eviction, now: float) -> bool:
        """Whether nothing that is known moves the pod: overdue, refused, or ignored."""
        if item.pod.deletion is not None:
            seen = item.deletion_seen
            return seen is not None and now >= self._stuck_at(item, seen)
        tried = item.refusals > 0 or item.check.ignored > 0
        return tried and not item.unclear and item.step is not Step.IDLE

    def _sort_again(self, now: float) -> float | None:
        """Those whose time to stay is over; returns when the next one's is."""
        timed = [(pod, sorting.until) for pod, sorting in self.others.values()]
        for pod, until in timed:
            if until is not None and until <= now:
                self.pod_changed(pod, pod)
        later = [until for _, until in timed if until is not None and until > now]
        return min(later, default=None)

    def _orders(self, now: float, on_deadline: str) -> Orders:
        """What is to be done about the pods that are to go."""
        late = now >= self.deadline
        current = self._current_wave(now, late)
        if current > self.wave:
            # The caller reads the node afresh before a wave begins, then calls `begin_wave`.
            return Orders(new_wave=current)
        deleting = late and on_deadline == "delete"
        left = late and on_deadline == "report"  # the rest is left to a person
        evict: list[Pod] = []
        delete: list[Pod] = []
        wake = None if late or self.after else self.deadline
        for item in self._of_wave(current):
            if left and item.posts:
                continue
            if item.pod.deletion is not None and item.deletion_seen is not None:
                stuck_at = self._stuck_at(item, item.deletion_seen)
                wake = earliest(wake, stuck_at) if stuck_at > now else wake
            if item.pod.deletion is not None or item.step in (Step.POSTED, Step.ACCEPTED):
                continue
            if item.unclear or (item.returned and self.returns.unsaved):
                continue
            if deleting and not item.deleting:
                item.deleting, item.retry_at = True, now  # whatever refused its eviction
            if item.retry_at > now:
                wake = item.retry_at if wake is None else min(wake, item.retry_at)
                continue
            (delete if deleting else evict).append(item.pod)
            item.step = Step.POSTED
            item.posts += 1
            self.posts += 1
        return Orders(tuple(evict), tuple(delete), wake=wake)

    def _current_wave(self, now: float, late: bool = False) -> int:
        """The current wave: the next one starts when no pod of an earlier one blocks it."""
        waves = sorted({item.sorting.wave for item in self.evictions.values()})
        holding = {
            item.sorting.wave
            for item in self.evictions.values()
            if self._holds_wave(item, now, late)
        }
        for wave in waves:
            if wave > self.wave or wave in holding:
                return wave
        return waves[-1]

    def _holds_wave(self, item: Eviction, now: float, late: bool) -> bool:
        """Whether later waves wait for this pod.

        A terminating pod has its own grace period and STUCK_AFTER, measured from our observation,
        because the server's clock may differ. A refused pod has until the deadline; on a node that
        is already drained, which has none, nothing waits for it.
        """
        if item.pod.deletion is None:
            in_vain = item.step is Step.REFUSED or item.check.ignored > 0
            return not late and not (self.after and in_vain)
        if item.deletion_seen is None:
            item.deletion_seen = now
        return now < self._stuck_at(item, item.deletion_seen)

    @staticmethod
    def _stuck_at(item: Eviction, seen: float) -> float:
        grace = DEFAULT_GRACE if item.pod.grace is None else item.pod.grace
        return seen + grace + STUCK_AFTER

    def _empty(self) -> Orders:
        if self.after:
            self.wave = -1  # the next wave needs another fresh read of the node
        return Orders(done=not self.after and not self.lookups.pending)

    def begin_wave(self, wave: int) -> None:
        """The node was read afresh and is still to be drained."""
        self.wave = max(self.wave, wave)

    def _of_wave(self, wave: int) -> Iterable[Eviction]:
        return [item for item in self.evictions.values() if item.sorting.wave <= wave]

    # -- what to say --------------------------------------------------------------------

    @property
    def staying(self) -> tuple[tuple[Pod, str], ...]:
        """Pods that should go but may not, each with the reason."""
        return tuple(
            (pod, sorting.reason)
            for pod, sorting in self.others.values()
            if sorting.fate is Fate.STAY
        )

    @property
    def returned_too_often(self) -> frozenset[str]:
        """Why pods are left here that their owners put here again and again."""
        return frozenset(sorting.reason for sorting in self._left.values())

    def blockers(self, now: float) -> list[Blocker]:
        """What keeps the remaining pods here, the largest group first."""
        groups: dict[tuple[str, str], list[Eviction]] = {}
        for item in self.evictions.values():
            what = self._blocked_by(item, now)
            if what is not None:
                groups.setdefault(what, []).append(item)
        found = [
            Blocker(
                cause,
                text,
                tuple(sorted(item.pod.id for item in items)),
                min(item.refused_since or now for item in items),
            )
            for (cause, text), items in groups.items()
        ]
        return sorted(found, key=lambda blocker: -len(blocker.pods))

    def _blocked_by(self, item: Eviction, now: float) -> tuple[str, str] | None:
        pod = item.pod
        if pod.deletion is not None:
            seen = item.deletion_seen
            overdue = seen is not None and now >= self._stuck_at(item, seen)
            if not overdue and now <= pod.deletion + STUCK_AFTER:
                return None
            held = f", finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
            return ("terminating", f"terminating, overdue{held}")
        outcome = item.outcome
        if item.step is Step.REFUSED and outcome is not None and not outcome.over:
            cause = Outcome.BUDGET if outcome is Outcome.PROCESSING else outcome
            return (cause.value, self._refusal_text(item, outcome))
        return ("not-deleted", NOT_DELETED) if item.check.ignored else None

    def _refusal_text(self, item: Eviction, outcome: Outcome) -> str:
        names = ", ".join(sorted(b.id for b in self.budgets.values() if b.covers(item.pod)))
        if outcome is Outcome.SEVERAL_BUDGETS:
            return f"more than one PDB: {names or item.message}"
        if outcome in (Outcome.BUDGET, Outcome.PROCESSING):
            shortage = budget_shortage(item.message)
            return f"PDB {item.pod.namespace}/{shortage}" if shortage else f"PDB {names}"
        return item.message[:200] or outcome.value

    def causes(self, now: float) -> Counter[str]:
        """Number of pods by cause of blocking."""
        counts: Counter[str] = Counter()
        for blocker in self.blockers(now):
            counts[blocker.cause] += len(blocker.pods)
        return counts
