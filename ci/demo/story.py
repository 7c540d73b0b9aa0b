"""The demo's story, step by step: each function is one thing that a person sees happen."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from ci.demo import pods
from ci.demo.console import Console
from ci.demo.kube import CommandFailed, Kube
from ci.demo.mailbox import Mailbox
from ci.demo.tally import Tally, tally
from ci.demo.texts import Feedback
from ci.demo.world import NeverHappened, World

FAULT = "DemoFault"  # the condition of ci/demo/values.yaml's custom plugin
_FAULT_FILE = "/faults/demo"
# A worker process is found by its command line; the brackets keep the shell from finding itself.
_FREEZE = (
    "for p in /proc/[0-9]*; do "
    "if tr '\\0' ' ' <$p/cmdline | grep -q '[s]elfheal-worker run'; "
    "then kill -STOP ${p#/proc/}; fi; done"
)
_POISON = {
    "not JSON": '{"text": "the lid is brok',
    "not an object": '["good", "bad"]',
    "no text": '{"comment": "where is the text?"}',
    "blank text": '{"text": "   "}',
    "too large": json.dumps({"text": "very " * 20_000}),
}


@dataclass(frozen=True)
class Options:
    """How large the story is: texts of each of the three waves; seconds to wait for a step."""

    first_wave: int = 500
    second_wave: int = 500
    third_wave: int = 200
    patience: float = 300.0
    node: str = ""  # the node that gets the fault; empty = one that has workers and not the broker


@dataclass
class Story:
    """What all steps share. `facts` becomes the report."""

    kube: Kube
    console: Console
    namespace: str
    release: str
    options: Options
    world: World
    mailbox: Mailbox
    facts: dict[str, Any] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    first_published: float = 0.0  # monotonic
    begun: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def until(
        self, what: str, condition: Callable[[], bool], show: Callable[[], None] | None = None
    ) -> float:
        """Wait for it; gives the seconds that it took."""
        started = time.monotonic()
        self.world.until(what, condition, self.options.patience, show)
        return time.monotonic() - started

    def component(self, name: str) -> list[dict[str, Any]]:
        return pods.labelled(self.world["pods"].values(), self.release, name)

    def workers_ready(self) -> list[dict[str, Any]]:
        return [p for p in self.component("worker") if pods.is_ready(p)]

    def node(self, name: str) -> dict[str, Any]:
        return self.world["nodes"].get(name, {"spec": {}, "status": {}, "metadata": {}})

    def show_progress(self, wave: str, total: int) -> None:
        ready, workers = self.workers_ready(), self.component("worker")
        self.console.live(
            f"answered {len(self.mailbox.answered(wave)):>4}/{total}"
            f" · workers {len(ready)} ready of {len(workers)} ({pods.by_node(workers) or 'none'})"
        )


@contextmanager
def opened(
    kube: Kube, console: Console, namespace: str, release: str, options: Options
) -> Iterator[Story]:
    """A story whose watches and results reader run."""
    selections = {
        "pods": ["pods", "--all-namespaces"],
        "nodes": ["nodes"],
        "jobs": ["jobs", "-n", namespace],
        "events": ["events", "-n", "default"],
        "scaledobjects": ["scaledobjects.keda.sh", "-n", namespace],
    }
    with ExitStack() as stack:
        world = stack.enter_context(World(kube, selections))
        mailbox = Mailbox(kube, namespace, release, world.changed)
        stack.enter_context(mailbox.reading())
        yield Story(kube, console, namespace, release, options, world, mailbox)


def tell(story: Story, texts: list[Feedback]) -> Tally:
    """The whole story, on a release that is installed and has no worker running.

    `texts` are those of all waves. When a step does not end, NeverHappened has the account so far.
    """
    try:
        _steps(story, texts)
    except NeverHappened as error:
        raise NeverHappened(f"{error}\nso far: {_account_so_far(story)}") from None
    return count(story)


def _steps(story: Story, texts: list[Feedback]) -> None:
    options, console = story.options, story.console
    first, rest = texts[: options.first_wave], texts[options.first_wave :]
    second, third = rest[: options.second_wave], rest[options.second_wave :]
    with console.step(f"Publish {len(first)} customer reviews and {len(_POISON)} poison messages"):
        publish_first(story, first)
    with console.step("KEDA scales the workers from zero; they answer"):
        watch_answers(story, first)
    with console.step("What could not be processed is in the dead-letter queue, with the reason"):
        show_dead_letters(story)
    with console.step("A node goes bad while messages are in flight: cordon, drain"):
        node = fault(story, second)
    with console.step("The fault is cleared: stabilization window, uncordon"):
        recover(story, node)
    with console.step("A worker process freezes: its liveness probe finds it, others answer"):
        freeze(story, third)
    with console.step("Nothing left to do: scale to zero"):
        scale_to_zero(story)


def _account_so_far(story: Story) -> str:
    try:
        return str(count(story))
    except CommandFailed as error:
        return f"{len(story.published)} published; {error}"


def settle(story: Story) -> None:
    """Wait until the topology is declared, remediator and detectors are ready, no worker runs."""

    def ready(component: str) -> int:
        return sum(pods.is_ready(p) for p in story.component(component))

    def settled() -> bool:
        jobs = pods.labelled(story.world["jobs"].values(), story.release, "topology")
        return (
            any(pods.condition(job, "Complete") == "True" for job in jobs)
            and ready("remediator") > 0
            and ready("node-problem-detector") >= len(story.world["nodes"]) > 0
            and not story.component("worker")
        )

    def show() -> None:
        parts = ("rabbitmq", "remediator", "node-problem-detector", "worker")
        story.console.live("ready: " + ", ".join(f"{part} {ready(part)}" for part in parts))

    story.until("the parts are ready and no worker runs", settled, show)
    for node in sorted(story.world["nodes"]):
        here = [
            part
            for part in ("rabbitmq", "remediator", "node-problem-detector")
            if any(pods.node_of(p) == node for p in story.component(part))
        ]
        story.console.say(f"{node}: {', '.join(here)}")


def publish(story: Story, texts: list[Feedback], wave: str) -> None:
    """Publish one wave; ids begin with the wave's name."""
    ids = [f"{wave}-{one.id}" for one in texts]
    lines = [json.dumps({"id": key, "text": one.text}) for key, one in zip(ids, texts, strict=True)]
    story.mailbox.publish(lines)
    story.published += ids


