"""Draining one node: which pods to evict now, when to retry, when it is done. Pure.

The caller feeds in pods (from a watch of the node), disruption budgets and the server's
answers, and carries out what `step` returns. Nothing is polled. What is known of the pods is in
pods.py, how far each pod's eviction is in eviction.py, what blocks in blockers.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from selfheal_remediator.drain import blockers
from selfheal_remediator.drain.blockers import Blocker
from selfheal_remediator.drain.budgets import KnownBudgets
from selfheal_remediator.drain.eviction import SPARED_FOR, Eviction, Step
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.lookups import Answer, Lookups, Question, with_answer
from selfheal_remediator.drain.pods import NodePods
from selfheal_remediator.drain.returns import Returns
from selfheal_remediator.drain.standstill import Standstill
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import EvictionResult
from selfheal_remediator.moments import earliest


@dataclass(frozen=True, slots=True)
class Actions:
    """What to do now: pods to evict (or, past the deadline, to delete), what to read about others
    before, of which to read whether they are deleted, when to retry."""

    evict: tuple[Pod, ...] = ()
    delete: tuple[Pod, ...] = ()
    done: bool = False
    wake: float | None = None
    new_wave: int | None = None
    look_up: tuple[Question, ...] = ()
    check: tuple[Pod, ...] = ()


class NodeDrain:
    """The drain of one node. `deadline` is our clock; `synced` once its pods are known."""

    def __init__(
        self,
        node: str,
        uid: str,
        started: float,
        deadline: float,
        around: Surroundings,
        *,
        synced: bool = False,
    ) -> None:
        self.node, self.uid, self.started, self.deadline = node, uid, started, deadline
        self.pods = NodePods(node, replace(around, drain_began=started), synced)
        self.budgets = KnownBudgets()
        self.lookups = Lookups()
        self.standstill = Standstill()
        self.wave = -1
        self.posts = 0
        #: When it last had nothing to do but to wait for pods that complete.
        self.waited_at = float("-inf")
        #: Until then no pod is evicted: the cordon is to become known first (drain.delay).
        self.not_before = float("-inf")

    @property
    def evictions(self) -> Mapping[str, Eviction]:
        """The pods that are to go, by uid."""
        return self.pods.evictions

    @property
    def evicted(self) -> int:
        """How many pods have left."""
        return self.pods.evicted

    @property
    def returns(self) -> Returns:
        """Which owners put pods here again."""
        return self.pods.returns

    @property
    def after(self) -> bool:
        """It was empty once, and is watched on."""
        return self.pods.after

    @property
    def synced(self) -> bool:
        """Whether its pods are known."""
        return self.pods.synced

    @synced.setter
    def synced(self, value: bool) -> None:
        self.pods.synced = value

    # -- what is known ------------------------------------------------------------------

    def pod_changed(self, old: Pod | None, new: Pod | None, *, late: bool = False) -> None:
        """An event of this node's pod watch; late: not shown by the first list."""
        self.pods.changed(old, new, late=late)

    def watch_on(self) -> None:
        """The node is drained: from now on only pods that return are evicted."""
        self.pods.after = True
        self.pods.began(float("-inf"))
        self.deadline = float("inf")
        self.wave = -1

    def node_ready(self, ready: bool, now: float) -> bool:
        """Whether its node is Ready; returns whether that is news."""
        if ready is self.pods.around.ready:
            return False
        if self.pods.completing:
            self.wave = -1  # after a while the node is read afresh before they go
        self.pods.node_ready(ready, now)
        return True

    def surroundings_changed(self, around: Surroundings) -> None:
        """Something beside the pods became known: sort them again."""
        self.pods.surroundings_changed(around)

    def looked_up(self, question: Question, answer: Answer | None, now: float) -> None:
        """The answer of a lookup about pods; None = it could not be read."""
        self.lookups.answered(question, now, failed=answer is None)
        self.surroundings_changed(with_answer(self.pods.around, question, answer))

    def budget_changed(self, budget: Budget, now: float, *, gone: bool = False) -> None:
        """A budget's status changed: pods that it blocked may be tried again."""
        self.budgets.changed(budget, self.evictions.values(), now, gone=gone)

    def answered(self, uid: str, result: EvictionResult, now: float) -> None:
        """The server's answer to the eviction of the pod with this uid."""
        item = self.evictions.get(uid)
        if item is not None:
            item.answered(result, now, has_room=self.budgets.has_room(item.pod))

    def not_sent(self, uid: str) -> None:
        """The eviction was never sent: it may be tried again."""
        item = self.evictions.get(uid)
        if item is not None and item.not_sent():
            self.posts -= 1

    def checked(self, uid: str, now: float, *, deleted: bool) -> None:
        """A pod whose eviction was accepted was read; deleted: it is being deleted, or gone."""
        item = self.evictions.get(uid)
        if item is not None:
            item.read(now, deleted=deleted)

    # -- what to do ---------------------------------------------------------------------

    def step(
        self,
        now: float,
        *,
        on_deadline: str = "wait",
        stopped: bool = False,
        dry_run: bool = False,
        unrecorded: bool = False,
    ) -> Actions:
        """Actions for now; the pods in them count as posted. `stopped` = start nothing new;
        `dry_run` = what is accepted is not carried out; `unrecorded` = evict nothing yet, because
        it is not written down that the pods fit elsewhere."""
        if not self.synced:
            return Actions()
        waited_for = len(self.pods.completing)
        stay_until = self.pods.sort_again(now)
        if len(self.pods.completing) < waited_for:
            self.wave = -1  # after a while the node is read afresh before they go
        going = {(uid, item.terminating) for uid, item in self.evictions.items()}
        going |= {(pod.uid, False) for pod, _ in self.pods.completing}
        self.standstill.observe(frozenset(going), now)
        self.waited_at = now if self.only_waits else self.waited_at
        stopped = stopped or self.without_slot(now) or self.delayed(now)
        stopped = stopped or (unrecorded and bool(self.evictions))
        self.lookups.keep(self.pods.open_questions())
        if stopped:
            wake = earliest(stay_until, self.not_before if self.delayed(now) else None)
            return replace(Actions() if self.evictions else self._empty(), wake=wake)
        look_up = self.lookups.due(now)
        actions = self._actions(now, on_deadline) if self.evictions else self._empty()
        check, check_at = ((), None) if dry_run else self._to_check(now)
        wake = earliest(actions.wake, self.lookups.wake, check_at, stay_until)
        return replace(actions, look_up=look_up, check=check, wake=wake)

    def _empty(self) -> Actions:
        if self.after or self.only_waits:
            self.wave = -1  # the next wave needs another fresh read of the node
        done = not (self.after or self.only_waits or self.lookups.pending)
        return Actions(done=done)

    def _to_check(self, now: float) -> tuple[tuple[Pod, ...], float | None]:
        """Pods that should be deleted by now, and when to check for others."""
        waiting = [
            (item, item.check.check_at)
            for item in self.evictions.values()
            if item.step is Step.ACCEPTED and not item.terminating
        ]
        due = [item for item, moment in waiting if moment is not None and moment <= now]
        for item in due:
            item.check.begin_read()
        later = [moment for _, moment in waiting if moment is not None and moment > now]
        return tuple(item.pod for item in due), min(later, default=None)

    def _actions(self, now: float, on_deadline: str) -> Actions:
        """What is to be done about the pods that are to go."""
        late = now >= self.deadline
        current = self._current_wave(now, late=late)
        if current > self.wave:
            # The caller reads the node afresh before a wave begins, then calls `begin_wave`.
            return Actions(new_wave=current)
        deleting = late and on_deadline == "delete"
        left = late and on_deadline == "report"  # the rest is left to a person
        evict, delete = list[Pod](), list[Pod]()
        wake = None if late or self.after else self.deadline
        for item in self._of_wave(current):
            spared = late and item.spared(now)
            if spared and item.waited_until is not None and (deleting or left):
                wake = earliest(wake, item.waited_until + SPARED_FOR)
            if left and item.posts and not spared:
                continue
            if item.stuck_at is not None and item.stuck_at > now:
                wake = earliest(wake, item.stuck_at)
            if item.on_its_way or item.unclear or (item.returned and self.returns.unsaved):
                continue
            if deleting and not spared:
                item.delete_instead(now)
            elif item.surge.rolls(now):
                wake = earliest(wake, item.surge.left_until)
                continue
            if item.retry_at > now:
                wake = earliest(wake, item.retry_at)
                continue
            (delete if deleting and item.deleting else evict).append(item.pod)
            item.posted()
            self.posts += 1
        return Actions(evict=tuple(evict), delete=tuple(delete), wake=wake)

    # -- waves --------------------------------------------------------------------------

    def begin_wave(self, wave: int) -> None:
        """The node was read afresh and is still to be drained."""
        self.wave = max(self.wave, wave)

    def _current_wave(self, now: float, *, late: bool = False) -> int:
        """The current wave: the next one starts when no pod of an earlier one blocks it."""
        items = self.evictions.values()
        waves = sorted({item.sorting.wave for item in items})
        holding = {
            item.sorting.wave for item in items if item.holds_wave(now, late=late, after=self.after)
        }
        for wave in waves:
            if wave > self.wave or wave in holding:
                return wave
        return waves[-1]

    def _of_wave(self, wave: int) -> list[Eviction]:
        return [item for item in self.evictions.values() if item.sorting.wave <= wave]

    # -- whether it makes progress ------------------------------------------------------

    def standing_since(self, now: float) -> float | None:
        """Since when nothing leaves and nothing that is left can, as far as is known; None = the
        drain makes progress, has no slot, or needs none any more (past its deadline)."""
        if self.after or not self.synced or not (self.evictions or self.only_waits):
            return None
        if now >= self.deadline or self.without_slot(now):
            return None
        stuck = all(item.stuck(now) for item in self._at_hand(now))
        begun = self.only_waits or self._current_wave(now) <= self.wave
        return self.standstill.since(now, stuck=stuck and begun)

    def delayed(self, now: float) -> bool:
        """Whether its node was cordoned too recently for the first eviction."""
        return not self.after and now < self.not_before

    def without_slot(self, now: float) -> bool:
        """Whether it gave its slot to another drain; past its deadline none is needed."""
        return self.standstill.yielded_at is not None and now < self.deadline

    def requests_slot_at(self, now: float) -> float | None:
        """When it is to get a slot again, None = there is nothing that it could do with one."""
        left = [item for item in self._at_hand(now) if not item.terminating]
        begins = bool(self.evictions) and self._current_wave(now) > self.wave
        if not (left or begins) or not self.without_slot(now):
            return None
        moves = any(not item.stuck(now) or self.budgets.has_room(item.pod) for item in left)
        return self.standstill.requests_at(changed=begins or moves)

    def _at_hand(self, now: float) -> list[Eviction]:
        """The pods that are to go now: without those that only wait for the waves before theirs."""
        if not self.evictions:
            return []
        current = self._current_wave(now)
        return [
            item
            for item in self.evictions.values()
            if item.sorting.wave <= current or item.step is not Step.IDLE or item.terminating
        ]

    @property
    def only_waits(self) -> bool:
        """Whether all that is left may complete by itself: its deadline waits, too."""
        return self.synced and not self.evictions and bool(self.pods.completing)

    # -- what to say --------------------------------------------------------------------

    @property
    def staying(self) -> tuple[tuple[Pod, str], ...]:
        """Pods that should go but may not, each with the reason."""
        return self.pods.staying

    @property
    def returned_too_often(self) -> frozenset[str]:
        """Why pods are left here that their owners put here again and again."""
        return self.pods.returned_too_often

    def blockers(self, now: float) -> list[Blocker]:
        """What keeps the remaining pods here, the largest group first."""
        return blockers.blockers(self.evictions.values(), self.budgets, now)

    def causes(self, now: float) -> Counter[str]:
        """Number of pods by cause of blocking."""
        return blockers.causes(self.blockers(now))
