"""What a kubelet writes of a pod's containers. Each function edits a pod's JSON."""

from __future__ import annotations

from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json, stamp

#: pkg/kubelet/kubelet.go: seconds before a container is started again: doubled each time.
FIRST_BACKOFF, LONGEST_BACKOFF = 10.0, 300.0


def backoff(restarts: int) -> float:
    """Seconds before the next start after so many; the first one comes at once."""
    return (
        0.0 if restarts == 0 else float(min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (restarts - 1)))
    )


def begin(raw: Json, now: float, host_ip: str, pod_ip: str) -> None:
    """The pod's sandbox is made."""
    status = raw["status"]
    status["phase"] = "Pending"
    status["startTime"] = stamp(now)
    status["hostIP"], status["podIP"] = host_ip, pod_ip
    conditions.put(raw, "Initialized", "True", now)
    status["containerStatuses"] = [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "ready": False,
            "started": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}},
            "lastState": {},
        }
        for container in raw["spec"]["containers"]
    ]
    ready(raw, now, is_ready=False)


def run(raw: Json, now: float) -> None:
    """All containers start; those that ran before, again."""
    raw["status"]["phase"] = "Running"
    for item in raw["status"]["containerStatuses"]:
        item |= {"started": True, "state": {"running": {"startedAt": stamp(now)}}}


def ready(raw: Json, now: float, *, is_ready: bool) -> None:
    """The readiness probes succeed, or fail."""
    status, reason = ("True", "") if is_ready else ("False", "ContainersNotReady")
    for kind in ("ContainersReady", "Ready"):
        conditions.put(raw, kind, status, now, reason=reason)
    for item in raw["status"].get("containerStatuses") or ():
        item["ready"] = is_ready


def wait(raw: Json, now: float, reason: str) -> None:
    """The containers cannot be started, or not yet."""
    for item in raw["status"]["containerStatuses"]:
        item |= {"started": False, "state": {"waiting": {"reason": reason, "message": reason}}}
    ready(raw, now, is_ready=False)


def fail(raw: Json, now: float, code: int, reason: str = "Error") -> None:
    """The containers end and are to be started again."""
    ended = {"exitCode": code, "reason": reason, "finishedAt": stamp(now)}
    for item in raw["status"].get("containerStatuses") or ():
        item |= {
            "restartCount": item["restartCount"] + 1,
            "started": False,
            "lastState": {"terminated": ended},
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        }
    ready(raw, now, is_ready=False)


def finish(raw: Json, now: float, code: int) -> None:
    """The containers end for good."""
    raw["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
    reason = "Completed" if code == 0 else "Error"
    ended = {"exitCode": code, "reason": reason, "finishedAt": stamp(now)}
    for item in raw["status"].get("containerStatuses") or ():
        item |= {"ready": False, "started": False, "state": {"terminated": ended}}
    conditions.put(raw, "Ready", "False", now, reason="PodCompleted")