def until_answered(story: Story, wave: str, texts: list[Feedback]) -> None:
    """Wait until each text of the wave has an answer."""
    story.until(
        f"all of the {wave} wave are answered",
        lambda: len(story.mailbox.answered(f"{wave}-")) >= len(texts),
        lambda: story.show_progress(f"{wave}-", len(texts)),
    )


def publish_first(story: Story, texts: list[Feedback]) -> None:
    story.first_published = time.monotonic()
    publish(story, texts, "first")
    story.mailbox.publish(list(_POISON.values()), id_prefix="poison", raw=True)
    story.published += [f"poison-{number}" for number in range(1, len(_POISON) + 1)]
    story.console.say(f"the broker confirmed {len(story.published)} messages")


def watch_answers(story: Story, texts: list[Feedback]) -> None:
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(story.workers_ready()))
        story.show_progress("first-", len(texts))

    story.until("a worker is ready", lambda: bool(story.workers_ready()), look)
    seconds = time.monotonic() - story.first_published
    story.console.say(f"first worker ready {seconds:.1f} s after the first message")
    story.until(
        "all of the first wave are answered",
        lambda: len(story.mailbox.answered("first-")) >= len(texts),
        look,
    )
    story.console.say(f"all {len(texts)} answered by up to {most} workers")
    story.facts["scale_from_zero_seconds"] = round(seconds, 1)
    story.facts["workers_at_most"] = most
    _show_emotions(story, texts)


