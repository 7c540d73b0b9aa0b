"""How the local cluster is laid out and configured, and what it refuses, without starting any."""

import base64
import ipaddress
import json
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ci.cluster import (
    ClusterError,
    Spec,
    addons,
    kubeconfig,
    machine,
    monitoring,
    node,
    state,
    volumes,
    waiting,
)
from ci.cluster.certificates import control_plane_certificates, node_certificates
from ci.cluster.cgroups import parse_mounts
from ci.cluster.command_line import split
from ci.cluster.control_plane import PARTS, arguments
from ci.cluster.kwok import nodes as kwok_nodes
from ci.cluster.layout import DNS_ADDRESS, Layout, Network
from ci.cluster.network import candidates, choose, reserved
from ci.cluster.spec import ADDONS, DEFAULT_ADDONS, parse_with

LAYOUT = Layout("main")
NETWORK = Network(ipaddress.IPv4Network("10.213.4.0/24"))
GIB = 1 << 30


def _networks(*texts: str) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(text) for text in texts]


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 31, "a b"])
def test_a_name_that_could_escape_its_folder_or_its_limits_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="lower-case letters"):
        Layout(name)


@given(st.sets(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?", fullmatch=True), min_size=2))
def test_clusters_of_different_names_share_nothing(names: set[str]) -> None:
    layouts = [Layout(name) for name in names]
    for made in ("root", "lock", "cgroup", "link"):
        assert len({getattr(layout, made) for layout in layouts}) == len(names)
    assert all(len(layout.link) <= 15 for layout in layouts)


def test_a_network_is_chosen_that_the_host_does_not_use() -> None:
    within = ipaddress.IPv4Network("10.213.0.0/16")
    elsewhere = _networks("0.0.0.0/0", "192.168.1.0/24")
    assert str(choose(within, elsewhere).machines) == "10.213.0.0/24"
    used = _networks("10.213.0.0/25", "10.213.1.7/32", *map(str, reserved()))
    assert str(choose(within, used).machines) == "10.213.2.0/24"


def test_when_no_network_is_free_the_clash_is_named_and_how_to_choose_another() -> None:
    with pytest.raises(ClusterError, match=r"10\.0\.0\.0/8 is in use.*SELFHEAL_NETWORK"):
        choose(ipaddress.IPv4Network("10.213.0.0/16"), _networks("10.0.0.0/8"))


@pytest.mark.parametrize("text", ["nonsense", "10.1.2.3/16", "10.0.0.0/25", "fd00::/64"])
def test_a_wrong_network_setting_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHEAL_NETWORK", text)
    with pytest.raises(ClusterError, match="SELFHEAL_NETWORK"):
        candidates()


def test_addresses_of_a_cluster_never_meet() -> None:
    machines = {NETWORK.host, NETWORK.control_plane, *(NETWORK.node(i) for i in range(1, 9))}
    assert len(machines) == 10
    assert machines <= set(NETWORK.machines.hosts())
    pods = [NETWORK.pods(index) for index in range(1, 9)]
    assert not any(a.overlaps(b) for a in pods for b in pods if a is not b)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ((), None)),
        ("none", ((), None)),
        ("coredns", (("coredns",), None)),
        ("keda", (("coredns", "keda"), None)),
        ("keda, metrics-server,kwok=100", (DEFAULT_ADDONS, 100)),
        ("monitoring", (("monitoring",), None)),
        ("kwok=0", ((), 0)),
    ],
)
def test_addons_are_chosen_by_name_and_bring_what_they_need(
    text: str, expected: tuple[tuple[str, ...], int | None]
) -> None:
    assert parse_with(text) == expected


@pytest.mark.parametrize("text", ["kedaa", "kwok", "kwok=", "kwok=-1", "kwok=x"])
def test_a_wrong_choice_of_addons_is_refused(text: str) -> None:
    with pytest.raises(ClusterError, match="--with"):
        parse_with(text)


def test_monitoring_runs_beside_the_cluster_and_needs_no_node() -> None:
    beside = Spec(nodes=0, addons=("monitoring",))
    assert beside.pods == []
    assert beside.images == []
    assert {"prometheus", "alertmanager", "kube-state-metrics"} <= set(beside.parts)
    assert Spec(addons=ADDONS).pods == list(DEFAULT_ADDONS)


def test_prometheus_differs_from_the_example_only_in_what_is_different_outside_of_a_pod() -> None:
    folder = Path(monitoring.__file__).parents[2] / "alerts"
    example = yaml.safe_load((folder / "prometheus.yaml").read_text())
    found = monitoring.configuration(example, Layout("x"))
    assert example == yaml.safe_load((folder / "prometheus.yaml").read_text())
    for ours, theirs in zip(found["scrape_configs"], example["scrape_configs"], strict=True):
        different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        assert different <= {
            "cadvisor": {"authorization", "tls_config", "kubernetes_sd_configs"},
            "kube-state-metrics": {"kubernetes_sd_configs", "relabel_configs", "static_configs"},
        }.get(ours["job_name"], {"kubernetes_sd_configs"})
    assert found["rule_files"] == example["rule_files"]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ClusterError, match="need a real node"):
        Spec(nodes=0, addons=("keda",))
    with pytest.raises(ClusterError, match="nodes: 9"):
        Spec(nodes=9)
    with pytest.raises(ClusterError, match="no such addon: x"):
        Spec(addons=("x",))
    with pytest.raises(ClusterError, match="kwok: 10001"):
        Spec(nodes=0, addons=(), kwok=10001)


