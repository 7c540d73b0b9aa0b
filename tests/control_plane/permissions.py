"""An account with exactly the permissions that the chart grants to the remediator."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.control_plane.site import Site

Rules = dict[str, list[dict[str, Any]]]
ROOT = Path(__file__).parents[2]


def chart_permissions(helm: Path, *settings: str) -> Rules:
    """Rules of the chart's ClusterRole and Role; the Role is for a Lease named `remediator`."""
    shown = [f"templates/remediator/{kind}.yaml" for kind in ("clusterrole", "role")]
    command = [str(helm), "template", "remediator", str(ROOT / "chart")]
    for template in shown:
        command += ["--show-only", template]
    text = subprocess.run(
        [*command, *settings, "--set", "fullnameOverride=x"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.replace("x-remediator", "remediator")
    return {item["kind"]: item["rules"] for item in yaml.safe_load_all(text) if item}


def account_kubeconfig(site: Site, rules: Rules, path: Path) -> None:
    """Make the account, bind the rules, write a kubeconfig with its token."""
    account = {"kind": "ServiceAccount", "name": "remediator", "namespace": site.name}
    group = "/apis/rbac.authorization.k8s.io/v1"
    spaced = f"{group}/namespaces/{site.name}"
    site.create(
        f"/api/v1/namespaces/{site.name}/serviceaccounts", {"metadata": {"name": "remediator"}}
    )
    for kind, place in (("ClusterRole", group), ("Role", spaced)):
        meta = {"metadata": {"name": f"{site.name}-remediator"}}
        site.create(f"{place}/{kind.lower()}s", {**meta, "rules": rules[kind]})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind}
        site.create(
            f"{place}/{kind.lower()}bindings",
            {**meta, "subjects": [account], "roleRef": {**reference, **meta["metadata"]}},
        )
    token = site.create(
        f"/api/v1/namespaces/{site.name}/serviceaccounts/remediator/token",
        {"spec": {"expirationSeconds": 7200}},
    )["status"]["token"]
    config = yaml.safe_load(site.kubeconfig.read_text())
    config["users"] = [{"name": "remediator", "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = "remediator"
    path.write_text(yaml.safe_dump(config))
