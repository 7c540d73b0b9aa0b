"""What the worker is measured beside; each runs as a process of its own until SIGTERM.

All do one job: take a message from a quorum queue, do nothing with it in one of 32 threads (or
tasks), publish an answer to the quorum queue `feedback.results` with a confirm, and ack then.
`bare` is the least that does this with pika's SelectConnection. The others are set up as their
documentation says for this job. `http` and `pool` have no broker: 32 threads that call a model
server, by http.client and through the worker's own LangChain chain.

    AMQP_URI=… python -m tests.benchmarks.peers NAME [--send-one]
    MODEL_BASE_URL=… python -m tests.benchmarks.peers http|pool CALLS
"""

# ruff: noqa: T201
# mypy: ignore-errors
from __future__ import annotations

import asyncio
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 32
RESULTS = "feedback.results"
TEXT = "The delivery came on time, and everything works as it should. Thank you!"
ANSWER = {
    "id": "m0",
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": ["Thank you"],
}


class Bare:
    """The least loop: consume, a thread, confirmed publish, ack."""

    def __init__(self, uri: str) -> None:
        import pika
        from pika.adapters.select_connection import SelectConnection

        self.work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.done: deque[Any] = deque()
        self.woken = False
        self.waiting: dict[int, int] = {}
        self.next_tag = 1
        self.properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        self.connection = SelectConnection(
            pika.URLParameters(uri),
            on_open_callback=lambda made: made.channel(on_open_callback=self.opened),
            on_close_callback=lambda made, _: made.ioloop.stop(),
        )

    def run(self) -> None:
        for _ in range(THREADS):
            threading.Thread(target=self.serve, daemon=True).start()
        self.connection.ioloop.start()

    def opened(self, channel: Any) -> None:
        self.channel = channel
        channel.confirm_delivery(self.confirmed)
        channel.basic_qos(prefetch_count=THREADS)
        channel.basic_consume(
            "feedback", lambda _, method, __, body: self.work.put((method.delivery_tag, body))
        )

    def serve(self) -> None:
        while True:
            self.done.append(self.work.get())
            if not self.woken:
                self.woken = True
                self.connection.ioloop.add_callback_threadsafe(self.collect)

    def collect(self) -> None:
        self.woken = False
        while self.done:
            tag, body = self.done.popleft()
            self.channel.basic_publish("", RESULTS, body, self.properties, mandatory=True)
            self.waiting[self.next_tag] = tag
            self.next_tag += 1

    def confirmed(self, frame: Any) -> None:
        tags = [frame.method.delivery_tag]
        if frame.method.multiple:
            tags = [tag for tag in self.waiting if tag <= tags[0]]
        for tag in tags:
            self.channel.basic_ack(self.waiting.pop(tag))


def bare(uri: str, send_one: bool) -> None:
    """pika's SelectConnection and threads."""
    Bare(uri).run()


