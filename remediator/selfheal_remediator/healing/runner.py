"""Carries out what `engine` decides: watches policies and their pods, probes, evicts, reports.

All methods run on the main loop's thread while this process leads; threads started here only
call the API or pods and pass the results to `post`. Nothing is kept beyond a term of
leadership: the next leader reads the policies' status.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from selfheal_remediator.config import Config
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.owner_reads import SOON, OwnerReads
from selfheal_remediator.healing.owners import owner_of
from selfheal_remediator.healing.permits import Permit
from selfheal_remediator.healing.plan import (
    RECALLED,
    Around,
    Finding,
    Notice,
    Owner,
    RestartAction,
)
from selfheal_remediator.healing.pod_health import WatchedPod, watched_from_json
from selfheal_remediator.healing.policy import Policy, Status, policy_from_json
from selfheal_remediator.healing.progress_probe import NoAnswer, ProgressProbe
from selfheal_remediator.healing.progress_reports import Probe
from selfheal_remediator.healing.restart_check import CAUSE, REASON, RestartChecks
from selfheal_remediator.healing.restart_limits import changed, unrecorded
from selfheal_remediator.healing.when_installed import WhenInstalled
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.custom_resources import GROUP, KIND, VERSION
from selfheal_remediator.kube.events import ObjectEvent
from selfheal_remediator.kube.informer import (
    WATCH_LOST,
    Change,
    Reflector,
    version_number,
)
from selfheal_remediator.kube.objects import as_name
from selfheal_remediator.kube.responses import (
    Outcome,
    budget_shortage,
    classify_eviction,
    understood,
)
from selfheal_remediator.moments import earliest
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.randomness import RANDOM
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)

#: An owner is read at least so often (seconds).
OWNER_EVERY = 600.0
#: Between two writes of a status in which only numbers changed; else it is written at once.
STATUS_EVERY = 10.0
#: Writes of a status before an eviction, when somebody else changed the policy meanwhile.
CONFLICTS = 3


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the loop lends: who says Events, and what it knows of nodes."""

    say: Callable[[ObjectEvent], None]
    node_trouble: Callable[[str], str]
    node_path: Callable[[str], bool]
    restarted: Callable[[RestartAction], None]
    refused: Callable[[str], None]
    asked: Callable[[str], None]
    gone: Callable[[str], None]


@dataclass(slots=True)
class Watch:
    """The pods of one policy; `stop` ends it."""

    policy: Policy
    source: Collection
    reflector: Reflector[WatchedPod]
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Written:
    """What was last written of a policy's status, and when the next write may be.

    restores: how often the server went back in time (etcd was restored) meanwhile: what was
    written before that counts for nothing.
    """

    status: Status | None = None
    again: float = 0.0
    busy: bool = False
    restores: int = 0


@dataclass(frozen=True, slots=True)
class Errand:
    """A restart on its way, with all of the main thread's state that it needs."""

    order: RestartAction
    policy: Policy
    permit: Permit
    term: int
    dry_run: bool
    restores: int


