"""Reads the arguments of `python -m ci.cluster` and calls the cluster."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ci.cluster import processes, state
from ci.cluster.cluster import DEFAULT_NAME, Cluster, Status
from ci.cluster.errors import DISK_ERRORS, ClusterError
from ci.cluster.layout import Layout
from ci.cluster.spec import ADDONS, DEFAULT_ADDONS, Spec, parse_with
from ci.parts import PartsError

_EPILOG = """\
exit status: 0 done; 1 it could not be done, the reason is said; 2 wrong usage;
             3 (status) the cluster is not up, or something of it does not run.
Files of a cluster, its logs too: /var/lib/selfheal/NAME. Built parts: SELFHEAL_CACHE
(default ~/.cache/selfheal). Your own kubeconfig is never read or written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status is in the help's last lines."""
    own, forwarded = split(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(own)
    options.forwarded = forwarded
    # As Ctrl-C: what was begun is removed again.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(options.run(options))
    except (ClusterError, PartsError) as error:
        print(f"ci.cluster: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"ci.cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ci.cluster: stopped", file=sys.stderr)
        return 130


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those for kubectl: all that comes after `kubectl [--name N]`."""
    if not arguments or arguments[0] != "kubectl":
        return list(arguments), []
    own = 1
    if arguments[1:2] == ["--name"]:
        own = 3
    elif arguments[1:] and (arguments[1].startswith("--name=") or arguments[1] in ("-h", "--help")):
        own = 2
    return list(arguments[:own]), list(arguments[own:])


def _up(options: argparse.Namespace) -> int:
    addons, kwok = parse_with(options.addons)
    if options.nodes == 0 and options.addons == ",".join(DEFAULT_ADDONS):
        addons = ()
    started = time.monotonic()
    cluster = Cluster(options.name, Spec(options.nodes, addons, kwok), say=_say)
    cluster.up()
    _say(f"cluster {options.name} is up ({time.monotonic() - started:.1f} s)")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down(options: argparse.Namespace) -> int:
    started = time.monotonic()
    Cluster(options.name, say=_say).down()
    _say(f"cluster {options.name} is gone ({time.monotonic() - started:.1f} s)")
    return 0


def _status(options: argparse.Namespace) -> int:
    _end_with_the_reader()
    status = Cluster(options.name).status()
    if options.output == "json":
        print(json.dumps(asdict(status), indent=2))
    else:
        _print_status(status)
    return 0 if status.phase == state.READY else 3


def _kubectl(options: argparse.Namespace) -> int:
    command = Cluster(options.name).kubectl_command()
    os.execve(command[0], [*command, *options.forwarded], processes.local_environment())


def _logs(options: argparse.Namespace) -> int:
    folder = Layout(options.name).logs
    path = folder / f"{options.part}.log"
    if not path.exists():
        there = ", ".join(sorted(log.stem for log in folder.glob("*.log"))) or "none"
        raise ClusterError(f"no log of {options.part}; there are: {there}")
    _end_with_the_reader()
    sys.stdout.write(path.read_text(errors="replace"))
    return 0


def _print_status(status: Status) -> None:
    print(f"cluster {status.name}: {status.phase}")
    for part, runs in status.parts.items():
        print(f"  {part:<28} {'runs' if runs else 'has ended'}")
    if status.kubeconfig:
        print(f"kubeconfig: {status.kubeconfig}")


def _end_with_the_reader() -> None:
    """Lets `… | head` end this process quietly; only for commands that change nothing."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ci.cluster",
        description="A real Kubernetes cluster on this machine, without a container engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument(
        "--name", default=DEFAULT_NAME, help="the cluster; several may run (default: %(default)s)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", parents=[named], help="start it, or find it running")
    up.add_argument(
        "--nodes", type=int, default=2, help="real nodes; 0: a bare control plane (default: 2)"
    )
    up.add_argument(
        "--with",
        dest="addons",
        default=",".join(DEFAULT_ADDONS),
        metavar="LIST",
        help=f"of {', '.join(ADDONS)}, kwok=N (N pretended nodes), none (default: %(default)s)",
    )
    up.set_defaults(run=_up)

    down = commands.add_parser("down", parents=[named], help="remove all of it, running or not")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", parents=[named], help="what runs, and what does not")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    status.set_defaults(run=_status)

    kubectl = commands.add_parser(
        "kubectl",
        parents=[named],
        help="kubectl with its kubeconfig",
        usage="python -m ci.cluster kubectl [--name NAME] …",
        description="Everything after the name goes to kubectl.",
    )
    kubectl.set_defaults(run=_kubectl)

    logs = commands.add_parser("logs", parents=[named], help="the log of one part (see status)")
    logs.add_argument("part", metavar="PART")
    logs.set_defaults(run=_logs)

    load = commands.add_parser("load", parents=[named], help="import an image into every node")
    load.add_argument("archive", type=Path, metavar="ARCHIVE", help="a docker-archive tar file")
    load.set_defaults(run=_load)
    return parser


def _load(options: argparse.Namespace) -> int:
    Cluster(options.name).load(options.archive)
    return 0
