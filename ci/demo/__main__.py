"""`python -m ci.demo`: the whole of selfheal on a real cluster, watched by a person."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from ci.cluster import Cluster, ClusterError
from ci.cluster.cluster import DEFAULT_NAME
from ci.cluster.errors import DISK_ERRORS
from ci.demo import model as models
from ci.demo import seen, story
from ci.demo import site as sites
from ci.demo.console import Console
from ci.demo.kube import CommandFailed
from ci.demo.texts import TooFewTexts, feedback
from ci.demo.world import NeverHappened
from ci.images import ImagesError
from ci.ollama import OllamaFailed
from ci.parts import PartsError
from ci.pypi import FetchFailed

RELEASE = NAMESPACE = "selfheal"
_IMPOSSIBLE = (sites.NotReady, models.UnknownModel, TooFewTexts)
_FAILED = (
    *(CommandFailed, NeverHappened, ClusterError),
    *(PartsError, ImagesError, OllamaFailed, FetchFailed),
)

_EPILOG = """environment:
  CLUSTER=local     a real cluster on this machine (the default; needs root or sudo, Linux)
  CLUSTER=current   the kubeconfig at hand, with KEDA; VALUES=<file> names the images
  MODEL=builtin     the model inside the worker's image (the default)
  MODEL=ollama      a real Ollama in the cluster, with SmolLM2 (135 million parameters)
exit status: 0 nothing lost; 1 the account does not hold, or a step failed; 2 not possible here;
             130 stopped"""


def main() -> int:
    """Run the demo; gives the exit status."""
    options = _arguments()
    console = Console()
    # A closed terminal and `kill` are as Ctrl-C: what was begun is ended, helper processes too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    try:
        return _down(console, options.cluster) if options.down else _demo(console, options)
    except _IMPOSSIBLE as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except _FAILED as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; `make demo-down` takes the cluster away", file=sys.stderr)
        return 130


def _demo(console: Console, options: argparse.Namespace) -> int:
    started = time.monotonic()
    model = models.chosen()
    sites.check()
    first, second, third = model.texts
    wanted = story.Options(options.texts or first, second, third, model.patience, options.node)
    texts = feedback(wanted.first_wave + wanted.second_wave + wanted.third_wave)
    site = sites.find(console, options.cluster, model)
    sites.check_node(site, options.node)
    with console.step("helm install"):
        sites.clear(site, RELEASE, NAMESPACE)
        install(site, console)
    with story.opened(site.kube, console, NAMESPACE, RELEASE, wanted) as told:
        with console.step("The parts find each other"):
            story.settle(told)
        account = story.tell(told, texts)
    if site.local:
        with console.step("What Prometheus saw"):
            since = told.facts["begun"] = told.begun.timestamp()
            told.facts["prometheus"] = seen.tell(console, site.local.prometheus, since)
    facts = {**told.facts, "steps_seconds": console.timings}
    facts["seconds"] = round(time.monotonic() - started, 1)
    if options.report:
        options.report.write_text(json.dumps(facts, indent=2) + "\n")
    console.conclusion(f"{account}", good=account.holds)
    return 0 if account.holds else 1


def install(site: sites.Site, console: Console) -> None:
    """Install the chart, and wait for what it made."""
    command = ["install", RELEASE, str(sites.CHART), "--namespace", NAMESPACE]
    command += [*site.arguments, "--wait", "--timeout", "5m"]
    console.say(f"helm install {RELEASE} ./chart --namespace {NAMESPACE} …")
    sites.make_namespace(site, NAMESPACE)
    site.kube.helm(*command)
    if site.local:
        arguments = ["--namespace", NAMESPACE, *site.arguments]
        prometheus = site.local.prometheus
        count = seen.load_rules(prometheus, site.kube, RELEASE, str(sites.CHART), arguments)
        console.say(f"Prometheus has the chart's {count} alerts: {prometheus.url}")


def _down(console: Console, name: str) -> int:
    sites.check()
    if sites.is_current():
        with console.step("helm uninstall"):
            sites.clear(sites.current(console), RELEASE, NAMESPACE)
        return 0
    with console.step("Take the local cluster away"):
        Cluster(name, say=console.say).down()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ci.demo",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the facts as JSON")
    parser.add_argument(
        "--texts",
        type=int,
        metavar="N",
        help="texts of the first wave (default: 500; with MODEL=ollama 24)",
    )
    parser.add_argument("--node", default="", help="the node that gets the fault")
    parser.add_argument(
        "--cluster", default=DEFAULT_NAME, metavar="NAME", help="name of the local cluster (main)"
    )
    parser.add_argument("--down", action="store_true", help="take everything away again")
    options = parser.parse_args()
    if options.texts is not None and options.texts < 1:
        parser.error(f"--texts is {options.texts}; allowed: 1 or more")
    if options.report and options.report.is_dir():
        parser.error(f"--report: {options.report} is a folder")
    if options.report and not os.access(options.report.absolute().parent, os.W_OK):
        parser.error(f"--report: {options.report.absolute().parent} cannot be written to")
    return options


if __name__ == "__main__":
    sys.exit(main())
