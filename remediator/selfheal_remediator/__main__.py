"""Command line: `selfheal-remediator run | plan | status | pause | resume | exclude | …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from selfheal_remediator import run as service
from selfheal_remediator.cli import commands
from selfheal_remediator.config import SettingsError
from selfheal_remediator.failures import ApiFailure, Failure
from selfheal_remediator.kube.access import NoCluster
from selfheal_remediator.kube.transport import Pool
from selfheal_remediator.threads.runtime import REAL, Runtime

EPILOG = """\
exit status: 0 done, 1 it failed, 2 wrong usage or configuration, 3 a permission is missing

to stop all remediation at once:  selfheal-remediator pause --why "…"
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="selfheal-remediator",
        description="Cordons and drains unhealthy nodes, and uncordons recovered ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands_ = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    access = _access()

    run = commands_.add_parser("run", parents=[access], help="run the daemon (in the cluster)")
    run.set_defaults(function=service.run)

    plan = commands_.add_parser(
        "plan",
        parents=[access],
        help="show what would be done to which node and why; changes nothing",
        description="Reads nodes, pods and PodDisruptionBudgets, sends dry-run evictions to the "
        "API server, and shows which actions the rules, limits and budgets allow. Changes nothing.",
    )
    plan.add_argument("nodes", nargs="*", metavar="NODE", help="only these nodes, in detail")
    plan.set_defaults(function=commands.plan)

    status = commands_.add_parser(
        "status", parents=[access], help="show cordoned nodes, since when, why, and what blocks"
    )
    status.add_argument(
        *("-w", "--watch"),
        nargs="?",
        const=2.0,
        type=_seconds,
        metavar="SECONDS",
        help="refresh every SECONDS (2) and show changes, until Ctrl-C",
    )
    status.set_defaults(function=commands.status)

    pause = commands_.add_parser(
        "pause",
        parents=[access],
        help="stop all remediation until `resume` (nodes are still uncordoned)",
    )
    pause.add_argument(
        "--why", required=True, metavar="TEXT", help="the reason, for your colleagues"
    )
    pause.set_defaults(function=commands.pause)

    resume = commands_.add_parser(
        "resume", parents=[access], help="continue after `pause`; policies that gave up start again"
    )
    resume.set_defaults(function=commands.resume)
    _exclude_and_include(commands_, access)
    _uncordon(commands_, access)
    return parser


def _exclude_and_include(
    commands_: argparse._SubParsersAction[argparse.ArgumentParser], access: argparse.ArgumentParser
) -> None:
    exclude = commands_.add_parser(
        "exclude", parents=[access], help="leave a node alone, whatever its conditions say"
    )
    exclude.add_argument("node", metavar="NODE")
    exclude.add_argument(
        "--why", required=True, metavar="TEXT", help="the reason, for your colleagues"
    )
    exclude.set_defaults(function=commands.exclude)

    drain = commands_.add_parser(
        "drain",
        parents=[access],
        help="have the remediator drain a node, within its limits; `uncordon` ends that",
    )
    drain.add_argument("node", metavar="NODE")
    drain.add_argument(
        "--why", required=True, metavar="TEXT", help="the reason, for your colleagues"
    )
    drain.add_argument(
        "--until",
        metavar="TIME",
        help="uncordon it then: a time such as 2027-01-31T04:00Z, or a duration such as 4h",
    )
    drain.set_defaults(function=commands.drain)

    include = commands_.add_parser(
        "include", parents=[access], help="end `exclude`: act on the node again"
    )
    include.add_argument("node", metavar="NODE")
    include.set_defaults(function=commands.include)


def _uncordon(
    parsers: argparse._SubParsersAction[argparse.ArgumentParser], access: argparse.ArgumentParser
) -> None:
    uncordon = parsers.add_parser(
        "uncordon",
        parents=[access],
        help="uncordon a node now that the remediator cordoned; with --all every node",
        description="NODE: uncordons a node that a remediator cordoned, now; while its "
        "condition stays bad it is not cordoned again. --all: stops the running remediator for "
        "a while, uncordons each node that it cordoned and removes its annotations. "
        "Run it before you remove the remediator.",
    )
    which = uncordon.add_mutually_exclusive_group(required=True)
    which.add_argument("node", metavar="NODE", nargs="?", help="one node")
    which.add_argument("--all", action="store_true", help="all nodes")
    uncordon.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="with --all: give up after SECONDS (60)",
    )
    uncordon.add_argument(
        "--best-effort",
        action="store_true",
        help="with --all: exit 0 even if nodes remain cordoned",
    )
    uncordon.set_defaults(function=commands.uncordon)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: 0.1 to 3600 seconds")
    return seconds


def _access() -> argparse.ArgumentParser:
    access = argparse.ArgumentParser(add_help=False)
    group = access.add_argument_group("access")
    group.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="cluster access (default: the pod's account, otherwise KUBECONFIG or ~/.kube/config)",
    )
    group.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the rules (default: $CONFIG_FILE; `plan` and `status` fall back to the defaults)",
    )
    group.add_argument("-n", "--namespace", metavar="NAME", help="namespace of the Lease")
    group.add_argument("--lease", metavar="NAME", help="name of the Lease (default: as configured)")
    group.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="output format"
    )
    return access


def main(
    arguments: Sequence[str] | None = None, *, pool: Pool | None = None, runtime: Runtime = REAL
) -> int:
    """Entry point; returns the exit status. pool: answers the commands' requests."""
    options = parser().parse_args(arguments)
    options.pool, options.runtime = pool, runtime
    try:
        return int(options.function(options))
    except SettingsError as error:
        problems = "".join(f"\n  - {problem}" for problem in error.problems)
        return _failed(f"{error.source} is invalid:{problems}", 2)
    except NoCluster as error:
        return _failed(str(error), 2)
    except Failure as error:
        return _failed(str(error), error.code)
    except ApiFailure as error:
        return _failed(f"the API server refused: {error}", 3 if error.status in (401, 403) else 1)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)


def _failed(message: str, status: int) -> int:
    print(f"selfheal-remediator: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
