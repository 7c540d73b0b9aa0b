"""What the API server itself allows: watch nodes, cordon what is bad, without any guard.

Usage: bare_cordon_loop.py KUBECONFIG CONDITION. Prints `ready` when the watch has begun.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from remediator.kubernetes_api import KubernetesApi, load_configuration
from remediator.settings import ApiBudget


def main() -> None:
    """Run until killed."""
    kubeconfig, condition = Path(sys.argv[1]), sys.argv[2]
    access, _ = load_configuration(kubeconfig)
    api = KubernetesApi(access, "default", ApiBudget(qps=10000, burst=10000))
    pool = ThreadPoolExecutor(32)
    done: set[str] = set()
    nodes = api.nodes()
    version = ""
    for _, page_version in nodes.pages():
        version = page_version
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for event in nodes.watch(version, threading.Event()):
        raw = event.raw
        bad = any(
            item["type"] == condition and item["status"] == "True"
            for item in (raw.get("status") or {}).get("conditions") or ()
        )
        name = raw["metadata"].get("name", "")
        if bad and name not in done and not raw["spec"].get("unschedulable"):
            done.add(name)
            pool.submit(_cordon, api, name)


def _cordon(api: KubernetesApi, name: str) -> None:
    answer = api.send(
        "PATCH",
        f"/api/v1/nodes/{name}",
        body={"spec": {"unschedulable": True}},
        content_type="application/merge-patch+json",
    )
    if not answer.ok:
        sys.stderr.write(json.dumps(answer.json()) + "\n")


if __name__ == "__main__":
    main()
