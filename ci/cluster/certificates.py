"""Keys and certificates of one cluster, by openssl; all end with the cluster's folder."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ci.cluster import processes
from ci.cluster.errors import ClusterError
from ci.cluster.layout import API_SERVICE_ADDRESS, DOMAIN, Layout, Network

# Longer than any test machine lives, shorter than what strict clients refuse.
_DAYS = "365"


@dataclass(frozen=True)
class Certificate:
    """One certificate to make: `names` are subject alternative names (`DNS:x`, `IP:1.2.3.4`)."""

    file: str
    common_name: str
    organization: str = ""
    names: Sequence[str] = ()
    authority: str = "ca"

    @property
    def usage(self) -> str:
        """A certificate with names is a server's; all may be a client's."""
        return "serverAuth,clientAuth" if self.names else "clientAuth"

    @property
    def subject(self) -> str:
        """In openssl's form; Kubernetes reads O as the group and CN as the user."""
        group = f"/O={self.organization}" if self.organization else ""
        return f"{group}/CN={self.common_name}"


def control_plane_certificates(network: Network) -> list[Certificate]:
    """Those of the API server and of its clients in the control plane."""
    server_names = [
        "DNS:localhost",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        f"DNS:kubernetes.default.svc.{DOMAIN}",
        "IP:127.0.0.1",
        f"IP:{API_SERVICE_ADDRESS}",
        f"IP:{network.control_plane}",
    ]
    return [
        Certificate("apiserver", "kube-apiserver", names=server_names),
        Certificate("admin", "kubernetes-admin", "system:masters"),
        Certificate("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
        Certificate("controller-manager", "system:kube-controller-manager"),
        Certificate("scheduler", "system:kube-scheduler"),
        Certificate("kwok", "selfheal-kwok", "system:masters"),
        Certificate("prometheus", "selfheal-prometheus"),
        Certificate("kube-state-metrics", "selfheal-kube-state-metrics", "system:masters"),
        Certificate("front-proxy", "front-proxy-client", authority="front-proxy-ca"),
    ]


def node_certificates(network: Network, index: int) -> list[Certificate]:
    """The kubelet's (as client and server) and kube-proxy's of one node."""
    node = Layout.node_name(index)
    names = [f"DNS:{node}", f"IP:{network.node(index)}"]
    return [
        Certificate(f"kubelet-{node}", f"system:node:{node}", "system:nodes", names),
        Certificate(f"kube-proxy-{node}", "system:kube-proxy"),
    ]


def issue(layout: Layout, certificates: Sequence[Certificate]) -> None:
    """Writes the authorities, the service-account key pair, and `FILE.crt`, `FILE.key` for each."""
    layout.certificates.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: _authority(layout, name), ("ca", "front-proxy-ca")))
        service_accounts = pool.submit(_service_account_keys, layout)
        list(pool.map(lambda certificate: _issue(layout, certificate), certificates))
        service_accounts.result()


def _authority(layout: Layout, name: str) -> None:
    options = ["-addext", "basicConstraints=critical,CA:TRUE"]
    _request(layout, name, f"/CN=selfheal-{name}", options)


def _issue(layout: Layout, certificate: Certificate) -> None:
    authority = layout.certificates / certificate.authority
    options = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key"]
    options += ["-addext", "basicConstraints=critical,CA:FALSE"]
    options += ["-addext", f"extendedKeyUsage={certificate.usage}"]
    if certificate.names:
        options += ["-addext", f"subjectAltName={','.join(certificate.names)}"]
    _request(layout, certificate.file, certificate.subject, options)


def _request(layout: Layout, name: str, subject: str, options: Sequence[str]) -> None:
    base = layout.certificates / name
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    out = ["-keyout", f"{base}.key", "-out", f"{base}.crt"]
    _openssl(layout, "req", "-x509", *curve, "-days", _DAYS, "-subj", subject, *options, *out)


def _service_account_keys(layout: Layout) -> None:
    key = str(layout.certificates / "service-accounts.key")
    _openssl(
        layout, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key
    )
    public = str(layout.certificates / "service-accounts.pub")
    _openssl(layout, "pkey", "-in", key, "-pubout", "-out", public)


def _openssl(layout: Layout, *arguments: str) -> None:
    done = processes.run(layout, ["openssl", *arguments])
    if done.returncode != 0:
        raise ClusterError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
