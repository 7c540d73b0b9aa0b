"""How a world's drains are configured beside the defaults, by a seed, and what that is about: pods
that complete, a taint of our own, conditions of nodes, and Deployments that ask for a surge.
"""

from __future__ import annotations

from random import Random
from typing import Any

from selfheal_remediator.drain.surge import SURGE_KEY
from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json
from tests.simulation.remediator.ladders import StepJobs

TAINT = "example.com/out-of-service"
#: The application that asks for a surge; the label of pods that end by themselves.
SINGLE, ENDS = "single", "ends"


def add_habits(
    cluster: Cluster, chance: Random, settings: dict[str, Any], story: list[str]
) -> None:
    """settings: of the configuration file, changed in place."""
    drain: dict[str, Any] = settings["drain"]
    if chance.random() < 0.35:
        longest = chance.choice(("60s", "300s"))
        drain["waitForCompletion"] = {"max": longest}
        for number in range(chance.choice((1, 3))):
            job = objects.job("default", f"batch-{number}", completions=4)
            job["spec"]["template"]["metadata"]["labels"][ENDS] = chance.choice(
                ("40", "200", "700")
            )
            cluster.add(job)
        story.append(f"Jobs whose pods may complete, for at most {longest}")
    if chance.random() < 0.25:
        effect = chance.choice(("NoSchedule", "PreferNoSchedule"))
        settings["taint"] = {"key": TAINT, "effect": effect}
        story.append(f"the taint {TAINT}:{effect}")
    if chance.random() < 0.3:
        drain["lifecycleConditions"] = True
        story.append("conditions of drains")
    if chance.random() < 0.35:
        drain["surge"] = True
        raw = objects.deployment("default", SINGLE, 1)
        raw["metadata"]["annotations"] = {SURGE_KEY: "true"}
        cluster.add(raw)
        cluster.add(objects.budget("default", SINGLE, {"app": SINGLE}, minAvailable=1))
        story.append(f"Deployment {SINGLE} asks for a surge")


def behaviour(pod: Json, steps: StepJobs) -> Behaviour | None:
    """Of pods of Jobs, None = of others."""
    seconds = (pod["metadata"].get("labels") or {}).get(ENDS)
    if seconds is not None:
        return Behaviour(run=float(seconds))
    return steps.behaviour(pod)
