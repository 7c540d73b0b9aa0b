"""The commands of the runbooks, run on the demo's cluster as they stand there."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ci import parts

pytestmark = pytest.mark.cluster

_RUNBOOKS = Path(__file__).parents[2] / "alerts" / "runbooks"
_COMMANDS = sorted(
    {
        command
        for path in _RUNBOOKS.glob("*.md")
        for command in re.findall(r"`((?:kubectl|helm) [^`]+)`", path.read_text())
    }
)
# Not run here, by how they begin, and why.
_NOT_HERE = {
    "helm upgrade …": "says what to add to a command of the reader's own",
    "helm rollback": "a release of one revision has nothing to go back to",
    "kubectl -n NAMESPACE get podmonitor": "needs the Prometheus operator",
    "kubectl -n NAMESPACE logs POD --previous": "needs a container that was restarted",
    "kubectl -n POLICY_NAMESPACE logs POD --previous": "needs a container that was restarted",
    "kubectl -n NAMESPACE exec deploy/RELEASE-worker -- selfheal-worker results": "would wait",
    "kubectl -n NAMESPACE exec RELEASE-rabbitmq-0 -- rabbitmqctl purge_queue": "destroys messages",
    "kubectl -n NAMESPACE top": "needs metrics-server",
    "kubectl -n NAMESPACE patch pvc": "needs a storage class that expands volumes",
    "kubectl -n NAMESPACE delete statefulset": "an upgrade must follow it",
}
# The step that starts a worker where none runs, around all the others.
_STEP = re.compile(r"paused-replicas|wait deploy/RELEASE-worker")
_END, *_BEGIN = filter(_STEP.search, _COMMANDS)
_RUN = [
    command
    for command in _COMMANDS
    if not command.startswith(tuple(_NOT_HERE)) and command not in (*_BEGIN, _END)
]


@pytest.fixture(scope="module")
def shell(demo):
    """Runs a command on the demo's cluster; a worker runs while this lasts."""
    programs = parts.ensure(["kubectl", "helm"])
    environment = os.environ | {"KUBECONFIG": str(demo.cluster.kubeconfig), "NO_PROXY": "*"}

    def run(command):
        first, *rest = shlex.split(command)
        return subprocess.run(
            [programs[first], *rest], env=environment, capture_output=True, text=True, timeout=120
        )

    def named(command):
        return command.replace("NAMESPACE", "selfheal").replace("RELEASE", "selfheal")

    for command in _BEGIN:
        done = run(named(command))
        assert done.returncode == 0, done.stderr
    yield run
    run(named(_END))
    run("kubectl -n selfheal exec selfheal-rabbitmq-0 -- rabbitmqctl clear_policy results")


@pytest.fixture
def filled(demo):
    """The command with the demo's names in it."""
    pod = demo.cluster.kubectl(
        *("-n", "selfheal", "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"),
        *("-l", "app.kubernetes.io/component=remediator"),
    )
    names = {
        "NAMESPACE": "selfheal",
        "RELEASE": "selfheal",
        "NODE": "node-1",
        "POLICY_NAMESPACE": "selfheal",
        "POLICY": "selfheal-worker",
        "POD": pod,
        "REASON": "'to try the runbook'",
        "CONDITION": "DemoFault",
    }

    def fill(command):
        for name, value in names.items():
            command = re.sub(rf"\b{name}\b", value, command)
        return command

    return fill


@pytest.fixture
def undone(shell):
    """What the commands change is taken back."""
    yield
    lease = "kubectl -n selfheal annotate lease selfheal-remediator"
    shell(f"{lease} selfheal.dev/paused- selfheal.dev/trust-")


def test_no_exception_is_stale():
    for begin in _NOT_HERE:
        assert any(command.startswith(begin) for command in _COMMANDS), begin


@pytest.mark.parametrize("command", _RUN)
def test_a_command_of_a_runbook_works(shell, filled, undone, command):
    done = shell(filled(command))
    assert done.returncode == 0, done.stderr
    if " rollout restart " in command:
        assert shell(filled(command).replace(" restart ", " status ")).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "kubectl -n selfheal exec deploy/selfheal-remediator -- selfheal-remediator pause --why x",
        "kubectl -n selfheal annotate lease selfheal-remediator selfheal.dev/paused=x",
    ],
)
def test_the_first_line_stops_the_remediator(shell, undone, command):
    assert shell(command).returncode == 0
    status = "kubectl -n selfheal exec deploy/selfheal-remediator -- selfheal-remediator status"
    assert "paused: x" in shell(status).stdout
    resume = "kubectl -n selfheal exec deploy/selfheal-remediator -- selfheal-remediator resume"
    assert shell(resume).returncode == 0
    assert "paused" not in shell(status).stdout
