"""The command line: `selfheal-worker`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from selfheal_worker.cli.arguments import count, seconds
from selfheal_worker.config import SettingsError, load
from selfheal_worker.model import errors
from selfheal_worker.task.task_file import TaskError

EXIT_FAILED = 1
EXIT_USAGE = 2

ENVIRONMENT = """\
environment:
  AMQP_URI                amqp://user:password@host:5672/vhost (amqps for TLS); several by commas.
                          Or AMQP_HOST, AMQP_PORT (5672), AMQP_VHOST (/), with AMQP_USERNAME and
                          AMQP_PASSWORD, which also override those in AMQP_URI. Each of AMQP_URI,
                          AMQP_USERNAME, AMQP_PASSWORD may be a file: AMQP_URI_FILE and so on
  AMQP_CA_FILE            CA bundle (turns TLS on); AMQP_CERT_FILE and AMQP_KEY_FILE: client's own
  AMQP_HEARTBEAT          seconds (15)
  QUEUE_NAME              the work queue (feedback)
  RESULTS_QUEUE           the result queue (<queue>.results)
  DLQ_NAME                the dead-letter queue (<queue>.dead-letters)
  RETRY_DELAYS            the delay ladder in seconds (1,5,30,120)
  DELIVERY_LIMIT          deliveries after which the broker dead-letters a message (100)
  RESULTS_MAX_LENGTH, RESULTS_MAX_AGE, DLQ_MAX_LENGTH, DLQ_MAX_AGE   messages, seconds (0: none)
  CONCURRENCY             messages in flight (8)
  MAX_TEXT_BYTES          (65536)       MAX_ATTEMPTS  before a dead letter (5)
  MAX_BODY_BYTES          of a whole message (0: eight times MAX_TEXT_BYTES, at least 524288)
  SHUTDOWN_GRACE          seconds to finish messages in flight after SIGTERM (30)
  MODEL_PROVIDER          builtin, ollama, openai, langchain, llamacpp, or one that is installed
                          (builtin)
  MODEL_NAME, MODEL_BASE_URL, MODEL_API_KEY, MODEL_TEMPERATURE (0), MODEL_SEED (0)
  MODEL_DEADLINE          seconds for one model call (60); above 1200 the broker's consumer timeout
                          (30 minutes) must be raised too
  MODEL_MAX_OUTPUT_TOKENS (512)         MODEL_STRUCTURED  auto, schema, tools, json, none (auto)
  MODEL_CONTEXT_TOKENS    the model's context in tokens (requested from Ollama, at most 8192)
  MODEL_TEXT_TOO_LONG     refuse: dead-letter it; shorten: send only head and tail, and mark the
                          result truncated: true (refuse)
  MODEL_CONCURRENCY, MODEL_REQUESTS_PER_MINUTE            limits of the model (none)
  MODEL_OPTIONS           JSON object, options specific to the provider
  MODEL_CLAMP             true: set a number out of range to the nearer bound (false: retry)
  MODELS                  JSON object of named models: {"triage": {"provider": "ollama", "name": …}}
  MODEL_ACTIVE            one of them (empty: the model of MODEL_PROVIDER and so on)
  MODEL_FALLBACK          others of them, or builtin, in order, joined by commas
  MODEL_API_KEY_<NAME>    key of a named model (MODEL_API_KEY, but only if its provider and base
                          URL are MODEL_PROVIDER and MODEL_BASE_URL; else none). Each key may be a
                          file: MODEL_API_KEY_FILE, MODEL_API_KEY_<NAME>_FILE
  TASK_FILE               YAML with prompt, schema and examples (empty: the built-in task, emotion)
  HTTP_PORT               for /healthz /readyz /progress /metrics (8080)
  LOG_LEVEL               debug, info, warning, error (info)      LOG_FORMAT  json, text (json)
  FAULT_MODEL_DELAY       seconds added to each model call, for demos and tests (0)
  FAULT_MODEL_HANG_FILE   while this file exists, model calls hang beyond their deadline

