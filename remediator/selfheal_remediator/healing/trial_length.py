"""How long a restarted pod's replacement must be healthy before that proves anything. Pure.

A container that crashes runs for a while each time: a replacement that has not crashed yet has
proved nothing. How long its predecessors ran before they crashed is known from their kubelets, as
a duration, which needs no common clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from selfheal_remediator.healing.pod_health import Container

#: At least so long (seconds), however soon the policy calls a pod unhealthy. Within it a container
#: that crashes at once has crashed three times: the kubelet waits 0, 10 and 20 s before it starts
#: it again.
LEAST = 60.0
#: Containers do not crash after exactly the same time.
MARGIN = 1.5
#: After a run of so long (seconds) the kubelet starts a container again without back-off: what
#: ended it was no crash loop.
#: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
LONGEST_RUN = 600.0


def trial_seconds(
    lasting: float, checks: int, interval: float, containers: Iterable[Container]
) -> float:
    """Seconds for which the replacement must be healthy.

    lasting: how long the fault must last until it counts, in seconds. checks: failed evaluations
    until it counts, `interval` seconds apart. containers: those of the pods that have the fault.
    """
    runs = (item.ran for item in containers if item.ran is not None and item.ran <= LONGEST_RUN)
    return max(LEAST, lasting, checks * interval, MARGIN * max(runs, default=0.0))
