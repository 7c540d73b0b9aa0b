"""`python -m ci.chaos`: faults on a real cluster under load, one after the other, by a seed.

After each fault every message must be answered or dead-lettered and every node and pod be back;
limits, and cordons of other people, are evaluated all the time.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ci import images, parts
from ci.chaos import schedule
from ci.chaos.faults import FAULTS
from ci.chaos.schedule import Outcome
from ci.chaos.stage import FOREIGN, Stage
from ci.cluster import Cluster, ClusterError, Spec, kwok
from ci.demo import site as sites
from ci.demo.console import Console
from ci.demo.kube import CommandFailed, Kube
from ci.demo.mailbox import Mailbox
from ci.demo.tally import Tally, tally
from ci.demo.world import NeverHappened, World
from ci.images import ImagesError
from ci.parts import PartsError

RELEASE = NAMESPACE = "selfheal"
_VALUES = (
    Path(__file__).parents[1] / "demo/values.yaml",
    Path(__file__).with_name("values.yaml"),
)
_FAILED = (sites.NotReady, CommandFailed, NeverHappened, ClusterError, PartsError, ImagesError)


def main() -> int:
    """0: all survived; 1: something did not; 2: not possible here; 130: stopped."""
    options = _arguments()
    console = Console()
    try:
        sites.check()
        if options.down:
            Cluster(options.cluster, say=console.say).down()
            return 0
        return _chaos(console, options)
    except _FAILED as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2 if isinstance(error, sites.NotReady) else 1
    except KeyboardInterrupt:
        print("chaos: stopped; --down takes the cluster away", file=sys.stderr)
        return 130


def _chaos(console: Console, options: argparse.Namespace) -> int:
    # Commands that publish and read find out soon that a wire is dead.
    os.environ.setdefault("AMQP_HEARTBEAT", "6")
    console.say(f"seed {options.seed} (--seed {options.seed} replays it)")
    cluster = Cluster(options.cluster, Spec(kwok=0), say=console.say)
    with console.step("A real cluster on this machine, and a node that somebody else has cordoned"):
        cluster.up()
        site = _site(cluster)
        sites.clear(site, RELEASE, NAMESPACE)
        _cordon_foreign(site.kube)
    with console.step("helm install"):
        sites.make_namespace(site, NAMESPACE)
        site.kube.helm(
            *("install", RELEASE, *site.arguments, "--namespace", NAMESPACE),
            *("--wait", "--timeout", "8m"),
        )
    with ExitStack() as stack:
        selections = {"pods": ["pods", "--all-namespaces"], "nodes": ["nodes"]}
        world = stack.enter_context(World(site.kube, selections))
        mailbox = Mailbox(site.kube, NAMESPACE, RELEASE, world.changed)
        stack.enter_context(mailbox.reading())
        stage = Stage(site.kube, cluster, world, mailbox, NAMESPACE, RELEASE, site.arguments)
        with stage.under_load():
            with console.step("Load; all is healthy before the first fault"):
                seconds, left = stage.recover(options.patience)
                if seconds is None:
                    raise NeverHappened(f"not healthy at the start: {'; '.join(left)}")
            outcomes = _strike(console, options, stage)
        with console.step("The load ends; what is left is answered"):
            account = _account(stage, options.patience)
        leaks = _leaks(site.kube)
    return _conclude(console, options, outcomes, account, leaks)


def _site(cluster: Cluster) -> sites.Site:
    """The local cluster with the images of this checkout, and what helm is to be given."""
    arguments = [str(sites.CHART)]
    for file in _VALUES:
        arguments += ["--values", str(file)]
    built = images.ensure(list(sites.IMAGES))
    for name, key in sites.IMAGES.items():
        cluster.load(built[name].archive)
        repository, _, tag = built[name].ref.rpartition(":")
        arguments += ["--set-string", f"{key}.image.repository={repository}"]
        arguments += ["--set-string", f"{key}.image.tag={tag}"]
    programs = parts.ensure(["kubectl", "helm"])
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
    return sites.Site(kube, arguments, cluster)


def _cordon_foreign(kube: Kube) -> None:
    """A node with a condition that a rule is about, cordoned before the remediator came."""
    made = kwok.node(FOREIGN)
    made["spec"]["unschedulable"] = True
    kube.kubectl("apply", "-f", "-", input=json.dumps(made))
    bad = {"type": "ChaosClock", "status": "True", "reason": "Chaos", "message": "bad for long"}
    patch = json.dumps({"status": {"conditions": [bad]}})
    kube.kubectl("patch", "node", FOREIGN, "--subresource=status", "-p", patch)


def _strike(console: Console, options: argparse.Namespace, stage: Stage) -> list[Outcome]:
    outcomes: list[Outcome] = []
    ends = time.monotonic() + options.minutes * 60
    for number, name in enumerate(schedule.order(options.only or list(FAULTS), options.seed), 1):
        if time.monotonic() >= ends or number > options.faults:
            return outcomes
        with console.step(f"{number}. {name}"):
            outcome = _one(stage, name, schedule.chance_of(options.seed, number), options.patience)
            for said in outcome.broken:
                console.say(f"NOT SO: {said}")
            if outcome.seconds is not None:
                answered = len(stage.mailbox.answered(""))
                console.say(f"all is healthy {outcome.seconds:.1f} s later; {answered} answered")
        outcomes.append(outcome)
        if outcome.seconds is None:
            return outcomes  # what comes after would say nothing
    return outcomes


def _one(stage: Stage, name: str, chance: random.Random, patience: float) -> Outcome:
    before = len(stage.seen)
    broken: list[str] = []
    try:
        FAULTS[name](stage, chance)
    except (CommandFailed, ClusterError, NeverHappened) as error:
        broken.append(f"the fault itself: {error}")
    seconds, left = stage.recover(patience)
    broken += [*left, *stage.seen[before:]]
    return Outcome(name, seconds, tuple(broken))


def _account(stage: Stage, patience: float) -> Tally:
    """Published = answered + dead-lettered, when nothing more comes."""
    ids = stage.published
    good = ids - stage.poison

    def all_answered() -> bool:
        return good <= stage.mailbox.answered("")

    with contextlib.suppress(NeverHappened):  # the account says how many are missing
        stage.world.until("all are answered", all_answered, patience)
    answers = [str(r["id"]) for r in stage.mailbox.results]
    letters = [str(one["message_id"]) for one in stage.mailbox.dead_letters()]
    # A batch whose confirm was cut off and the chaos' end came is neither published nor unknown.
    known = [key for key in answers if key in ids]
    return tally(ids, known, [key for key in letters if key in ids])


def _leaks(kube: Kube) -> list[str]:
    """Pods in whose log a password of the broker is."""
    data = kube.get("secret", f"{RELEASE}-rabbitmq", "-n", NAMESPACE)["data"]
    words = [base64.b64decode(data[key]).decode() for key in ("password", "monitor-password")]
    found = []
    for pod in kube.items("pods", "-n", NAMESPACE):
        name = pod["metadata"]["name"]
        log = kube.kubectl("-n", NAMESPACE, "logs", name, "--all-containers", "--ignore-errors")
        found += [f"the log of {name} holds a password" for word in words if word in log]
    return found


def _conclude(
    console: Console,
    options: argparse.Namespace,
    outcomes: list[Outcome],
    account: Tally,
    leaks: list[str],
) -> int:
    rows = schedule.table(outcomes)
    console.table(["fault", "times", "survived", "median s", "worst s"], rows)
    survived = sum(one.survived for one in outcomes)
    for said in leaks:
        console.say(f"NOT SO: {said}")
    good = survived == len(outcomes) and account.holds and not leaks
    if options.report:
        facts: dict[str, Any] = {
            "seed": options.seed,
            "outcomes": [vars(one) for one in outcomes],
            "tally": vars(account),
            "leaks": leaks,
        }
        options.report.write_text(json.dumps(facts, indent=2) + "\n")
    console.conclusion(
        f"seed {options.seed}: {survived} of {len(outcomes)} survived; {account}", good
    )
    return 0 if good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ci.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="begin no fault after (15)")
    parser.add_argument("--faults", type=int, default=1_000_000, help="at most so many faults")
    parser.add_argument("--seed", type=int, help="replay this order and these choices")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="only this fault")
    parser.add_argument("--patience", type=float, default=240.0, help="seconds to recover (240)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the facts as JSON")
    parser.add_argument("--cluster", default="chaos", metavar="NAME", help="its name (chaos)")
    parser.add_argument("--down", action="store_true", help="take the cluster away")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1, 10**6)
    return options


if __name__ == "__main__":
    sys.exit(main())