def test_only_the_parts_that_are_needed_are_asked_for() -> None:
    bare = Spec(nodes=0, addons=())
    assert set(bare.parts) == {*PARTS, "kubectl"}
    assert bare.images == []
    assert set(Spec(1, (), 5).parts) - set(bare.parts) == {
        "kubelet",
        "kube-proxy",
        "kwok",
        "kwok-stages",
    }
    assert set(Spec().images) == {
        "pause",
        "coredns",
        "metrics-server",
        "keda-operator",
        "keda-adapter",
        "keda-webhooks",
    }


V1 = """\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
33 30 0:29 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
34 20 0:30 / /mnt/cgroup-notes rw - ext4 /dev/sda rw
"""


def test_cgroup_hierarchies_are_found_in_the_hybrid_layout() -> None:
    found = {str(h.root): (h.version, h.controllers) for h in parse_mounts(V1)}
    assert found == {
        "/sys/fs/cgroup/cpu,cpuacct": (1, {"cpu", "cpuacct"}),
        "/sys/fs/cgroup/cpuset": (1, {"cpuset"}),
        "/sys/fs/cgroup/unified": (2, set()),
    }


def test_the_one_hierarchy_of_cgroup_v2_is_found() -> None:
    line = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    (only,) = parse_mounts(line)
    assert (str(only.root), only.version) == ("/sys/fs/cgroup", 2)
    assert "cpuset" not in only.controllers


@given(nodes=st.integers(1, 8), cores=st.integers(1, 128), gib=st.integers(2, 512))
def test_all_nodes_together_promise_no_more_than_the_machine_has(
    nodes: int, cores: int, gib: int
) -> None:
    reserved = node.reservation(nodes, cores, gib * GIB)
    milli_cores = cores * 1000 - int(reserved["cpu"].removesuffix("m"))
    mebibytes = gib * 1024 - int(reserved["memory"].removesuffix("Mi"))
    assert 0 < milli_cores * nodes <= cores * 1000
    # Each is rounded to whole MiB.
    assert 0 < mebibytes * nodes <= gib * 1024 + nodes


def test_the_kubelet_stays_inside_its_cgroup_and_asks_for_certificates() -> None:
    config = node.kubelet_config(LAYOUT, "node-2", {"cpu": "1"})
    assert config["cgroupRoot"] == "/selfheal-main/node-2"
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["clusterDNS"] == [str(DNS_ADDRESS)]
    assert config["kubeReserved"] == {"cpu": "1"}


def test_containerd_takes_our_pause_image_and_its_own_network_folder() -> None:
    config = tomllib.loads(node.containerd_config(Path("/x/node-1"), "localhost/pause:1"))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == "localhost/pause:1"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["cni"]["conf_dir"] == "/x/node-1/cni"
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False}