class Healer:
    """Pod healing under all policies; see the module."""

    def __init__(
        self,
        api: KubernetesApi,
        config: Config,
        workers: Workers,
        post: Post,
        callbacks: Callbacks,
        clock: Callable[[], float],
    ) -> None:
        self._api, self.config, self._workers, self._post = api, config, workers, post
        self._callbacks, self._clock = callbacks, clock
        self._askers = Workers(config.policies.progress_concurrency)
        self._progress_probe = ProgressProbe(config.policies.progress_timeout)
        self.healing = self._made()
        #: Counts terms of leadership: what comes from an earlier one is not heard.
        self._term = 0
        self._stop = threading.Event()
        self._sources: list[Collection] = []
        self._watches: dict[str, Watch] = {}
        self._written: dict[str, Written] = {}
        self._owner_reads = OwnerReads()
        self._checks = RestartChecks()
        #: Restarts on their way, by policy, owner and moment.
        self._permits: dict[tuple[str, str, float], Permit] = {}
        self._unlisted = 0
        self._reported_absent = False

    # -- beginning and ending -----------------------------------------------------------

    def begin(self) -> None:
        """This process leads from now on."""
        self.end()
        settings = self.config.policies
        if not settings.enabled:
            return
        self._stop = threading.Event()
        if settings.progress_concurrency != self._askers.limit:  # their threads do not end
            self._askers = Workers(settings.progress_concurrency)
        self._progress_probe = ProgressProbe(settings.progress_timeout)
        self.healing = self._made()
        namespaces, term = settings.namespaces or ("",), self._term
        self._unlisted = len(namespaces)
        for namespace in namespaces:
            source = self._api.policies(namespace)
            self._sources.append(source)
            reflector = Reflector(
                WhenInstalled(source, self._absent),
                policy_from_json,
                lambda policy: policy.key,
                lambda change: self._notified_in(term, lambda: self._policy_changed(change)),
                lambda: self._notified_in(term, self._policies_known),
                lambda failure: log.warning("policies: %s", failure),
                self._stop,
            )
            supervision.start("policies", reflector.run, self._stop)

    def end(self) -> None:
        """Nothing more is done; what was known is forgotten."""
        self._term += 1
        self._stop.set()
        self._recall("", "it was decided in an earlier term of leadership or configuration")
        for source in self._sources:
            source.close()
        for key in list(self._watches):
            self._end_watch(key)
        self._sources.clear()
        self._written.clear()
        self._owner_reads.clear()
        self._checks.clear()
        self.healing = self._made()
        self._unlisted = 1

    @property
    def listed(self) -> bool:
        """Whether all policies are known that apply."""
        return self._unlisted <= 0 or not self.config.policies.enabled

    @property
    def known(self) -> bool:
        """Whether everything that can be known of the policies and their pods is known.

        A policy that cannot be read, or whose pods cannot be listed, does not block reports
        about the others; and without any policy there is nothing to know.
        """
        if not self.config.policies.enabled:
            return True
        policy_states = self.healing.policy_states.values()
        return self._unlisted <= 0 and all(
            policy_state.known or policy_state.problem for policy_state in policy_states
        )

    def _made(self) -> Healing:
        settings = self.config.policies
        return Healing(settings.evaluation_interval, rollout_deadline=settings.rollout_deadline)

    def _notified_in(self, term: int, job: Callable[[], None]) -> None:
        """Run the job on the main thread, if it is still the same term then."""
        self._post(lambda: job() if self._term == term else None)

    def _absent(self) -> None:
        """In the watch's thread: the CustomResourceDefinition is not there."""
        if not self._reported_absent:
            self._reported_absent = True
            log.warning(
                "HealingPolicies are disabled: the CustomResourceDefinition healingpolicies.%s is "
                "not installed (kubectl apply --server-side -f chart/crds); nodes are still "
                "remediated",
                GROUP,
            )

    # -- policies and their pods ----------------------------------------------------------

    def _policies_known(self) -> None:
        self._unlisted -= 1

    def _policy_changed(self, change: Change[Policy]) -> None:
        policy = change.new
        if policy is None:
            if change.key in self.healing.policy_states:
                log.info("policy %s was deleted", change.key)
            self._recall(change.key, "its policy was deleted")
            self.healing.drop(change.key)
            self._written.pop(change.key, None)
            self._end_watch(change.key)
            self._callbacks.gone(change.key)
            return
        known = self.healing.policy_states.get(policy.key)
        if change.restored:
            written = self._written.setdefault(policy.key, Written())
            written.status, written.again = None, 0.0  # it is gone: written again
            written.restores += 1
        elif known is not None and known.policy.uid == policy.uid:
            policy = replace(policy, version=_later(known.policy.version, policy.version))
        self.healing.adopt(policy, self._clock())
        watch = self._watches.get(policy.key)
        if watch is not None and (watch.policy.uid, watch.policy.selector) == (
            policy.uid,
            policy.selector,
        ):
            return
        self._end_watch(policy.key)
        if watch is not None:
            self.healing.selector_changed(policy.key, self._clock())
        if policy.problem:
            log.warning("policy %s: %s", policy.key, policy.problem)
            self.healing.pods_unknown(policy.key, policy.problem, self._clock())
        else:
            log.info("policy %s selects the pods %s", policy.key, policy.selector)
            self._begin_watch(policy)

    def _begin_watch(self, policy: Policy) -> None:
        stop, key = threading.Event(), policy.key
        source = self._api.pods_labelled(policy.namespace, policy.selector)

        def on_main(job: Callable[[], None]) -> None:
            self._post(lambda: job() if self._is_watch(key, stop) else None)

        def failed(failure: ApiFailure) -> None:
            log.warning("pods of policy %s: %s", key, failure)
            text = f"its pods cannot be watched: {failure}"
            on_main(lambda: self._unlisted_pods(key, text))

        reflector = Reflector(
            source,
            watched_from_json,
            lambda pod: pod.name,
            lambda change: on_main(lambda: self._pod_changed(key, change)),
            lambda: on_main(lambda: self.healing.pods_known(key)),
            failed,
            stop,
        )
        self._watches[key] = Watch(policy, source, reflector, stop)
        supervision.start("policy-pods", reflector.run, stop)

    def _unlisted_pods(self, key: str, text: str) -> None:
        policy_state = self.healing.policy_states.get(key)
        if policy_state is not None and not policy_state.known:
            self.healing.pods_unknown(key, text, self._clock())

    def _mind_watches(self, now: float) -> None:
        """Nothing is restarted by outdated observations."""
        for key, watch in self._watches.items():
            if self.healing.policy_states[key].known:
                age = time.monotonic() - watch.reflector.last_contact
                lost = f"the watch of its pods has been silent for {WATCH_LOST:g}s"
                self.healing.pods_unknown(key, lost if age > WATCH_LOST else "", now)

    def _is_watch(self, key: str, stop: threading.Event) -> bool:
        watch = self._watches.get(key)
        return watch is not None and watch.stop is stop

    def _end_watch(self, key: str) -> None:
        watch = self._watches.pop(key, None)
        if watch is not None:
            watch.stop.set()
            watch.source.close()

    def _pod_changed(self, key: str, change: Change[WatchedPod]) -> None:
        self.healing.pod_changed(key, change)
        pod = change.new or change.old
        if pod is not None and pod.owner_uid and (change.old is None or change.new is None):
            self._owner_reads.changed(pod, self._clock())

    # -- acting -------------------------------------------------------------------------

    def advance(self, now: float, *, stopped: str) -> float | None:
        """Evaluate, and start the restarts; returns when to evaluate again."""
        if not self.config.policies.enabled:
            return None
        self._mind_watches(now)
        trouble, path = self._callbacks.node_trouble, self._callbacks.node_path
        plan = self.healing.evaluate(now, Around(trouble, path, stopped, self._unlisted <= 0))
        for order, skip_reason in plan.recalls:
            permit = self._permits.get(_key(order))
            if permit is not None and permit.recall(skip_reason):
                log.debug(
                    "%s: %s not restarted: %s", order.policy, order.pod.name, skip_reason.text
                )
        for notice in plan.notices:
            self._say(notice)
        for ask in plan.probes:
            self._ask(ask)
        for pod in plan.lookups:
            self._owner_reads.needed(pod, now)
        for order in plan.orders:
            self._submit(order)
        self._read_owners(now)
        checks, check_at = self._checks.due(self.healing.policy_states.values(), now)
        for policy_state, pod in checks:
            self._check_restarted(policy_state.policy, pod)
        written = self._write_statuses(now)
        return earliest(plan.wake, self._owner_reads.wake, check_at, written)

    @property
    def findings(self) -> Mapping[str, Finding]:
        """Nodes on which pods of several owners are unhealthy."""
        return self.healing.findings

    def _ask(self, ask: Probe) -> None:
        term, asker = self._term, self._progress_probe

        def job() -> None:
            asked = self._clock()
            reading, result = None, "answered"
            try:
                with supervision.expected("worker", f"the probe of {ask.address}", NoAnswer):
                    reading = asker.ask(ask.address, ask.port, ask.path, asked)
            except (NoAnswer, ApiFailure) as error:
                result = "silent"
                log.debug("%s %s: progress probe failed: %s", ask.policy, ask.address, error)
            self._callbacks.asked(result)
            self._notified_in(
                term, lambda: self.healing.answered(ask.policy, ask.uid, reading, asked)
            )

        self._askers.submit(job)

    # -- owners -------------------------------------------------------------------------

    def _read_owners(self, now: float) -> None:
        for pod in self._owner_reads.due(now):
            if self.healing.retire(pod.owner_uid):
                self._owner_reads.forget(pod.owner_uid)
            else:
                self._read_owner(pod)

    def _read_owner(self, pod: WatchedPod) -> None:
        term = self._term
        # Reads that hang, again and again, leave room for those of other owners.
        key = "failing" if self._owner_reads.failures(pod.owner_uid) else ""

        def job() -> None:
            owner, failure = None, None
            try:
                with supervision.expected("worker", f"the read of the owner of {pod.name}"):
                    owner = self._owner_of(pod)
            except ApiFailure as error:
                failure = error
            self._notified_in(term, lambda: self._owner_read(pod, owner, failure))

        self._workers.submit(job, Purpose.LOOKUPS, key)

    def _owner_read(self, pod: WatchedPod, owner: Owner | None, failure: ApiFailure | None) -> None:
        uid, now = pod.owner_uid, self._clock()
        if failure is not None:
            if not self.healing.has_pods_of(uid) and uid not in self.healing.owners:
                self._owner_reads.forget(uid)  # no longer needed
                return
            delay = self._owner_reads.failed(uid, now)
            log.warning(
                "the owner of pod %s/%s cannot be read, tried again in %.0fs: %s",
                *(pod.namespace, pod.name, delay, failure),
            )
            return
        self.healing.owner_known(uid, owner)
        if owner is None:
            self._owner_reads.forget(uid)
            return
        # Spread, so that all that was read at the start is not read again at once.
        again = OWNER_EVERY * RANDOM.uniform(0.7, 1.0)
        if owner.rolling or owner.stopped:
            again = max(SOON, self.config.policies.evaluation_interval)
        self._owner_reads.done(uid, now + again)

    def _owner_of(self, pod: WatchedPod) -> Owner | None:
        """In a worker: what stands behind the pod now; None = it is gone. Raises ApiFailure."""
        return owner_of(pod, self._api.controller)

    # -- restarting -----------------------------------------------------------------------

    def _submit(self, order: RestartAction) -> None:
        policy = self.healing.policy_states[order.policy].policy
        written = self._written.setdefault(order.policy, Written())
        written.busy = True
        errand = Errand(order, policy, Permit(), self._term, self._api.dry_run, written.restores)
        self._permits[_key(order)] = errand.permit

        def job() -> None:
            version, skip_reason = policy.version, None
            try:
                with supervision.expected("worker", f"the restart of {order.pod.name}"):
                    version, skip_reason = self._carry_out(errand)
            except NotLeader:
                skip_reason = SkipReason("not-leader", "the lease is not held")
            except ApiFailure as failure:
                skip_reason = SkipReason("unavailable", str(failure))
            self._notified_in(errand.term, lambda: self._carried_out(errand, version, skip_reason))

        self._workers.submit(job, Purpose.RESTARTS, order.policy)

    def _carry_out(self, errand: Errand) -> tuple[str, SkipReason | None]:
        """In a worker: (the policy's resourceVersion, why the pod was surely not evicted).

        First a dry-run eviction is sent; then the restart is recorded; then, unless it was
        cancelled meanwhile, the pod is evicted. Raises ApiFailure if it failed before the
        eviction was sent.
        """
        order, policy, permit = errand.order, errand.policy, errand.permit
        pod, version = order.pod, policy.version
        if permit.recalled is not None:
            return version, permit.recalled
        owner = self._owner_of(pod)
        if owner is None:
            return version, SkipReason("owner-gone", "its owner was deleted")
        self._notified_in(errand.term, lambda: self.healing.owner_known(pod.owner_uid, owner))
        skip_reason = changed(order, owner, self._clock()) or _blocked(
            self._api, order, dry_run=True
        )
        if skip_reason is None and errand.dry_run:
            text = f"dry-run: {pod.name} would be restarted: {order.why}"
            skip_reason = SkipReason("dry-run", text, float("inf"))
        skip_reason = skip_reason or permit.recalled
        if skip_reason is not None:
            return version, skip_reason
        version, skip_reason = self._write_down(order, policy)
        if skip_reason is not None:
            return version, skip_reason
        try:
            return version, permit.take() or _blocked(self._api, order, dry_run=False)
        except NotLeader:
            return version, SkipReason("not-leader", "the lease is not held")

    def _recall(self, policy: str, why: str) -> None:
        """Call back what is on its way under the policy, empty = under all."""
        for (key, *_), permit in self._permits.items():
            if not policy or key == policy:
                permit.recall(SkipReason(RECALLED, why))
        if not policy:
            self._permits.clear()

    def _write_down(self, order: RestartAction, policy: Policy) -> tuple[str, SkipReason | None]:
        """The restart into the status. Raises ApiFailure.

        Returns the new resourceVersion, and a Block when the status did not keep what it must.
        """
        version, status = policy.version, order.status.to_json()
        for attempt in range(1, CONFLICTS + 1):
            answer = self._api.patch_policy_status(policy.namespace, policy.name, version, status)
            if answer.ok:
                with understood("a HealingPolicy"):
                    raw = answer.json()
                    version = as_name(raw["metadata"]["resourceVersion"])
                    return version, unrecorded(order, raw.get("status"))
            if answer.status != 409 or attempt == CONFLICTS:
                break
            fresh = policy_from_json(self._api.policy(policy.namespace, policy.name))
            if (fresh.uid, fresh.generation) != (policy.uid, policy.generation):
                break  # its spec has changed: decided again at the next evaluation
            version = fresh.version
        raise answer.failure()

    def _carried_out(self, errand: Errand, version: str, skip_reason: SkipReason | None) -> None:
        order, now = errand.order, self._clock()
        self._permits.pop(_key(order), None)
        written, policy_state = (
            self._written.get(order.policy),
            self.healing.policy_states.get(order.policy),
        )
        if written is None or policy_state is None or policy_state.policy.uid != errand.policy.uid:
            # Deleted meanwhile, or recreated under its name: the new one has restarted nothing.
            done = "restarted" if skip_reason is None else f"not restarted: {skip_reason.text}"
            log.info("%s: %s %s; the policy was deleted", order.policy, order.pod.name, done)
            return
        written.busy = False
        if version != errand.policy.version and written.restores == errand.restores:
            self._note_written(errand.policy, written, order.status, version)
        if skip_reason is None:
            log.info("%s: restarted %s: %s", order.policy, order.pod.name, order.why)
            self._callbacks.restarted(order)
            self.healing.accepted(order, now)
            self._checks.accepted(errand.policy.uid, order.pod.uid, now)
            return
        if skip_reason.cause != RECALLED:
            self._callbacks.refused(skip_reason.cause)
        log.info("%s: %s not restarted: %s", order.policy, order.pod.name, skip_reason.text)
        self.healing.refused(order, skip_reason, now)

    def _check_restarted(self, policy: Policy, pod: WatchedPod) -> None:
        """Read whether the pod is being deleted, as its eviction was accepted a while ago."""
        term = self._term

        def job() -> None:
            deleted = True
            try:
                with supervision.expected("worker", f"the read of pod {pod.name}"):
                    deleted = self._is_deleted(pod)
            except ApiFailure as failure:
                log.warning("%s: %s, which was restarted: %s", policy.key, pod.name, failure)
            self._notified_in(term, lambda: checked(deleted))

        def checked(deleted: bool) -> None:
            now, policy_state = self._clock(), self.healing.policy_states.get(policy.key)
            again = self._checks.answered(policy.uid, pod.uid, now, deleted=deleted)
            if (
                again is not None
                and policy_state is not None
                and policy_state.policy.uid == policy.uid
            ):
                self.healing.not_deleted(policy.key, pod.uid, again, now)

        self._workers.submit(job, Purpose.LOOKUPS)

    def _is_deleted(self, pod: WatchedPod) -> bool:
        """In a worker: whether the pod is gone, or on its way. Raises ApiFailure."""
        found = self._api.pod(pod.namespace, pod.name)
        if found is None:
            return True
        with understood("a pod"):
            meta = found["metadata"]
            return meta["uid"] != pod.uid or bool(meta.get("deletionTimestamp"))

    # -- reporting ------------------------------------------------------------------------

    def _write_statuses(self, now: float) -> float | None:
        wakes = []
        for key, policy_state in self.healing.policy_states.items():
            status = policy_state.status
            written = self._written.setdefault(key, Written())
            if status is None or written.busy or policy_state.pending or status == written.status:
                continue
            if _only_numbers(written.status, status) and now < written.again:
                wakes.append(written.again)
                continue
            if now < written.again - STATUS_EVERY + 1.0:
                wakes.append(written.again - STATUS_EVERY + 1.0)
                continue
            written.busy = True
            self._write_status(policy_state.policy, status, written.restores)
        return min(wakes, default=None)

    def _write_status(self, policy: Policy, status: Status, restores: int) -> None:
        term = self._term

        def job() -> None:
            version, failure = "", None
            try:
                with supervision.expected("worker", f"the status of policy {policy.key}"):
                    answer = self._api.patch_policy_status(
                        policy.namespace, policy.name, policy.version, status.to_json()
                    )
                if answer.ok:
                    with understood("a HealingPolicy"):
                        version = as_name(answer.json()["metadata"]["resourceVersion"])
                else:
                    failure = answer.failure()
                    if answer.status == 409:
                        version = self._version_now(policy)
            except ApiFailure as error:
                failure = error
            self._notified_in(
                term, lambda: self._status_written(policy, status, version, failure, restores)
            )

        self._workers.submit(job, Purpose.LOOKUPS)

    def _version_now(self, policy: Policy) -> str:
        """In a worker: which version there is, empty = of another policy of this name. After a
        restore the watch need not tell. Raises ApiFailure."""
        with supervision.expected("worker", f"the read of policy {policy.key}"):
            fresh = policy_from_json(self._api.policy(policy.namespace, policy.name))
        return fresh.version if fresh.uid == policy.uid else ""

    def _status_written(
        self,
        policy: Policy,
        status: Status,
        version: str,
        failure: ApiFailure | None,
        restores: int,
    ) -> None:
        written, policy_state = (
            self._written.get(policy.key),
            self.healing.policy_states.get(policy.key),
        )
        if written is None or policy_state is None or policy_state.policy.uid != policy.uid:
            return  # it was deleted, or recreated under its name
        written.busy = False
        if written.restores != restores:
            return  # written again: it may have been written before the restore
        written.again = self._clock() + STATUS_EVERY
        if failure is None:
            self._note_written(policy, written, status, "" if self._api.dry_run else version)
        elif failure.status != 409:
            log.warning("the status of policy %s cannot be written: %s", policy.key, failure)
        elif version and policy_state.policy.version == policy.version:
            policy_state.policy = replace(policy_state.policy, version=version)

    def _note_written(self, policy: Policy, written: Written, status: Status, version: str) -> None:
        """The status was written over this version of the policy; what version that made."""
        written.status = status
        policy_state = self.healing.policy_states.get(policy.key)
        if version and policy_state is not None:
            same = policy_state.policy.version == policy.version
            later = version if same else _later(policy_state.policy.version, version)
            policy_state.policy = replace(policy_state.policy, version=later)

    def _say(self, notice: Notice) -> None:
        policy_state = self.healing.policy_states.get(notice.policy)
        if policy_state is None:
            return
        policy, owner = policy_state.policy, notice.owner
        if notice.reason == REASON:
            self._callbacks.refused(CAUSE)
        log.log(
            logging.WARNING if notice.warning else logging.INFO,
            "%s: %s: %s",
            notice.policy,
            notice.reason,
            notice.message,
        )
        said = (notice.reason, notice.message, notice.warning)
        api = f"{GROUP}/{VERSION}"
        self._callbacks.say(
            ObjectEvent(api, KIND, policy.namespace, policy.name, policy.uid, *said)
        )
        if owner is not None:
            self._callbacks.say(
                ObjectEvent(owner.api, owner.kind, policy.namespace, owner.name, owner.uid, *said)
            )


