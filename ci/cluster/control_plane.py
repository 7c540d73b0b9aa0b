"""etcd, API server, controller manager and scheduler, all in one network namespace of their own."""

import json
from collections.abc import Mapping
from pathlib import Path

from ci.cluster import kubeconfig, processes
from ci.cluster.layout import API_PORT, POD_NETWORK, SERVICE_NETWORK, Layout, Network
from ci.cluster.network import CONTROL_PLANE
from ci.cluster.waiting import until_answers

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_ETCD_URL = "http://127.0.0.1:2379"
# A cluster of one lives on one disk and dies with it: what fsync protects from is not survived.
_ETCD_PEER_URL = "http://127.0.0.1:2380"


def start(layout: Layout, network: Network, programs: Mapping[str, Path]) -> None:
    """Starts all four without waiting for them; they wait for each other."""
    for part in ("controller-manager", "scheduler"):
        kubeconfig.write(layout, network, part, layout.certificates / f"{part}.kubeconfig")
    for part in PARTS:
        start_part(layout, network, programs, part)


def start_part(layout: Layout, network: Network, programs: Mapping[str, Path], part: str) -> None:
    """Starts one of PARTS."""
    command: list[str | Path] = [programs[part], *arguments(layout, network, part)]
    processes.start(layout, part, command, inside=CONTROL_PLANE)


def wait_ready(layout: Layout, network: Network, seconds: float) -> None:
    """Until the API server says that it is ready, and both others hold their leases or listen."""
    until_answers(layout, "kube-apiserver", f"{network.api_url}/readyz", seconds)


def arguments(layout: Layout, network: Network, part: str) -> list[str]:
    """The command line of one of PARTS, without the program."""
    pki = layout.certificates
    if part == "etcd":
        return _etcd(layout)
    if part == "kube-apiserver":
        return [*_apiserver(pki, network), *_audit(layout)]
    if part == "kube-controller-manager":
        return _controller_manager(layout)
    return _scheduler(pki)


def _etcd(layout: Layout) -> list[str]:
    return [
        "--name=etcd",
        f"--data-dir={layout.root / 'etcd'}",
        f"--listen-client-urls={_ETCD_URL}",
        f"--advertise-client-urls={_ETCD_URL}",
        f"--listen-peer-urls={_ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={_ETCD_PEER_URL}",
        f"--initial-cluster=etcd={_ETCD_PEER_URL}",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=2147483648",
        "--log-level=warn",
    ]


def _apiserver(pki: Path, network: Network) -> list[str]:
    return [
        f"--etcd-servers={_ETCD_URL}",
        f"--advertise-address={network.control_plane}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy.key'}",
        # Aggregated APIs and webhooks are called at their pods: no kube-proxy runs beside this.
        "--enable-aggregator-routing=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def write_audit_policy(layout: Layout) -> None:
    """From its next start on the API server writes down each request, without its content."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }
    layout.audit_policy.write_text(json.dumps(policy))


def _audit(layout: Layout) -> list[str]:
    if not layout.audit_policy.exists():
        return []
    return [
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-mode=batch",
        "--audit-log-batch-max-wait=1s",
    ]


def _controller_manager(layout: Layout) -> list[str]:
    pki = layout.certificates
    config = pki / "controller-manager.kubeconfig"
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        "--use-service-account-credentials=true",
        f"--cluster-cidr={POD_NETWORK}",
        "--allocate-node-cidrs=false",
        # It makes this folder; the default is one of the machine's own.
        f"--flex-volume-plugin-dir={layout.root / 'volume-plugins'}",
        # It is alone: an election would only delay its start.
        "--leader-elect=false",
        "--profiling=false",
        # Each controller has this for itself. With its 20 a second the taints of thousands of
        # pretended nodes go in minutes.
        "--kube-api-qps=500",
        "--kube-api-burst=500",
    ]


def _scheduler(pki: Path) -> list[str]:
    config = pki / "scheduler.kubeconfig"
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--profiling=false",
        # A pod whose claim is bound in the moment in which it is read may be woken before the
        # volumes' cache knows of it; then only this wakes it again, by default after five minutes.
        "--pod-max-in-unschedulable-pods-duration=10s",
    ]
