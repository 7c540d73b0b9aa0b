"""What one writes with a watch and kubectl: for each bad node `kubectl cordon` or `kubectl drain`.

Usage: kubectl_loop.py KUBECTL KUBECONFIG CONDITION cordon|drain. Ten at a time. Prints `ready`.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

DRAIN = ["drain", "--ignore-daemonsets", "--delete-emptydir-data", "--force"]


def main() -> None:
    """Until killed."""
    kubectl, kubeconfig, condition, action = sys.argv[1:]
    base = [kubectl, f"--kubeconfig={kubeconfig}"]
    take = [*base, *(DRAIN if action == "drain" else ["cordon"])]
    status = f'{{.status.conditions[?(@.type=="{condition}")].status}}'
    shown = f'jsonpath={{.metadata.name}} {status}{{"\\n"}}'
    watch = [*base, "get", "nodes", "--watch-only", "-o", shown]
    done: set[str] = set()
    with (
        ThreadPoolExecutor(10) as pool,
        subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in process.stdout:
            name, _, bad = line.strip().partition(" ")
            if bad == "True" and name not in done:
                done.add(name)
                pool.submit(subprocess.run, [*take, name], stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