def _blocked(api: KubernetesApi, order: RestartAction, *, dry_run: bool) -> SkipReason | None:
    """Send the eviction (or a dry run of it); the reason if it was certainly not made.

    Raises NotLeader; ApiFailure only for a dry run: an eviction without an answer may have been
    made, and counts as made.
    """
    pod = order.pod
    try:
        with supervision.expected("worker", f"the eviction of {pod.name}"):
            answer = api.evict(pod.namespace, pod.name, pod.uid, order.grace, dry_run=dry_run)
            result = classify_eviction(answer)
    except NotLeader:
        raise
    except ApiFailure:
        if dry_run:
            raise
        return None
    if result.outcome is Outcome.ACCEPTED or (
        not dry_run and result.outcome is Outcome.UNAVAILABLE
    ):
        return None
    text = result.message[:300]
    if result.outcome is Outcome.BUDGET:
        shortage = budget_shortage(result.message)
        text = f"PDB {pod.namespace}/{shortage}" if shortage else text
    return SkipReason(result.outcome.value, text)


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


def _key(order: RestartAction) -> tuple[str, str, float]:
    return order.policy, order.owner.uid, order.at


def _later(known: str, version: str) -> str:
    """Of two resourceVersions of one object, with no restore between them, the later one.

    Only for the precondition of a write: one that is wrong is refused, and read again.
    """
    return known if version_number(version) < version_number(known) else version