def _show_emotions(story: Story, texts: list[Feedback]) -> None:
    results = {r["id"]: r for r in story.mailbox.results if r["id"].startswith("first-")}
    emotions = Counter(r["primary_emotion"] for r in results.values())
    rows = []
    for emotion, number in emotions.most_common():
        of_it = [r for r in results.values() if r["primary_emotion"] == emotion]
        mean = sum(r["confidence_score"] for r in of_it) / number
        phrase = next((r["key_phrases"][0] for r in of_it if r["key_phrases"]), "")
        rows.append([emotion, str(number), f"{mean:.2f}", phrase[:40]])
    story.console.table(["emotion", "texts", "mean confidence", "a key phrase"], rows)
    rated = [one for one in texts if one.sentiment != "Neutral"]
    agreed = sum(results[f"first-{one.id}"]["sentiment"] == one.sentiment for one in rated)
    model = next(iter(results.values()))["model"]
    story.console.say(
        f"model {model['provider']}/{model['name']}: sentiment as its human raters' on"
        f" {agreed} of {len(rated)} rated positive or negative"
    )
    story.facts |= {"emotions": dict(emotions), "model": model}
    story.facts["rated_texts"], story.facts["rated_agreed"] = len(rated), agreed


def show_dead_letters(story: Story) -> None:
    letters: list[dict[str, Any]] = []

    def all_there() -> bool:
        letters[:] = story.mailbox.dead_letters()
        return len(letters) >= len(_POISON)

    story.until("every poison message is a dead letter", all_there)
    keys = ("message_id", "reason", "error_class", "attempts", "bytes")
    rows = [[str(one[key]) for key in keys] for one in letters]
    story.console.table(["id", "reason", "error class", "attempts", "bytes"], rows)
    story.facts["dead_letters"] = letters


def fault(story: Story, texts: list[Feedback]) -> str:
    """A condition comes true on a node through its real node-problem-detector; gives the node."""
    publish(story, texts, "second")

    def show() -> None:
        story.show_progress("second-", len(texts))

    story.until("a node can be chosen", lambda: bool(_choose(story)), show)
    node = _choose(story)
    detector = _detector(story, node)
    console = story.console
    console.say(f"{node} gets the fault; workers: {pods.by_node(story.workers_ready())}")
    _exec(story, detector, f"touch {_FAULT_FILE}")
    seen = story.until(
        f"{FAULT} is True on {node}",
        lambda: pods.condition(story.node(node), FAULT) == "True",
        show,
    )
    console.say(f"node-problem-detector: {FAULT} is True on {node}")
    cordoned = story.until("the cordon", lambda: pods.is_cordoned(story.node(node)), show)
    console.say(f"remediator: {node} is cordoned")
    drained = story.until("the drain's end", lambda: _is_drained(story, node), show)
    console.say(f"remediator: {node} is drained; workers: {pods.by_node(story.workers_ready())}")
    story.until(
        "all are answered", lambda: len(story.mailbox.answered("second")) >= len(texts), show
    )
    console.say(f"all {len(texts)} messages of the second wave answered")
    _show_events(story, node)
    story.facts["fault"] = {
        "node": node,
        "condition_seconds": round(seen, 1),
        "cordoned_seconds": round(cordoned, 1),
        "drained_seconds": round(drained, 1),
        "left_on_node": len(pods.to_move(story.world["pods"].values(), node)),
    }
    return node


def recover(story: Story, node: str) -> None:
    _exec(story, _detector(story, node), f"rm {_FAULT_FILE}")
    cleared = story.until(
        f"{FAULT} is False on {node}", lambda: pods.condition(story.node(node), FAULT) == "False"
    )
    story.console.say(
        f"node-problem-detector: {FAULT} is False on {node}; stabilization window begins"
    )
    uncordoned = story.until("the uncordon", lambda: not pods.is_cordoned(story.node(node)))
    story.console.say(f"remediator: {node} is uncordoned")
    story.facts["recovery"] = {
        "cleared_seconds": round(cleared, 1),
        "uncordoned_seconds": round(uncordoned, 1),
    }


