"""Each alert that can be provoked is: it fires and resolves in a real Prometheus and Alertmanager.

Half an hour, on a cluster of its own: only with SELFHEAL_LONG=1.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from alerts.rules import ALERTS
from ci.cluster import Cluster
from ci.demo import model as models
from ci.demo import site as sites
from ci.demo.console import Console
from ci.demo.mailbox import Mailbox
from tests.provoked.scenarios import SCENARIOS, Scenario
from tests.provoked.stage import NAMESPACE, RELEASE, Stage, Watcher, model_server, values

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not os.environ.get("SELFHEAL_LONG"), reason="only with SELFHEAL_LONG=1"),
]
_NAME = "provoked"


@pytest.fixture(scope="module")
def stage(unavailable: Callable[[str], None]) -> Iterator[Stage]:
    """The release with its shortened alerts, on a cluster that is taken down at the end."""
    if os.geteuid() != 0 or sys.platform != "linux":
        unavailable("the local cluster needs Linux and root")
    try:
        site = sites.find(Console(sys.stderr), _NAME, models.chosen())
        assert site.local is not None
        sites.clear(site, RELEASE, NAMESPACE)
        sites.make_namespace(site, NAMESPACE)
        watcher = Watcher(site.local)
        mailbox = Mailbox(site.kube, NAMESPACE, RELEASE, threading.Condition())
        image = _image(site.arguments)
        arguments = [*site.arguments, *values(image)]
        made = Stage(site.local, site.kube, arguments, watcher, mailbox)
        made.apply(*model_server(image))
        command = ["install", RELEASE, str(sites.CHART), "-n", NAMESPACE, *arguments]
        site.kube.helm(*command, "--wait", "--timeout", "5m")
        # The rules of a model server too: a pod of its name will stand in for it.
        ollama = ["ollama.enabled=true", "ollama.models={tiny:1b}", "model.baseUrl="]
        loaded = made.load_rules(*(word for one in ollama for word in ("--set", one)))
        assert loaded == len(ALERTS)
        with watcher.running():
            watcher.until_quiet({alert.name for alert in ALERTS})
            yield made
    finally:
        if not os.environ.get("SELFHEAL_KEEP"):
            Cluster(_NAME).down()


def _image(arguments: list[str]) -> str:
    """The worker's image, from the arguments that helm gets."""
    given = dict(word.split("=", 1) for word in arguments if word.startswith("worker.image."))
    return f"{given['worker.image.repository']}:{given['worker.image.tag']}"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_fires_and_resolves(stage: Stage, scenario: Scenario) -> None:
    stage.watcher.fresh.clear()
    try:
        scenario.provoke(stage)
        stage.watcher.until_firing(set(scenario.alerts))
    finally:
        scenario.undo(stage)
    stage.watcher.until_quiet(set(scenario.alerts), scenario.seconds)


def test_all_is_quiet_again(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    names = {alert.name for alert in ALERTS}
    # What was answered since somebody read the results waits for a reader again.
    with stage.mailbox.reading():
        stage.watcher.until_quiet(names, 900)
    provoked = stage.watcher.resolved & names
    missed = ", ".join(sorted(names - provoked))
    with capsys.disabled():
        sys.stdout.write(f"\nalerts seen firing and resolving: {len(provoked)} of {len(names)}")
        sys.stdout.write(f"; not: {missed}\n" if missed else "\n")
    assert provoked == names
