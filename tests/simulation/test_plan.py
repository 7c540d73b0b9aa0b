"""What `plan` says beforehand is what the remediator does: pod by pod and step by step, in clusters
that a seed makes. `python -m tests.simulation.plans FIRST NUMBER` shows what was said and happened.
"""

from tests.simulation.plans.run import Result, pods_and_steps, run, table

SEEDS = range(4000, 4030)
#: Of pods and steps, and of all that a plan says.
SHARE = 0.99
#: Of these there is something to compare in each run.
KINDS = {
    *("pod: goes", "pod: stays", "pod: a budget refuses", "pod: a later wave"),
    *("pod: may complete until", "pod: no room elsewhere", "pod: surge", "pod: its node waits"),
    *("step: job", "step: wait", "step: webhook", "step: verify", "node: drain waits"),
}


def test_what_is_planned_is_done() -> None:
    results = [run(seed) for seed in SEEDS]
    assert [line for one in results for line in one.unexpected] == []
    shown = [one for result in results for one in result.findings]
    assert {one.kind for one in shown} >= KINDS
    for found in (pods_and_steps(shown), shown):
        assert sum(one.right for one in found) >= SHARE * len(found), _story(results)


def _story(results: list[Result]) -> str:
    misses = [
        f"seed {result.seed}: {one.kind}: {one.subject}: {one.shown} -> {one.happened}"
        for result in results
        for one in result.findings
        if not one.right
    ]
    return "\n".join([*misses, table(results)])
