"""The cluster under load: what faults act on, and what says whether all is healthy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ci.chaos import invariants
from ci.cluster import Cluster, node, processes
from ci.demo import pods
from ci.demo.kube import CommandFailed, Kube
from ci.demo.mailbox import Mailbox
from ci.demo.world import World

Object = dict[str, Any]
FOREIGN = "somebody-elses"
_BATCH = 40
_EVERY = 8.0
_LOOK_EVERY = 2.0
_DEAD_LETTERS_EVERY = 15.0


@dataclass
class Stage:
    """`published` ids are those that the broker has confirmed; `poison` those of them that no
    worker can answer. `by_hand` names the nodes that a human has cordoned now."""

    kube: Kube
    cluster: Cluster
    world: World
    mailbox: Mailbox
    namespace: str
    release: str
    install: list[str]
    published: set[str] = field(default_factory=set)
    poison: set[str] = field(default_factory=set)
    by_hand: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)
    _batches: int = 0
    _confirmed: int = 0
    _hurry: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)

    # -- what there is ------------------------------------------------------------------

    def component(self, name: str) -> list[dict[str, Any]]:
        """The release's pods of a component that run, by name."""
        found = pods.labelled(self.world["pods"].values(), self.release, name)
        running = [p for p in found if pods.is_ready(p) and not _pretended(p)]
        return sorted(running, key=lambda p: str(p["metadata"]["name"]))

    def pods_named(self, namespace: str, prefix: str) -> list[dict[str, Any]]:
        """Ready pods of a namespace whose names begin alike."""
        return [
            p
            for key, p in sorted(self.world["pods"].items())
            if key.startswith(f"{namespace}/{prefix}") and pods.is_ready(p)
        ]

    def execute(self, pod: dict[str, Any], *command: str) -> str:
        """A command in a pod's first container."""
        meta = pod["metadata"]
        return self.kube.kubectl("-n", meta["namespace"], "exec", meta["name"], "--", *command)

    def kill(self, pod: dict[str, Any]) -> None:
        """SIGKILL to the first container of the pod, as the kernel would."""
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        command = node.ctr(
            self.cluster.layout,
            pods.node_of(pod),
            *("tasks", "kill", "--signal", "SIGKILL", container),
        )
        done = processes.run(self.cluster.layout, command)
        if done.returncode:
            raise CommandFailed(f"kill {pod['metadata']['name']}: {done.stderr.strip()}")

    # -- load and watching --------------------------------------------------------------

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Messages all the time, and an observation of the nodes at each of their changes."""
        threads = [
            threading.Thread(target=target, daemon=True) for target in (self._load, self._watch)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._hurry.set()
            for thread in threads:
                thread.join(60)

    def _load(self) -> None:
        while not self._stopped.is_set():
            self._hurry.clear()
            self.publish()
            self._hurry.wait(_EVERY)

    def publish(self) -> None:
        """One batch, one message of it malformed; tried until the broker has confirmed all."""
        self._batches += 1
        prefix = f"b{self._batches}"
        ids = [f"{prefix}-m{number}" for number in range(_BATCH - 1)]
        text = "The parcel came late and the lid was broken, but the colour is great."
        lines = [json.dumps({"id": key, "text": f"{text} {key}"}) for key in ids]
        poison = f"{prefix}-{_BATCH}"  # named by its line
        lines.append('{"text": "the lid is brok')
        while not self._stopped.is_set():
            try:
                self.mailbox.publish(lines, id_prefix=prefix, raw=True)
            except CommandFailed:
                self._stopped.wait(1.0)
                continue
            self.published |= {*ids, poison}
            self.poison.add(poison)
            self._confirmed = self._batches
            return

    def _watch(self) -> None:
        while not self._stopped.is_set():
            for said in invariants.violations(self.world["nodes"], FOREIGN, self.by_hand):
                if said not in self.seen:
                    self.seen.append(said)
            with self.world.changed:
                self.world.changed.wait(1.0)

    # -- healthy again? ------------------------------------------------------------------

    def recover(self, patience: float) -> tuple[float | None, list[str]]:
        """Seconds until all published before now and a batch of after now are accounted for, and
        every node and pod is back; None and what is missing when that does not come."""
        started = time.monotonic()
        batch, left = self._batches + 1, ["nothing could be published after the fault"]
        self._hurry.set()
        letters: set[str] = set()
        letters_at = started
        while time.monotonic() - started < patience:
            left = [] if self._confirmed >= batch else left[:1]
            open_ = self.published - self.poison - self.mailbox.answered("") - letters
            if not left and open_:
                left = [f"{len(open_)} messages have no answer, such as {min(open_)}"]
                if time.monotonic() - letters_at > _DEAD_LETTERS_EVERY:
                    letters |= self._letters()
                    letters_at = time.monotonic()
            if not left:
                left = self._missing()
            if not left:
                return time.monotonic() - started, []
            with self.world.changed:
                self.world.changed.wait(_LOOK_EVERY)
            time.sleep(0.2)
        return None, left

    def _letters(self) -> set[str]:
        try:
            return {str(one["message_id"]) for one in self.mailbox.dead_letters()}
        except CommandFailed:
            return set()

    def _missing(self) -> list[str]:
        try:
            found = self.kube.items("deployments,statefulsets,daemonsets", "--all-namespaces")
            return invariants.missing(self.kube.items("nodes"), found, FOREIGN, least_workers=1)
        except CommandFailed as error:
            return [str(error)[:200]]


def _pretended(pod: dict[str, Any]) -> bool:
    return pods.node_of(pod) == FOREIGN