exit status: 0 done; 1 failed, see the message; 2 wrong usage or invalid environment.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        status = command(options)
        sys.stdout.flush()  # here, where a reader that went away is expected
        return status
    except (SettingsError, TaskError, errors.ModelConfigError) as error:
        print(f"selfheal-worker: {_wrong(error)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        print(f"selfheal-worker: {error}", file=sys.stderr)
        return EXIT_FAILED


def _wrong(error: Exception) -> str:
    if isinstance(error, SettingsError):
        return f"the environment is invalid:\n{error}"
    return f"the task file is invalid:\n{error}" if isinstance(error, TaskError) else str(error)


def parser() -> argparse.ArgumentParser:
    """The command line with all its commands."""
    top = argparse.ArgumentParser(
        prog="selfheal-worker",
        description="A queue worker that has texts analysed by a model and loses no message.",
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=run)
        return made

    command("run", _run, "consume the queue until SIGTERM")
    _topology_options(command("topology", _topology, "declare the queues, waiting for the broker"))
    _analyze_options(command("analyze", _analyze, "analyse texts here and now, without a broker"))
    _evaluate_options(command("evaluate", _evaluate, "compare models on labelled texts"))
    _publish_options(command("publish", _publish, "send messages to the queue, with confirms"))
    _results_options(command("results", _results, "take answers from the results queue"))
    letters = command("dead-letters", _usage(top), "show dead letters, and send them again")
    _dead_letter_commands(letters)
    return top


def _topology_options(topology: argparse.ArgumentParser) -> None:
    topology.add_argument(
        "--timeout",
        type=seconds,
        default=0,
        metavar="S",
        help="give up after S seconds (0: never)",
    )


def _analyze_options(analyze: argparse.ArgumentParser) -> None:
    analyze.add_argument("text", nargs="?", help="one text")
    analyze.add_argument("--input", metavar="FILE", help="JSON lines with 'text' ('-': stdin)")
    _output(analyze)


def _evaluate_options(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--input", required=True, metavar="FILE", help="JSON lines: text, and the expected labels"
    )
    evaluate.add_argument(
        "--model",
        nargs="+",
        default=[""],
        metavar="NAME",
        help="named models, or PROVIDER[:NAME] (default: the active one)",
    )
    evaluate.add_argument("--field", metavar="F", help="the field to compare (the task's first)")
    evaluate.add_argument("--limit", type=count, metavar="N", help="only the first N texts")
    evaluate.add_argument(
        "--keep",
        metavar="FILE",
        help="write each answer to FILE, so that the same command can resume later",
    )
    _output(evaluate)


def _publish_options(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("file", metavar="FILE", help="JSON lines ('-': stdin)")
    publish.add_argument(
        "--raw", action="store_true", help="send lines unchanged, even invalid messages"
    )
    publish.add_argument(
        "--id-prefix", metavar="P", help="give a line without an id the id P-<line number>"
    )
    _output(publish)


def _results_options(results: argparse.ArgumentParser) -> None:
    ending = results.add_mutually_exclusive_group()
    ending.add_argument("--follow", action="store_true", help="keep waiting for more")
    ending.add_argument("--expect", type=count, metavar="N", help="end after N results")
    results.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="S",
        help="end after S seconds without a result (5)",
    )
    _output(results)


def _dead_letter_commands(parser: argparse.ArgumentParser) -> None:
    from selfheal_worker.cli.dead_letters import add_commands

    add_commands(parser, _output)


def _usage(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    def show(_: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return EXIT_USAGE

    return show


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="output format"
    )


# --- commands


def _exit(*_: object) -> None:
    """End at a signal that comes before any message is in flight."""
    sys.exit(0)


def _run(_: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _exit)
    settings = load()
    from selfheal_worker import logs, memory
    from selfheal_worker.health import Server
    from selfheal_worker.metrics import Metrics
    from selfheal_worker.model import injected_faults, registry
    from selfheal_worker.model.analysis import Call
    from selfheal_worker.model.provider import Origin
    from selfheal_worker.task import task_file
    from selfheal_worker.worker import Worker

    memory.keep_flat()
    metrics = Metrics()

    def observe(call: Call) -> None:
        metrics.model.called(call.origin, call.seconds, call.error, call.usage)

    def loaded(origin: Origin, seconds: float) -> None:
        metrics.model.loaded(origin, seconds)
        memory.keep_loaded()

    chain = registry.chain(
        settings,
        task_file.load(settings.task_file),
        observe=observe,
        loaded=loaded,
        before=injected_faults.before_calls(
            settings.fault_model_delay, settings.fault_model_hang_file
        ),
    )
    logs.set_up(settings.log_level, settings.log_format)
    for warning in settings.warnings():
        logs.say(logging.WARNING, "a setting may be wrong", why=warning)
    worker = Worker(settings, chain, metrics)

    def stop(*_: object) -> None:
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        server = Server(settings.http_host, settings.http_port, worker)
    except OSError as error:
        host = f" of HTTP_HOST={settings.http_host}" if settings.http_host else ""
        print(
            f"selfheal-worker: HTTP_PORT={settings.http_port}{host} cannot be used: "
            f"{error.strerror}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    logs.say(20, "started", http_port=server.port, queue=settings.queue_name, pid=os.getpid())
    worker.run()
    server.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # A model call that hangs in a library's own thread must not keep the process.
    os._exit(0)


def _topology(options: argparse.Namespace) -> int:
    settings = load()
    from selfheal_worker.cli.topology import declare

    return declare(settings, options.timeout)


def _analyze(options: argparse.Namespace) -> int:
    if (options.text is None) == (options.input is None):
        print("selfheal-worker analyze: give a text, or --input FILE", file=sys.stderr)
        return EXIT_USAGE
    settings = load(broker=False)
    from selfheal_worker.cli.analyze import analyze
    from selfheal_worker.model import registry
    from selfheal_worker.task import task_file

    chain = registry.chain(settings, task_file.load(settings.task_file))
    with contextlib.closing(chain):
        return analyze(settings, chain, options.text, options.input, options.output)


def _evaluate(options: argparse.Namespace) -> int:
    settings = load(broker=False)
    from selfheal_worker.cli.evaluate import evaluate
    from selfheal_worker.task import task_file

    return evaluate(settings, task_file.load(settings.task_file), options)


def _publish(options: argparse.Namespace) -> int:
    settings = load()
    from selfheal_worker.cli.publish_results import publish

    return publish(
        settings,
        options.file,
        raw=options.raw,
        output=options.output,
        id_prefix=options.id_prefix,
    )


def _results(options: argparse.Namespace) -> int:
    settings = load()
    from selfheal_worker.cli.publish_results import results

    return results(
        settings,
        expect=options.expect,
        timeout=options.timeout,
        output=options.output,
        follow=options.follow,
    )


if __name__ == "__main__":
    sys.exit(main())
