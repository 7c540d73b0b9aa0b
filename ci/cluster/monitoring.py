"""Prometheus, Alertmanager and kube-state-metrics, as processes beside the control plane.

From its network every pod and kubelet is reached, and what they have seen outlives every node. They
run by the examples in alerts/, with only that changed which is different outside of a pod.
"""

import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from ci.cluster import kubeconfig, processes
from ci.cluster.layout import Layout, Network
from ci.cluster.network import CONTROL_PLANE
from ci.cluster.waiting import until_answers

PARTS = ("kube-state-metrics", "prometheus", "alertmanager")
USER = "selfheal-prometheus"
PROMETHEUS_PORT, ALERTMANAGER_PORT = 9090, 9093
_STATE_METRICS = "127.0.0.1:18080"
_EXAMPLES = Path(__file__).parents[2] / "alerts"
_PAGE = Path(__file__).with_name("prometheus.html")
_SECONDS = 60
# What alerts and dashboards use; each kind is a watch more on a small API server.
_KINDS = "daemonsets,deployments,horizontalpodautoscalers,nodes,pods,statefulsets"


def start(layout: Layout, network: Network, programs: Mapping[str, Path]) -> None:
    """Writes the configuration and starts all three without waiting for them."""
    for user in ("prometheus", "kube-state-metrics"):
        kubeconfig.write(layout, network, user, layout.certificates / f"{user}.kubeconfig")
    home = folder(layout)
    # Without its own pages, which Go's module lacks, it shows what is in this folder.
    pages = home / "web" / "ui" / "static" / "mantine-ui"
    for made in (pages, rules_folder(layout)):
        made.mkdir(parents=True)
    shutil.copy(_PAGE, pages / "index.html")
    example = yaml.safe_load((_EXAMPLES / "prometheus.yaml").read_text(encoding="utf-8"))
    (home / "prometheus.yaml").write_text(yaml.safe_dump(configuration(example, layout)))
    for part in PARTS:
        start_part(layout, programs, part)


def start_part(layout: Layout, programs: Mapping[str, Path], part: str) -> None:
    """Starts one of PARTS."""
    home = folder(layout)
    arguments: dict[str, list[str]] = {
        "prometheus": [
            f"--config.file={home / 'prometheus.yaml'}",
            f"--storage.tsdb.path={home / 'data'}",
            "--storage.tsdb.retention.time=12h",
            f"--web.listen-address=:{PROMETHEUS_PORT}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ],
        "alertmanager": [
            f"--config.file={_EXAMPLES / 'alertmanager.yaml'}",
            f"--storage.path={home / 'alertmanager'}",
            f"--web.listen-address=:{ALERTMANAGER_PORT}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ],
        "kube-state-metrics": [
            f"--kubeconfig={layout.certificates / 'kube-state-metrics.kubeconfig'}",
            f"--host={_STATE_METRICS.partition(':')[0]}",
            f"--port={_STATE_METRICS.partition(':')[2]}",
            "--telemetry-host=127.0.0.1",
            "--telemetry-port=18081",
            f"--resources={_KINDS}",
        ],
    }
    command: list[str | Path] = ["env", f"--chdir={home}", programs[part], *arguments[part]]
    processes.start(layout, part, command, inside=CONTROL_PLANE)


def wait_ready(layout: Layout, network: Network) -> None:
    """Until Prometheus and Alertmanager answer."""
    for part, url in urls(network).items():
        until_answers(layout, part, f"{url}/-/ready", _SECONDS)


def urls(network: Network) -> dict[str, str]:
    """Where Prometheus and Alertmanager are, as seen from the host."""
    ports = {"prometheus": PROMETHEUS_PORT, "alertmanager": ALERTMANAGER_PORT}
    return {part: f"http://{network.control_plane}:{port}" for part, port in ports.items()}


def folder(layout: Layout) -> Path:
    """Prometheus' own folder; it searches for its pages only in one of this name."""
    return layout.root / "prometheus"


def rules_folder(layout: Layout) -> Path:
    """Where Prometheus searches for rules when it is asked to."""
    return folder(layout) / "rules"


def rights() -> str:
    """The role of the example, for the user that Prometheus is here."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": USER},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "prometheus-selfheal",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    }
    role = (_EXAMPLES / "prometheus-role.yaml").read_text(encoding="utf-8")
    return f"{role}---\n{yaml.safe_dump(binding)}"


def configuration(example: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """The example outside of a pod: certificates for its token, and shorter times. Pure."""
    pki = layout.certificates
    found = deepcopy(dict(example))
    found["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    [manager] = found["alerting"]["alertmanagers"]
    manager["static_configs"] = [{"targets": [f"127.0.0.1:{ALERTMANAGER_PORT}"]}]
    for job in found["scrape_configs"]:
        if job["job_name"] == "kube-state-metrics":
            del job["kubernetes_sd_configs"], job["relabel_configs"]
            job["static_configs"] = [{"targets": [_STATE_METRICS]}]
        if job["job_name"] == "cadvisor":
            del job["authorization"]
            job["tls_config"] = {
                "ca_file": str(pki / "ca.crt"),
                "cert_file": str(pki / "prometheus.crt"),
                "key_file": str(pki / "prometheus.key"),
            }
        for discovery in job.get("kubernetes_sd_configs", []):
            discovery["kubeconfig_file"] = str(pki / "prometheus.kubeconfig")
    return found