def freeze(story: Story, texts: list[Feedback]) -> None:
    active = _last_active(story)
    publish(story, texts, "third")

    def show() -> None:
        story.show_progress("third-", len(texts))

    # Until KEDA has seen the wave, it may be about to take all workers away after the pause.
    story.until("KEDA has seen the third wave", lambda: _last_active(story) != active, show)

    def busy() -> bool:
        return bool(story.mailbox.answered("third-")) and bool(story.workers_ready())

    story.until("a worker answers", busy, show)
    frozen = story.workers_ready()[0]["metadata"]["name"]
    before = pods.restarts(story.world["pods"][f"{story.namespace}/{frozen}"])
    _exec(story, f"{story.namespace}/{frozen}", _FREEZE)
    story.console.say(f"{frozen} is frozen (SIGSTOP)")

    def replaced() -> bool:
        pod = story.world["pods"].get(f"{story.namespace}/{frozen}")
        return pod is None or pods.restarts(pod) > before

    seconds = story.until("the frozen worker is replaced", replaced, show)
    restarted = f"{story.namespace}/{frozen}" in story.world["pods"]
    how = "liveness probe failed, it was restarted" if restarted else "it was taken away"
    story.console.say(f"kubelet: {frozen}: {how}")
    story.until(
        "all are answered", lambda: len(story.mailbox.answered("third-")) >= len(texts), show
    )
    story.console.say(f"all {len(texts)} messages of the third wave answered")
    story.facts["frozen"] = {
        "pod": frozen,
        "restarted": restarted,
        "replaced_seconds": round(seconds, 1),
    }


def scale_to_zero(story: Story) -> None:
    def show() -> None:
        story.console.live(f"workers: {len(story.component('worker'))}")

    seconds = story.until("no worker is left", lambda: not story.component("worker"), show)
    story.facts["scale_to_zero_seconds"] = round(seconds, 1)


def count(story: Story) -> Tally:
    """The account; the dead letters are read again, because every fault came after the first."""
    letters = story.mailbox.dead_letters()
    account = tally(
        story.published,
        [str(r["id"]) for r in story.mailbox.results],
        [str(one["message_id"]) for one in letters],
    )
    story.facts["tally"] = asdict(account)
    return account


def _choose(story: Story) -> str:
    """The node for the fault: as asked, or the one with most ready workers that has not the broker
    (its single replica would be away for some seconds: nothing lost, but less to see)."""
    if story.options.node:
        return story.options.node
    broker = {pods.node_of(p) for p in story.component("rabbitmq")}
    workers = Counter(pods.node_of(p) for p in story.workers_ready())
    for node, _ in workers.most_common():
        if node not in broker:
            return node
    return ""


def _last_active(story: Story) -> str:
    """When KEDA last found messages waiting, as it says at each of its looks that finds some."""
    scaled = story.world["scaledobjects"].values()
    return max((str(one.get("status", {}).get("lastActiveTime", "")) for one in scaled), default="")


def _detector(story: Story, node: str) -> str:
    """`namespace/name` of the node-problem-detector's pod on the node, once it is ready."""

    def found() -> str | None:
        for name, pod in story.world["pods"].items():
            ours = pods.labelled([pod], story.release, "node-problem-detector")
            if ours and pods.node_of(pod) == node and pods.is_ready(pod):
                return name
        return None

    what = f"a node-problem-detector of release {story.release} is ready on {node}"
    return story.world.until(what, found, story.options.patience)


def _is_drained(story: Story, node: str) -> bool:
    reasons = {e["reason"] for e in _node_events(story, node)}
    return "DrainSucceeded" in reasons and not pods.to_move(story.world["pods"].values(), node)


def _node_events(story: Story, node: str) -> list[dict[str, Any]]:
    """The remediator's Events on the node since this story began, oldest first."""
    events = [
        e
        for e in story.world["events"].values()
        if e["involvedObject"].get("kind") == "Node"
        and e["involvedObject"].get("name") == node
        and e.get("reportingComponent") == "selfheal-remediator"
        and datetime.fromisoformat(e["metadata"]["creationTimestamp"]) >= story.begun
    ]
    return sorted(events, key=lambda e: e["metadata"]["creationTimestamp"])


def _show_events(story: Story, node: str) -> None:
    events = _node_events(story, node)
    story.console.table(
        ["event on the node", "message"],
        [[e["reason"], e.get("message", "")[:100]] for e in events],
    )
    story.facts["events"] = [{"reason": e["reason"], "message": e.get("message")} for e in events]


def _exec(story: Story, pod: str, script: str) -> None:
    namespace, name = pod.split("/")
    story.kube.kubectl("-n", namespace, "exec", name, "--", "sh", "-c", script)
