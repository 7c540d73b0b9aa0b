"""Kubeconfig files, which hold their certificates, so that each can be copied anywhere."""

import base64
from pathlib import Path

import yaml

from ci.cluster.layout import Layout, Network


def write(layout: Layout, network: Network, certificate: str, target: Path) -> None:
    """Writes `target` for the client of `certificate` (the name of its files)."""
    content = render(
        layout.name,
        network.api_url,
        (layout.certificates / "ca.crt").read_bytes(),
        (layout.certificates / f"{certificate}.crt").read_bytes(),
        (layout.certificates / f"{certificate}.key").read_bytes(),
    )
    target.touch(mode=0o600)
    target.write_text(content)


def render(name: str, server: str, authority: bytes, certificate: bytes, key: bytes) -> str:
    """The text of a kubeconfig with one context, named after the cluster."""
    context = f"selfheal-{name}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority-data": _base64(authority)},
            }
        ],
        "users": [
            {
                "name": context,
                "user": {
                    "client-certificate-data": _base64(certificate),
                    "client-key-data": _base64(key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
    }
    return yaml.safe_dump(document, sort_keys=False)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
