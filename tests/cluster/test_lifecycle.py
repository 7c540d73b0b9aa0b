"""The local cluster comes up and goes away whole, also when it was killed on the way."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci.cluster import Cluster, ClusterError, Spec, control_plane_only
from ci.cluster import processes as cluster_processes
from ci.cluster.machine import check_root
from ci.cluster.waiting import until
from tests.cluster.leftovers import machine_folders, traces

pytestmark = pytest.mark.cluster

NAME = "lifecycle"
_SECONDS = 60.0


@pytest.fixture(scope="module", autouse=True)
def _root(unavailable: Callable[[str], None]) -> None:
    try:
        check_root()
    except ClusterError as error:
        unavailable(str(error))


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    Cluster(NAME).down()
    assert traces(NAME) == []


def host_settings() -> dict[str, str]:
    """What of the machine itself kubelet and kube-proxy would like to change, and its firewall."""
    files = [
        "/proc/sys/kernel/panic",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/net/netfilter/nf_conntrack_max",
    ]
    found = {file: Path(file).read_text() for file in files if Path(file).exists()}
    found["mounts"] = Path("/proc/self/mountinfo").read_text()
    routes = _output("ip", "route", "show", "table", "all").splitlines()
    found["routes"] = "\n".join(line for line in routes if " dev sh" not in line)
    found["folders"] = " ".join(machine_folders())
    found["firewall"] = _output("iptables-save")
    return found


def _output(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("#"))


def test_up_twice_starts_once_and_down_twice_is_fine() -> None:
    first = control_plane_only(NAME)
    first.up()
    before = {part: _pid(first, part) for part in first.status().parts}

    said: list[str] = []
    again = control_plane_only(NAME, say=said.append)
    again.up()

    assert said == [f"cluster {NAME} is up already"]
    assert {part: _pid(again, part) for part in again.status().parts} == before
    assert again.status().phase == "ready"
    again.down()
    again.down()
    assert again.status().phase == "absent"


def test_what_died_is_found_and_up_replaces_it() -> None:
    cluster = control_plane_only(NAME)
    cluster.up()
    os.kill(_pid(cluster, "etcd"), signal.SIGKILL)
    until("etcd is dead", lambda: not cluster.status().parts["etcd"], _SECONDS)

    assert cluster.status().phase == "broken"
    cluster.up()
    assert cluster.status().phase == "ready"
    assert "kube-system" in cluster.kubectl("get", "namespaces")


def test_a_stopped_part_comes_back_with_its_data() -> None:
    with control_plane_only(NAME) as cluster:
        cluster.kubectl("create", "configmap", "kept")
        for part in ("kube-apiserver", "etcd"):
            cluster.stop(part, kill=True)
        with pytest.raises(ClusterError, match="refused"):
            cluster.kubectl("get", "configmap", "kept", "--request-timeout=2s")
        for part in ("etcd", "kube-apiserver"):
            cluster.start(part)
        cluster.wait_api()
        assert "kept" in cluster.kubectl("get", "configmap", "kept")


@pytest.mark.usefixtures("warm")
def test_a_real_node_leaves_nothing_on_the_machine() -> None:
    before = host_settings()
    with Cluster(NAME, Spec(nodes=1, addons=())) as cluster:
        node = json.loads(cluster.kubectl("get", "node", "node-1", "-o", "json"))
        boot = node["status"]["nodeInfo"]["bootID"]
        assert _ready(node)
        assert host_settings() == before

        cluster.reboot("node-1")
        changed = f"--for=jsonpath={{.status.nodeInfo.bootID}}={_boot_id(cluster)}"
        cluster.kubectl("wait", "node/node-1", changed, "--timeout=60s")
        assert _boot_id(cluster) != boot
    assert traces(NAME) == []
    assert host_settings() == before


# What `up` has just said when it is killed: in the middle of the step after that.
@pytest.mark.parametrize("after", ["", "network and certificates", "control plane", "images"])
@pytest.mark.usefixtures("warm")
def test_killed_on_the_way_up_it_leaves_nothing_that_down_does_not_find(after: str) -> None:
    command = [sys.executable, "-m", "ci.cluster", "up", "--name", NAME]
    up = subprocess.Popen(
        [*command, "--nodes", "1", "--with", "none"], stderr=subprocess.PIPE, text=True
    )
    assert up.stderr is not None
    if after:
        assert any(line.startswith(after) for line in up.stderr)
    else:
        state_file = Cluster(NAME).layout.state_file
        until("the state is written", state_file.exists, _SECONDS)
    up.kill()
    up.wait()
    up.stderr.close()

    assert Cluster(NAME).status().phase == "broken"
    Cluster(NAME).down()
    assert traces(NAME) == []


def test_killed_on_the_way_up_the_next_up_starts_again() -> None:
    command = [sys.executable, "-m", "ci.cluster", "up", "--name", NAME, "--nodes", "0"]
    up = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert up.stderr is not None
    assert any(line.startswith("network") for line in up.stderr)
    up.kill()
    up.wait()
    up.stderr.close()

    said: list[str] = []
    cluster = control_plane_only(NAME, say=said.append)
    cluster.up()
    assert said[0] == f"removing what is left of an earlier cluster {NAME}"
    assert cluster.status().phase == "ready"


def test_two_at_once_make_one_cluster() -> None:
    command = [sys.executable, "-m", "ci.cluster", "up", "--name", NAME, "--nodes", "0"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [up.communicate()[1] for up in both]

    assert [up.returncode for up in both] == [0, 0]
    assert sorted("is up already" in words for words in said) == [False, True]


def test_terminated_it_cleans_up_itself() -> None:
    command = [sys.executable, "-m", "ci.cluster", "up", "--name", NAME, "--nodes", "0"]
    up = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert up.stderr is not None
    assert any(line.startswith("network") for line in up.stderr)
    up.terminate()
    up.communicate()

    assert up.returncode == 130
    assert [trace for trace in traces(NAME) if not trace.startswith("lock ")] == []


def test_status_and_kubectl_of_a_cluster_that_is_not_up_say_so() -> None:
    status = subprocess.run(
        [sys.executable, "-m", "ci.cluster", "status", "--name", NAME, "-o", "json"],
        capture_output=True,
        text=True,
    )
    assert status.returncode == 3
    assert json.loads(status.stdout) == {
        "name": NAME,
        "phase": "absent",
        "parts": {},
        "kubeconfig": None,
    }
    with pytest.raises(ClusterError, match=f"{NAME} is not up"):
        Cluster(NAME).kubectl("get", "nodes")


@pytest.fixture(scope="module")
def warm() -> None:
    """Parts and images are there, so that a start is only a start."""
    from ci import images, parts

    spec = Spec(nodes=1, addons=())
    parts.ensure(spec.parts)
    images.ensure(spec.images)


def _pid(cluster: Cluster, part: str) -> int:
    return cluster_processes.pid(cluster.layout, part)


def _boot_id(cluster: Cluster) -> str:
    return (cluster.layout.node_root("node-1") / "boot_id").read_text().strip()


def _ready(node: dict[str, dict[str, list[dict[str, str]]]]) -> bool:
    conditions = node["status"]["conditions"]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
