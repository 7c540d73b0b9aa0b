"""What the programs print: metrics, and the commands' JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from alerts.contract import families
from selfheal_remediator.__main__ import main as remediator_main
from selfheal_worker.__main__ import main as worker_main
from tests.pure.golden.record import Normal, rendered
from tests.pure.golden.world import MARKER, World
from tests.pure.remediator.running import NODES

#: Of each phase that holds a node, and two that do not.
PHASES = ("cordoned", "draining", "drained", "healed", "cancelled")


def metrics() -> str:
    """Name, type, labels and meaning of each metric of both programs."""
    lines = [
        f"{one.name} {one.kind} {one.unit or 'count'} [{', '.join(one.labels)}] {one.meaning}"
        for one in families()
    ]
    return "\n".join(sorted(lines)) + "\n"


def reasons(folder: Path) -> str:
    """Each Event's type and reason, and about which kind, as the scenarios' files show them."""
    found = set()
    for path in sorted(folder.glob("*.txt")):
        kind = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            about = re.fullmatch(r"Events about (\w+) .*", line)
            if about or not line.startswith("  "):
                kind = about[1] if about else ""
            elif kind:
                found.add(f"{kind} {line.strip().partition(':')[0]}")
    return "\n".join(sorted(found)) + "\n"


def _printed(main: Callable[[list[str]], int], arguments: list[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    return f"exit status {status}\n{out.getvalue()}{err.getvalue()}"


@contextlib.contextmanager
def _cluster() -> Iterator[tuple[World, list[str]]]:
    """A node of each phase and an unhealthy one, and the options that lead there."""
    world = World()
    world.put(f"{NODES}/{MARKER}", None)
    world.lease("me_1", paused="upgrade")
    for phase in PHASES:
        cordoned = phase in ("cordoned", "draining", "drained")
        state: dict[str, Any] = {"v": 1, "phase": phase, "by": "d/selfheal-remediator"}
        state |= {"condition": "Fault", "status": "True", "reason": "Why", "action": "drain"}
        moment = int(world.clock()) - 6000
        state |= {"firstSeen": moment, "since": moment, "drainStarted": moment}
        spec = {"unschedulable": True} if cordoned else {}
        known = {"selfheal.dev/state": json.dumps(state)}
        world.node(phase, "True" if cordoned else "False", spec=spec, annotations=known)
    world.node("bad", "True")
    world.node("kept", "True", annotations={"selfheal.dev/exclude": "forensics"})
    world.node("good", "False")
    world.pod("p", "draining")
    world.pod("q", "bad")
    access = {
        "clusters": [{"name": "c", "cluster": {"server": world.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    rules = [{"condition": "Fault", "for": 0, "action": "drain"}]
    config = {"rules": rules, "limits": {"maxUnavailable": "100%"}, "signal": {"enabled": False}}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        for name in ("CONFIG_FILE", "POD_NAMESPACE"):
            os.environ.pop(name, None)
        for name, content in (("kubeconfig", access), ("config", config)):
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        yield world, ["--kubeconfig", f"{folder}/kubeconfig", "--config", f"{folder}/config"]
    world.close()


def _remediator(*arguments: str) -> str:
    with _cluster() as (world, access):
        said = _printed(remediator_main, [*arguments, *access])
        normal = Normal(world.start)
        changes = [one for one in world.requests if one.verb != "GET"]
        # What lasts until this moment is reported with its seconds.
        said = re.sub(r"\b60m\b", "<seconds>", normal.text(said))
        return f"{said}\n{rendered(changes, normal, MARKER)}"


def plan() -> str:
    """`selfheal-remediator plan -o json`, and what it asks the API server for."""
    return _remediator("plan", "-o", "json")


def status() -> str:
    """`selfheal-remediator status -o json`."""
    return _remediator("status", "-o", "json")


def uncordon() -> str:
    """`selfheal-remediator uncordon --all`, before an uninstall."""
    with mock.patch("selfheal_remediator.cli.uninstall.PAUSE", 0.01):
        return _remediator("uncordon", "--all", "--timeout", "20", "-n", "d", "-o", "json")


TEXTS = (
    '{"id": "1", "text": "I love the new design, thank you!", "metadata": {"a": 1}, "more": 2}',
    '{"id": "2", "text": "The parcel came broken and nobody answers my letters."}',
    '{"text": "no id"}',
    '{"id": "4"}',
    "no JSON",
)


def analyze() -> str:
    """`selfheal-worker analyze -o json` with the built-in model."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, kept, clear=True):
        path = Path(folder) / "texts"
        path.write_text("\n".join(TEXTS), encoding="utf-8")
        said = _printed(worker_main, ["analyze", "--input", str(path), "-o", "json"])
    # The last digits of a confidence depend on the machine's arithmetic.
    said = re.sub(r"(\d\.\d{3})\d+", r"\1", said)
    return Normal(0.0).text(said)
