"""Compares what a plan said with what happened: node by node, pod by pod, step by step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from selfheal_remediator.config import Config
from selfheal_remediator.drain.standstill import STANDSTILL_AFTER
from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster.messages import EPOCH, Json, unix
from tests.simulation.cluster.selectors import controller_of
from tests.simulation.plans.finding import Finding
from tests.simulation.plans.record import OUT, NodeRecord, PodRecord, Record
from tests.simulation.plans.scene import ACTS, END, PLANNED, Scene
from tests.simulation.plans.steps import steps

#: Seconds: what begins at once has begun by then; by how much a time that was shown may be off.
SOON, OFF = 6.0, 15.0
#: Seconds of a drain in which each pod is tried that waits for none that is kept: the pods of
#: earlier waves have their grace.
AT_ONCE = 100.0
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_SPAN = re.compile(r"acting in (?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def moment(text: str) -> float | None:
    """The last time in a text, in virtual seconds; None = it has none."""
    found = _TIME.findall(text)
    return unix(found[-1]) - EPOCH if found else None


def acting_at(why: str) -> float | None:
    """When a rule's `for` is over, as the plan says it."""
    found = _SPAN.search(why)
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return PLANNED + 3600 * hours + 60 * minutes + seconds


def findings(scene: Scene) -> Iterator[Finding]:
    """Of the first plan all, of the later ones what they say of the moment."""
    _, first = scene.plans[0]
    nodes = {item["node"]: item for item in first["nodes"]}
    for item in first["nodes"]:
        yield from _node(item, scene.record)
    yield from _pods(scene, nodes)
    last = {item["node"]: item for item in scene.plans[-1][1]["nodes"]}
    for item in first["nodes"]:
        name = item["node"]
        yield from steps(item, scene.record.nodes[name], last.get(name), scene.config)
    for when, plan in scene.plans[1:]:
        for item in plan["nodes"]:
            mine = scene.record.nodes[item["node"]]
            yield from _later(when, item, mine, scene.record)
            yield from _progress(when, item, mine, scene.config)


# -- nodes ---------------------------------------------------------------------------------


def _node(item: Json, record: Record) -> Iterator[Finding]:
    name, mine = item["node"], record.nodes[item["node"]]
    cordoned = mine.first(*OUT, after=PLANNED)
    drained = mine.first(Phase.DRAINING, after=PLANNED)
    acts = acting_at(item["why"]) if item["state"] == "seen" else None
    if acts is not None and item["limit"]:
        waited = _waits(item["limit"], cordoned, record, name)
        yield Finding("node: waits after its `for`", name, *waited)
        return
    if acts is not None:
        yield Finding("node: after its `for`", name, "then", _begun_at(cordoned, acts))
        return
    if item["action"] not in ("cordon", "drain"):
        if name in record.nodes and (item["why"] or item["action"] != "none"):
            left = "left" if cordoned is None else f"cordoned at {cordoned:.0f}"
            left = left if not _emptied(record, name) else "pods were evicted"
            yield Finding("node: left alone", name, "left", left)
        return
    limit = item["limit"]
    if limit:
        yield Finding("node: cordon waits", name, *_waits(limit, cordoned, record, name))
        return
    yield Finding("node: cordoned at once", name, "then", _begun_at(cordoned, ACTS))
    if item["action"] == "cordon":
        yield Finding("node: not drained", name, "never", _ever(drained))
        return
    taint = bool(item.get("taint"))
    has = "example.com/cordoned" in mine.taints
    yield Finding("node: taint", name, str(taint), str(has))
    waits = item.get("drain_waits", "")
    if waits:
        yield Finding("node: drain waits", name, *_waits(waits, drained, record, name))
    else:
        yield Finding("node: drained at once", name, "then", _begun_at(drained, ACTS))
        crowded = mine.no_room()
        early = crowded is not None and crowded < ACTS + 40.0
        shown = "no room" if item["headroom"] else "room"
        yield Finding("node: headroom", name, shown, "no room" if early else "room")


def _emptied(record: Record, name: str) -> bool:
    return any(pod.posts and pod.node == name for pod in record.pods.values())


def _begun_at(when: float | None, shown: float) -> str:
    if when is None:
        return "never"
    return "then" if shown - SOON <= when <= shown + OFF else f"at {when:.0f}, not {shown:.0f}"


def _ever(when: float | None) -> str:
    return "never" if when is None else f"at {when:.0f}"


def _waits(limit: str, begun: float | None, record: Record, name: str) -> tuple[str, str]:
    """What was shown of a limit, and what happened."""
    until = moment(limit)
    if until is not None:
        shown = f"not before {until:.0f}"
        early = begun is not None and begun < until - SOON
        late = until < END and (begun is None or begun > until + OFF)
        if late and _others_out(record, name, until):
            late = False  # another limit had it wait then
        return shown, f"at {begun}" if early or late else shown
    shown = "not before another one ends"
    if begun is None:
        return shown, shown
    ends = [
        when
        for other, found in record.nodes.items()
        if other != name
        for when in (found.left(Phase.DRAINING, ACTS), found.back(ACTS))
        if when is not None
    ]
    # A drain that makes no progress yields its place.
    yields = ACTS + STANDSTILL_AFTER if limit.startswith("maxDraining") else END
    freed = min([*ends, yields])
    return shown, shown if begun >= freed - 0.01 else f"at {begun:.0f}, freed at {freed:.0f}"


