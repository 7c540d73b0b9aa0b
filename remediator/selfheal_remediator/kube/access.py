"""Access to a cluster: a kubeconfig, or the pod's service account."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from kubernetes.client import Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

#: How to reach a cluster and be let in.
Access = Configuration


class NoCluster(Exception):
    """No usable cluster configuration; the message names the places that were tried."""


def load_configuration(
    kubeconfig: Path | None = None, context: str | None = None
) -> tuple[Configuration, str]:
    """Access to a cluster, and the namespace it is used from.

    The given kubeconfig, else the pod's service account, else the default kubeconfig.
    Raises NoCluster.
    """
    configuration = Configuration()
    service_account = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    try:
        if kubeconfig is None and context is None and service_account.exists():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration, service_account.read_text(encoding="utf-8").strip()
        load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig) if kubeconfig else None,
            context=context,
            client_configuration=configuration,
        )
    except (ConfigException, OSError) as error:
        where = str(kubeconfig) if kubeconfig else "KUBECONFIG, ~/.kube/config or a pod's account"
        raise NoCluster(f"no cluster access ({where}): {error}") from error
    if not urlsplit(str(configuration.host)).hostname:
        raise NoCluster(f"the kubeconfig names no server: {configuration.host!r}")
    return configuration, "default"
