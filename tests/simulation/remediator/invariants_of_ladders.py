"""What must hold of the steps of ladders; see `invariants`. Quotations are of docs/features.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from selfheal_remediator.actions.job import NODE_ANNOTATION, OCCURRENCE_ANNOTATION
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import EXCLUDE_KEY, STEP_OBJECT_KEY, Phase, State
from selfheal_remediator.node.drain_request import drain_request
from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json
from tests.simulation.cluster.store import Change, Stored
from tests.simulation.remediator.invariants import Watcher
from tests.simulation.remediator.invariants_of_pods import SKEW
from tests.simulation.remediator.ladder_faults import begins_step
from tests.simulation.remediator.others import MARKS
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.process import NAMESPACE
from tests.simulation.remediator.states import state_of
from tests.simulation.remediator.world import World

#: Phases after a drain.
OF_LADDER = frozenset({Phase.REPAIRING, Phase.VERIFYING, Phase.REPAIR_FAILED})
#: VolumeAttachments are read so often (seconds), and an answer may be so late.
VOLUMES_READ = 15.0
#: Seconds after its timeout by which a step has ended: an API server that does not answer is asked
#: for 300 s more.
ENDED = 400.0


@dataclass(slots=True)
class Ladders:
    """See the module. made: the occurrences of which there was a Job; steps: the Jobs (names) by
    the node (uid), its occurrence, and the number of the step. attached: since when a volume is
    attached to a node (name)."""

    world: World
    watcher: Watcher
    made: set[str] = field(default_factory=set)
    steps: dict[tuple[str, int, int], str] = field(default_factory=dict)
    attached: dict[str, float] = field(default_factory=dict)

    @classmethod
    def watch(cls, world: World, watcher: Watcher) -> Ladders:
        """It watches from now on."""
        made = cls(world, watcher)
        for raw in world.cluster.store.all("volumeattachments"):
            made.attached[raw["spec"]["nodeName"]] = world.simulation.now
        world.cluster.store.subscribe(made.changed)
        world.cluster.store.on_restore(made.restored)
        return made

    def restored(self) -> None:
        """etcd has gone back in time: what was written down of steps since then is lost."""
        self.made.clear()
        self.steps.clear()

    def changed(self, change: Change) -> None:
        """The store has changed."""
        ours = change.by in self.watcher.replicas
        if change.key[0] == "volumeattachments":
            node = str(change.last["spec"]["nodeName"])
            if change.new is None:
                self.attached.pop(node, None)
            else:
                self.attached.setdefault(node, self.world.simulation.now)
        elif change.key[:2] == ("jobs", NAMESPACE) and change.old is None and ours:
            self._job(change)
        elif change.key[0] == "nodes" and ours and change.old is not None and change.new:
            if begins_step(change):
                self._begins(change, change.old, change.new)
            if _uncordons(change.old, change.new):
                self._check_uncordon(change, change.old, change.new)

    # -- a step begins ---------------------------------------------------------------------

    def _job(self, change: Change) -> None:
        """ "No step is begun twice." """
        marks = change.last["metadata"]["annotations"]
        name, node = marks[OCCURRENCE_ANNOTATION], marks[NODE_ANNOTATION]
        raw = self.world.cluster.store.get("nodes", "", node)
        annotations = {} if raw is None else raw["metadata"].get("annotations") or {}
        # Of one that is deleted before the Node names it nobody knows.
        about, _, noted = annotations.get(STEP_OBJECT_KEY, "").partition(" ")
        if name in self.made and about == name and noted:
            self._fail("steps_run_once", f"{change.by} makes Job {change.key[2]} again")
        self.made.add(name)
        state = None if raw is None else state_of(raw)
        if raw is None or state is None or state.phase is not Phase.REPAIRING:
            return
        key = raw["metadata"]["uid"], state.first_seen, state.steps
        if self.steps.setdefault(key, change.key[2]) != change.key[2]:
            what = f"{change.by} makes another Job for step {state.steps} of {node}"
            self._fail("steps_run_once", what)

    def _begins(self, change: Change, old: Stored, new: Stored) -> None:
        before, after, name = state_of(old), state_of(new), change.key[2]
        if before is None or after is None or self._doubtful:
            return
        if before.phase not in (Phase.DRAINED, Phase.REPAIRING):
            # "The first step begins when the node is drained".
            what = f"{change.by} begins step {after.steps} on {name}, which is {before.phase.value}"
            self._fail("steps_follow_the_drain", what)
        if after.steps != before.steps + 1 or before.step_runs:
            # "run one after the other".
            what = f"{change.by} begins step {after.steps} on {name} after {before.steps}"
            self._fail("steps_come_in_order", f"{what}, which runs: {before.step_runs}")
        self._check_alone(change.by, old)
        since = self.attached.get(name)
        volumes = before.steps == 0 and since is not None
        if volumes and since is not None and self.world.simulation.now - since > VOLUMES_READ:
            # "no VolumeAttachment names it".
            what = f"{change.by} begins the ladder of {name}, to which a volume is attached"
            self._fail("volumes_are_detached_first", what)
        self._check_number(change.by)

    def _check_alone(self, by: str, node: Json) -> None:
        """ "While another system changes the node, while a person requests its drain, or while it
        is excluded, no step begins." A write is of the node as it was read."""
        annotations = node["metadata"].get("annotations") or {}
        taints = {taint["key"] for taint in node["spec"].get("taints") or ()}
        found = [EXCLUDE_KEY] if EXCLUDE_KEY in annotations else []
        request = drain_request(node_from_json(node))
        if request is not None and request.keeps(self.world.cluster.store.clock() + SKEW):
            found.append(request.text)
        found += sorted(taints & set(MARKS))
        if found:
            what = f"{by} begins a step on {node['metadata']['name']}, which has {found}"
            self._fail("steps_wait_for_others", what)

    def _check_number(self, by: str) -> None:
        """ "`limits.maxRepairing` (1) is the number of nodes on which steps are run at a time."
        Nobody sees the end of one on an excluded node: there it counts until its timeout."""
        running = [raw["metadata"]["name"] for raw in self._nodes() if self._counts(raw)]
        allowed = self.world.config.limits.max_repairing
        if len(running) > allowed:
            self._fail("max_repairing", f"{by} begins a step: {running} have one, {allowed} may")

    def _counts(self, raw: Json) -> bool:
        state = state_of(raw)
        if state is None or not _runs(state):
            return False
        over = state.step_began + self._limit(state) - SKEW < self.world.cluster.store.clock()
        return not (over and EXCLUDE_KEY in (raw["metadata"].get("annotations") or {}))

    # -- a node is uncordoned ----------------------------------------------------------------

    def _check_uncordon(self, change: Change, old: Stored, new: Stored) -> None:
        before, after, name = state_of(old), state_of(new), change.key[2]
        asked = any("uncordon" in one.arguments for one in self.world.console.outcomes)
        healed = after is None or after.phase is Phase.HEALED
        if before is None or not healed or asked or self._doubtful:
            return
        if _runs(before) and self._job_runs(name):
            # "A step under way, other than `wait`, is not cut short by a recovery".
            what = f"{change.by} uncordons {name} while step {before.steps} is under way"
            self._fail("steps_end_before_the_uncordon", what)
        rule = self.world.config.rule_marked(before.rule)
        verified = before.phase is Phase.VERIFYING and before.step_ended and not before.step_failed
        if rule is not None and rule.verify is not None and not verified:
            # "a node that recovered stays cordoned until" it is verified.
            what = f"{change.by} uncordons {name}, {before.phase.value}, which was not verified"
            self._fail("verified_before_the_uncordon", what)

    def _job_runs(self, node: str) -> bool:
        jobs = self.world.cluster.store.all("jobs", NAMESPACE)
        return any(
            raw["metadata"]["annotations"][NODE_ANNOTATION] == node and not _finished(raw)
            for raw in jobs
        )

    # -- at the end --------------------------------------------------------------------------

    def settled(self) -> Iterator[Problem]:
        """What does not hold though nothing has gone wrong for long."""
        now = self.world.cluster.store.clock()
        events = self.world.cluster.store.all("events")
        for raw in self._nodes():
            state, name = state_of(raw), raw["metadata"]["name"]
            if state is None or EXCLUDE_KEY in (raw["metadata"].get("annotations") or {}):
                continue
            limit = self._limit(state)
            if state.step_runs and limit and now - state.step_began > limit + ENDED:
                # "A step that has not succeeded within its `timeout` (10m) has failed."
                what = f"{name}: step {state.steps} runs for {now - state.step_began:.0f} s"
                yield Problem("steps_end", f"{what}, though its timeout is {limit:g} s")
            about = {e["reason"] for e in events if e["involvedObject"].get("name") == name}
            if state.phase is Phase.REPAIR_FAILED and "RepairFailed" not in about:
                yield Problem("failed_ladders_are_reported", f"no Event says that of {name}")

    def _limit(self, state: State) -> float:
        rule = self.world.config.rule_marked(state.rule)
        if rule is None:
            return 0.0
        if state.phase is Phase.VERIFYING:
            return rule.verify.timeout if rule.verify is not None else 0.0
        return rule.then[state.steps - 1].limit if 0 < state.steps <= len(rule.then) else 0.0

    def _nodes(self) -> list[Stored]:
        return self.world.cluster.store.all("nodes")

    @property
    def _doubtful(self) -> bool:
        """Whether etcd has just gone back in time."""
        return self.world.simulation.now < self.watcher.doubtful_until

    def _fail(self, invariant: str, what: str) -> None:
        self.watcher.fail(invariant, what)


def _runs(state: State | None) -> bool:
    return state is not None and state.phase is Phase.REPAIRING and state.step_runs


def _finished(job: Json) -> bool:
    return bool(conditions.status_of(job, "Complete") or conditions.status_of(job, "Failed"))


def _uncordons(old: Stored, new: Stored) -> bool:
    return bool(old["spec"].get("unschedulable")) and not new["spec"].get("unschedulable")