def _others_out(record: Record, name: str, when: float) -> bool:
    others = (found for other, found in record.nodes.items() if other != name)
    return any(_is_out(found, when + OFF) for found in others)


# -- pods ----------------------------------------------------------------------------------


def _pods(scene: Scene, nodes: dict[str, Json]) -> Iterator[Finding]:
    """Pods of one owner are interchangeable: how many fare how."""
    shown: dict[str, Counter[str]] = {}
    happened: dict[str, Counter[str]] = {}
    kinds: dict[str, dict[str, str]] = {}
    for raw in scene.pods:
        item = nodes.get(str(raw["spec"].get("nodeName")))
        if item is None or not item["pods"]:
            continue
        plan = _planned(item, raw)
        kind, said = _shown(plan, item)
        owner = controller_of(raw)
        group = owner["name"] if owner is not None and kind in _COUNTED else raw["metadata"]["name"]
        group = f"{group}/{item['node']}" if kind not in _COUNTED else group
        shown.setdefault(group, Counter())[said] += 1
        happened.setdefault(group, Counter())[_happened(said, scene, raw, item)] += 1
        kinds.setdefault(group, {})[said] = kind
    for group, counts in shown.items():
        same = counts & happened[group]
        for said, number in sorted(same.items()):
            for _ in range(number):
                yield Finding(kinds[group][said], group, said, said)
        rest = zip(
            sorted((counts - same).elements()),
            sorted((happened[group] - same).elements()),
            strict=True,
        )
        for said, did in rest:
            yield Finding(kinds[group][said], group, said, did)


#: The kinds of which it is shown how many pods of an owner fare so, not which.
GOES, REFUSED, SURGES = "pod: goes", "pod: a budget refuses", "pod: surge"
_COUNTED = (GOES, REFUSED)
FROM_ITS_DRAIN = "pod: may complete from its drain on", "for so long from its drain on"


def _planned(item: Json, raw: Json) -> Json:
    wanted = f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
    return next(one for one in item["pods"] if one["pod"] == wanted)


def _shown(plan: Json, item: Json) -> tuple[str, str]:
    """The kind of what was shown of a pod, and what."""
    if item["headroom"]:
        return "pod: no room elsewhere", "not now"
    if plan["fate"] != "evict":
        return _shown_to_stay(plan["fate"], plan["reason"])
    if plan["reason"].startswith("terminating"):
        return "pod: terminating", "terminating"
    if item["limit"] or _without_end(item):
        return "pod: its node waits", "not before its node"
    return _shown_to_go(plan)


def _shown_to_stay(fate: str, reason: str) -> tuple[str, str]:
    until = moment(reason)
    if fate == "wait":
        return ("pod: may complete until", f"until {until:.0f}") if until else FROM_ITS_DRAIN
    if fate == "stay" and until is not None:
        return "pod: stays until", f"until {until:.0f}"
    return f"pod: {fate}s", "untouched"


def _shown_to_go(plan: Json) -> tuple[str, str]:
    if plan["waits"].startswith("wave"):
        return "pod: a later wave", "later"
    if "would be rolled out" in plan["waits"]:
        return SURGES, "surge"
    return (REFUSED, "refused") if plan["waits"] or plan["server"] else (GOES, "goes")


def _without_end(item: Json) -> bool:
    """Whether its drain waits for others, or for longer than the cluster runs."""
    waits = item.get("drain_waits")
    return bool(waits) and (moment(str(waits)) or END) >= END


def _happened(said: str, scene: Scene, raw: Json, item: Json) -> str:
    """What happened to a pod of which that was said."""
    pod = scene.record.pods[raw["metadata"]["uid"]]
    node = scene.record.nodes[item["node"]]
    first = pod.posts[0][0] if pod.posts else None
    if said == "terminating":
        return said if first is None else f"evicted at {first:.0f}"
    if said == FROM_ITS_DRAIN[1]:
        longest = scene.config.drain.wait_for_completion.max
        began = node.first(Phase.DRAINING, after=PLANNED)
        early = first is not None and (began is None or first < began + longest - SOON)
        return f"evicted at {first:.0f}" if early else said
    if said.startswith("until"):
        delay = scene.config.drain.delay
        return _until(float(said.split()[1]), pod, first, node, said, delay)
    if said == "not before its node":
        return said if first is None else _after_its_node(first, item, scene.record, said)
    if said in ("untouched", "not now"):
        crowded = node.no_room() if said == "not now" else None
        may = crowded is not None and first is not None and first > crowded
        return said if first is None or may else f"evicted at {first:.0f}"
    return _tried(said, pod, first, scene, raw, item)