def celery(uri: str, send_one: bool) -> None:
    """Celery: the pool `threads`, late acks, quorum queue, producers that wait for confirms."""
    from celery import Celery
    from kombu import Queue

    app = Celery("bench", broker=uri)
    name = "bench-celery"
    app.conf.update(
        task_queues=[Queue(name, routing_key=name, queue_arguments={"x-queue-type": "quorum"})],
        task_default_queue=name,
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        broker_pool_limit=THREADS,
        broker_transport_options={"confirm_publish": True},
        broker_connection_retry_on_startup=True,
    )

    @app.task(name="job")
    def job(body: Any) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            producer.publish(ANSWER, exchange="", routing_key=RESULTS, mandatory=True)

    if send_one:
        job.delay({"text": TEXT})
        return
    options = ["-P", "threads", "-c", str(THREADS), "-l", "error"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", *options, *quiet])


def dramatiq(uri: str, send_one: bool) -> None:
    """Dramatiq: one process of threads, delivery confirmed, its queues as quorum queues."""
    import dramatiq as library
    import pika
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    class Quorum(RabbitmqBroker):
        def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
            return super()._build_queue_arguments(queue_name) | {"x-queue-type": "quorum"}

    broker = Quorum(url=uri, confirm_delivery=True)
    library.set_broker(broker)
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    answer = json.dumps(ANSWER).encode()

    @library.actor(queue_name="bench-dramatiq")
    def job(body: Any) -> None:
        broker.channel.basic_publish("", RESULTS, answer, properties, mandatory=True)

    if send_one:
        job.send({"text": TEXT})
        return
    worker = library.Worker(broker, worker_threads=THREADS)
    worker.start()
    signal.sigwait({signal.SIGTERM})
    os._exit(0)


def faststream(uri: str, send_one: bool) -> None:
    """FastStream: a subscriber that is a publisher too, 32 messages at once."""
    from faststream import FastStream
    from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

    broker = RabbitBroker(uri, default_channel=Channel(prefetch_count=THREADS), logger=None)
    taken_from = RabbitQueue("bench-faststream", durable=True, queue_type=QueueType.QUORUM)

    @broker.subscriber(taken_from)
    @broker.publisher(RESULTS, persist=True, mandatory=True)
    async def job(body: dict[str, Any]) -> dict[str, Any]:
        return ANSWER

    async def once() -> None:
        async with broker:
            await broker.declare_queue(taken_from)
            await broker.publish({"text": TEXT}, taken_from, persist=True)

    if send_one:
        asyncio.run(once())
    else:
        asyncio.run(FastStream(broker, logger=None).run())


# --- without a broker


def per_second(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """Calls a second of 32 threads, and microseconds of processor time for each, between a tenth
    and nine tenths of the way."""
    left = iter(range(calls))
    ended: deque[tuple[float, float]] = deque()

    def serve() -> None:
        while next(left, None) is not None:
            call()
            ended.append((time.perf_counter(), time.process_time()))

    threads = [threading.Thread(target=serve) for _ in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    times = sorted(ended)
    first, last = calls // 10, calls * 9 // 10
    number = last - first
    seconds, cpu = (times[last][which] - times[first][which] for which in (0, 1))
    return number / seconds, cpu / number * 1e6


def http(base_url: str, calls: int) -> tuple[float, float]:
    """http.client, a connection a thread."""
    import http.client
    from urllib.parse import urlsplit

    from selfheal_worker.task import prompt, task_file

    at = urlsplit(base_url)
    local = threading.local()
    roles = {"system": "system", "human": "user", "ai": "assistant"}
    asked = prompt.messages(task_file.load(), TEXT)
    messages = [{"role": roles[role], "content": content} for role, content in asked]
    body = json.dumps({"model": "tiny:1b", "messages": messages, "stream": False})

    def call() -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(at.hostname, at.port)
        local.connection.request("POST", "/api/chat", body)
        json.loads(json.loads(local.connection.getresponse().read())["message"]["content"])

    return per_second(call, calls)


def pool(base_url: str, calls: int) -> tuple[float, float]:
    """The worker's own chain in a thread pool."""
    from selfheal_worker.model.provider import ModelConfig, build

    config = ModelConfig(
        provider="ollama", name="tiny:1b", base_url=base_url, concurrency=THREADS, deadline=60
    )
    provider = build(config)
    provider.warm_up()
    return per_second(lambda: provider.analyse(TEXT, time.monotonic() + 60), calls)


class ModelServer(asyncio.Protocol):
    """A model server that takes 50 ms and next to no CPU a call: what is measured is not it."""

    SECONDS = 0.05

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data
        while b"\r\n\r\n" in self.got:
            head, _, rest = self.got.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self.got = rest[length:]
            if head.startswith(b"GET"):
                self.reply({"models": [{"name": "tiny:1b", "digest": "0123456789abcdef"}]})
            else:
                asyncio.get_running_loop().call_later(self.SECONDS, self.reply, CHAT)

    def reply(self, content: Any) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        if not self.transport.is_closing():
            self.transport.write(f"{head}\r\n\r\n".encode() + body)


CHAT = {
    "model": "tiny:1b",
    "created_at": "2026-01-01T00:00:00Z",
    "message": {
        "role": "assistant",
        "content": json.dumps({name: ANSWER[name] for name in ANSWER if name != "id"}),
    },
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 11,
    "eval_count": 7,
}


async def serve_model() -> None:
    """Say the port on stdout, and serve."""
    server = await asyncio.get_running_loop().create_server(ModelServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    name, *more = sys.argv[1:]
    if name == "model":
        asyncio.run(serve_model())
    elif name in ("http", "pool"):
        measure = {"http": http, "pool": pool}[name]
        found = measure(os.environ["MODEL_BASE_URL"], int(more[0]))
        print(*found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        peer = {"bare": bare, "celery": celery, "dramatiq": dramatiq, "faststream": faststream}
        peer[name](os.environ["AMQP_URI"], more == ["--send-one"])


if __name__ == "__main__":
    main()