def test_each_node_gives_out_its_own_pod_addresses() -> None:
    config = json.loads(node.cni_config(LAYOUT, NETWORK, 2))
    assert config["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_control_plane_keeps_its_files_in_the_clusters_folder(part: str) -> None:
    paths = [
        value
        for _, _, value in (
            argument.partition("=") for argument in arguments(LAYOUT, NETWORK, part)
        )
        if value.startswith("/")
    ]
    assert paths
    assert all(Path(path).is_relative_to(LAYOUT.root) for path in paths)


def test_servers_have_names_and_clients_are_in_the_groups_that_kubernetes_expects() -> None:
    made = {c.file: c for c in control_plane_certificates(NETWORK) + node_certificates(NETWORK, 1)}
    assert "IP:10.213.4.2" in made["apiserver"].names
    assert "IP:10.96.0.1" in made["apiserver"].names
    assert made["kubelet-node-1"].subject == "/O=system:nodes/CN=system:node:node-1"
    assert made["kubelet-node-1"].usage == "serverAuth,clientAuth"
    assert made["admin"].usage == "clientAuth"
    assert made["front-proxy"].authority == "front-proxy-ca"


def test_a_kubeconfig_holds_all_that_a_client_needs() -> None:
    text = kubeconfig.render("main", "https://10.213.4.2:6443", b"authority", b"crt", b"key")
    document = yaml.safe_load(text)
    assert document["current-context"] == document["contexts"][0]["name"] == "selfheal-main"
    cluster = document["clusters"][0]["cluster"]
    assert cluster["server"] == "https://10.213.4.2:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"authority"
    assert base64.b64decode(document["users"][0]["user"]["client-key-data"]) == b"key"


def test_the_addons_own_manifests_run_our_images_with_small_requests() -> None:
    container = {
        "name": "keda-metrics-apiserver",
        "image": "ghcr.io/kedacore/keda-metrics-apiserver:main",
        "imagePullPolicy": "Always",
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}},
        "readinessProbe": {"initialDelaySeconds": 20},
    }
    deployment = {
        "kind": "Deployment",
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    other = {"kind": "Service", "spec": {}}

    fitted = addons.fit([deployment, None, other], {"keda-adapter": "localhost/a:1"})  # type: ignore[list-item]

    assert fitted[1] is other
    assert container["image"] == "localhost/a:1"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["resources"] == {
        "requests": {"cpu": "10m", "memory": "64Mi"},
        "limits": {"cpu": "1"},
    }


def test_the_dns_server_has_the_address_that_kubelets_hand_out() -> None:
    text = addons.manifests("coredns", {}, {"coredns": "localhost/coredns:1"})
    documents = list(yaml.safe_load_all(text))
    (service,) = [d for d in documents if d["kind"] == "Service"]
    assert service["spec"]["clusterIP"] == str(DNS_ADDRESS)


def test_only_our_released_volumes_are_recycled() -> None:
    listed = {
        "items": [
            {"metadata": {"name": "shared-1"}, "status": {"phase": "Released"}},
            {"metadata": {"name": "shared-2"}, "status": {"phase": "Bound"}},
            {"metadata": {"name": "foreign"}, "status": {"phase": "Released"}},
            {"metadata": {"name": "shared-3"}, "status": {}},
        ]
    }
    assert volumes.released(json.dumps(listed)) == ["shared-1"]


def test_volumes_are_seen_by_every_node() -> None:
    document = json.loads(volumes.manifests(LAYOUT))
    made = [item for item in document["items"] if item["kind"] == "PersistentVolume"]
    assert len({volume["spec"]["hostPath"]["path"] for volume in made}) == volumes.COUNT
    assert not any("nodeAffinity" in volume["spec"] for volume in made)


def test_pretended_nodes_repel_what_does_not_ask_for_them() -> None:
    items = json.loads(kwok_nodes(3))["items"]
    assert [item["metadata"]["name"] for item in items] == ["kwok-0", "kwok-1", "kwok-2"]
    assert all(item["spec"]["taints"][0]["effect"] == "NoSchedule" for item in items)


@pytest.mark.parametrize(
    ("given_arguments", "own", "forwarded"),
    [
        (["kubectl", "-n", "x", "get", "pods"], ["kubectl"], ["-n", "x", "get", "pods"]),
        (["kubectl", "--name", "b", "get"], ["kubectl", "--name", "b"], ["get"]),
        (["kubectl", "--name=b", "--help"], ["kubectl", "--name=b"], ["--help"]),
        (["kubectl", "--help"], ["kubectl", "--help"], []),
        (["up", "--name", "kubectl"], ["up", "--name", "kubectl"], []),
        ([], [], []),
    ],
)
def test_kubectl_gets_its_arguments_as_they_are(
    given_arguments: list[str], own: list[str], forwarded: list[str]
) -> None:
    assert split(given_arguments) == (own, forwarded)


@pytest.mark.parametrize(("system", "user"), [("darwin", 0), ("linux", 1000), ("win32", 0)])
def test_where_it_cannot_run_it_says_what_to_do_instead(system: str, user: int) -> None:
    with pytest.raises(ClusterError, match="CLUSTER=current"):
        machine.check_system(system, user)


def test_all_missing_packages_are_found_at_once_and_only_those_needed() -> None:
    nothing = machine.missing_packages(Spec(), present=lambda _: False)
    assert {"containerd", "runc", "containernetworking-plugins", "openssl"} <= set(nothing)
    bare = machine.missing_packages(Spec(nodes=0, addons=()), present=lambda _: False)
    assert "containerd" not in bare
    assert machine.missing_packages(Spec(), present=lambda _: True) == []


def test_a_full_disk_is_refused_with_both_numbers() -> None:
    with pytest.raises(ClusterError, match=r"needs about 4\.5 GiB, has 1\.0 GiB"):
        machine.check_space(Spec(), GIB)
    machine.check_space(Spec(), 5 * GIB)


def test_the_state_is_read_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ci.cluster.layout.STATE_ROOT", tmp_path)
    layout = Layout("x")
    layout.root.mkdir()
    written = state.State(Spec(1, ("coredns",), 3), NETWORK, {"etcd": "/e"}, state.READY)
    state.save(layout, written)
    assert state.load(layout) == written
    assert written.programs() == {"etcd": Path("/e")}


def test_what_is_awaited_too_long_is_explained() -> None:
    waiting.until("at once", lambda: True, 0)
    with pytest.raises(ClusterError, match=r"^the moon: not within 0 s\nit is day$"):
        waiting.until("the moon", lambda: False, 0, lambda: "it is day")


@pytest.mark.parametrize(
    "text", ["", "{", "{}", '{"version": 0}', '{"version": 1, "spec": {"nodes": -1}}']
)
def test_a_state_that_cannot_be_read_is_none(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ci.cluster.layout.STATE_ROOT", tmp_path)
    layout = Layout("x")
    layout.root.mkdir()
    layout.state_file.write_text(text)
    assert state.load(layout) is None
    with pytest.raises(ClusterError, match="is not up"):
        state.require(layout)