def _after_its_node(first: float, item: Json, record: Record, said: str) -> str:
    """Whether it was not tried before what its node waits for."""
    limit = item["limit"] or item["drain_waits"]
    until = moment(limit)
    if until is not None:
        return said if first >= until - SOON else f"evicted at {first:.0f}"
    shown, did = _waits(limit, first, record, item["node"])
    return said if did == shown else did


def _tried(
    said: str, pod: PodRecord, first: float | None, scene: Scene, raw: Json, item: Json
) -> str:
    """What happened to a pod that was to go, or to wait for others."""
    if said == "later":
        return said if first is None else _after_the_others(first, item, scene)
    if first is None:
        return "gone by itself" if pod.finished or pod.deleted else "never tried"
    if said == "surge":
        return said if _app(raw) in scene.record.surged else f"no surge, {pod.posts[0][1]}"
    began = scene.record.nodes[item["node"]].first(Phase.DRAINING, after=PLANNED) or 0.0
    if first > began + scene.config.drain.delay + AT_ONCE:
        return f"tried at {first:.0f} only, its drain began at {began:.0f}"
    return "goes" if pod.posts[0][1] == 201 else "refused"


def _app(raw: Json) -> str:
    return str((raw["metadata"].get("labels") or {}).get("app"))


def _until(
    until: float,
    pod: PodRecord,
    first: float | None,
    node: NodeRecord,
    said: str,
    delay: float,
) -> str:
    """What became of a pod that was to stay until then. delay: drain.delay."""
    ended = pod.finished or pod.deleted
    if ended is not None and ended < until and (first is None or ended <= first):
        return said  # it completed, or was gone, before
    if first is None:
        out = node.at(min(until + OFF, END))
        drains = out is not None and out.phase is Phase.DRAINING
        return "never tried" if until + OFF < END and drains else said
    if first < until - SOON:
        return f"evicted at {first:.0f}"
    began = (node.first(Phase.DRAINING, after=PLANNED) or END) + delay
    return said if first <= max(until, began) + OFF else f"evicted at {first:.0f} only"


def _after_the_others(first: float, item: Json, scene: Scene) -> str:
    """Whether it was tried after each pod that was to go before."""
    before = {one["pod"] for one in item["pods"] if not one["waits"].startswith("wave")}
    before = {one for one in before if _planned_wave(item, one) is not None}
    tried = [
        pod.posts[0][0]
        for pod in scene.record.pods.values()
        if pod.name in before and pod.node == item["node"] and pod.posts
    ]
    return "later" if first > max(tried, default=0.0) + 1.0 else f"with the others, at {first:.0f}"


def _planned_wave(item: Json, name: str) -> int | None:
    return next((one["wave"] for one in item["pods"] if one["pod"] == name), None)


# -- later plans ---------------------------------------------------------------------------


def _later(when: float, item: Json, node: NodeRecord, record: Record) -> Iterator[Finding]:
    """What a plan says of a node while the remediator acts: what waits does not begin within
    seconds (unless the time comes that was shown, or another node gets further just then), and
    what does not wait begins."""
    if item["action"] not in ("cordon", "drain", "repair"):
        return
    if node.gone is not None and node.gone <= when + SOON:
        return
    began = _begun(node, when, when + SOON)
    # Without room elsewhere it is cordoned all the same.
    waits = item["limit"] or (item["headroom"] if _is_out(node, when) else "")
    until = moment(waits)
    shown = "waits" if waits else "begins"
    did = "begins" if began else "waits"
    others = (found for name, found in record.nodes.items() if name != item["node"])
    freed = any(other.moved(when - 1.0, when + SOON) for other in others)
    if waits and began and (freed if until is None else until <= when + SOON):
        did = "waits"
    yield Finding(f"later: {item['action']} {shown}", f"{item['node']} at {when:.0f}", shown, did)


def _progress(when: float, item: Json, node: NodeRecord, config: Config) -> Iterator[Finding]:
    """How far a ladder is, as the annotation says it then."""
    state, ladder = node.at(when + 0.1), item.get("ladder")
    if ladder is None or state is None or _begun(node, when, when + 1.0):
        return
    phase = {Phase.REPAIRING: "failed" if state.step_failed else "succeeded"}
    shown = next(
        (word for word in ("under way", "failed", "last") if word in ladder["progress"]), ""
    )
    shown = shown or ("succeeded" if ladder["progress"] else "")
    did = "" if not state.steps else phase.get(state.phase, "last")
    did = "under way" if state.phase is Phase.REPAIRING and not state.step_ended else did
    yield Finding("later: progress of a ladder", f"{item['node']} at {when:.0f}", shown, did)


def _is_out(node: NodeRecord, when: float) -> bool:
    state = node.at(when)
    return state is not None and state.phase.cordoned


def _begun(node: NodeRecord, since: float, until: float) -> bool:
    """Whether it was cordoned, its drain, or a step begun between these times."""
    before = node.at(since - 1.0)
    for when, state in node.states:
        if since - 1.0 < when <= until and state is not None:
            fresh = before is None or (state.phase, state.steps) != (before.phase, before.steps)
            if fresh and state.phase in (Phase.CORDONED, Phase.DRAINING, Phase.REPAIRING):
                return True
    return False
