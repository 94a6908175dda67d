"""A comparison of two ways to read a hundred values, with different headers.

    python -m tests.benchmarks.wire_forms

One blocking socket reads a hundred values of a stream, either with one batch get (multi_last,
ADR-31) or with a hundred single direct gets in one write. The values are stored with the headers of
this package, with Nats-TTL alone, or without headers. The script prints medians, in microseconds:
the time until the last value has been read, and the processor time of the server (of all servers,
if there are three).

It runs with any nats-server: ``NATS_SERVER`` names the binary. Of the package it uses only the code
that starts the server.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from django_nats.devserver import NatsServer
from tests.support.cluster import Cluster

from .floors import NatsSocket
from .measuring import processor_seconds

VALUES = 100
ROUNDS = 15
_PER_ROUND = 20
HEADERS = {
    "of the package": b"NATS/1.0\r\nDjango-Nats: pickle;ms=300000\r\nNats-TTL: 300\r\n\r\n",
    "Nats-TTL": b"NATS/1.0\r\nNats-TTL: 300\r\n\r\n",
    "none": b"",
}


class Reader(NatsSocket):
    """A connection that stores values and reads all of them."""

    def __init__(self, port: int, storage: str, replicas: int, header: bytes, size: int) -> None:
        super().__init__(f"127.0.0.1:{port}")
        self._subjects = [f"forms.article.{number}.detail" for number in range(VALUES)]
        config = {
            "name": "FORMS",
            "subjects": ["forms.>"],
            "storage": storage,
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "allow_msg_ttl": True,
        }
        self._ask("$JS.API.STREAM.DELETE.FORMS", {})
        self._ask("$JS.API.STREAM.CREATE.FORMS", config)
        payload = b"x" * size
        for subject in self._subjects:
            self._channel.send(self._message(subject, header, payload))
            answer = json.loads(self._reply()[1])
            assert "error" not in answer, answer

    def _ask(self, subject: str, document: dict[str, object]) -> dict[str, object]:
        self._channel.send(self._publish(subject, json.dumps(document).encode()))
        return dict(json.loads(self._reply()[1]))

    def _message(self, subject: str, header: bytes, payload: bytes) -> bytes:
        if not header:
            return self._publish(subject, payload)
        sizes = len(header), len(header) + len(payload)
        head = b"HPUB %b %b %d %d\r\n" % (subject.encode(), self._inbox, *sizes)
        return b"%b%b%b\r\n" % (head, header, payload)

    def batch(self) -> int:
        """Read all values with one batch get. Return their number."""
        self._channel.send(
            self._publish(
                "$JS.API.DIRECT.GET.FORMS", json.dumps({"multi_last": self._subjects}).encode()
            )
        )
        count = 0
        while not self._reply()[0].startswith(b"NATS/1.0 204"):
            count += 1
        return count

    def singles(self) -> int:
        """Read all values with single gets that are sent in one write. Return their number."""
        gets = [self._publish(f"$JS.API.DIRECT.GET.FORMS.{each}", b"") for each in self._subjects]
        self._channel.send(b"".join(gets))
        return sum(not self._reply()[0].startswith(b"NATS/1.0 4") for _ in gets)


@contextmanager
def servers(replicas: int) -> Iterator[Sequence[NatsServer]]:
    if replicas == 1:
        with NatsServer(token="") as server:
            yield [server]
    else:
        with Cluster(replicas, token="") as cluster:
            yield cluster.servers


def measure(read: Callable[[], int], pids: Sequence[int]) -> tuple[float, float]:
    """Return the time of one read and the servers' processor time for it, in microseconds."""
    used = -sum(map(processor_seconds, pids))
    began = time.perf_counter()
    for _ in range(_PER_ROUND):
        assert read() == VALUES
    took = time.perf_counter() - began
    used += sum(map(processor_seconds, pids))
    return took / _PER_ROUND * 1e6, used / _PER_ROUND * 1e6


def compare(storage: str, replicas: int, size: int, rounds: int = ROUNDS) -> list[str]:
    """Return one line of text for each kind of header, with the figures of both forms."""
    lines = []
    with servers(replicas) as running:
        pids = [server.pid for server in running]
        for name, header in HEADERS.items():
            reader = Reader(running[0].port, storage, replicas, header, size)
            forms = (reader.batch, reader.singles)
            figures = [[measure(form, pids) for form in forms] for _ in range(rounds)]
            medians = [
                [statistics.median(each[form][what] for each in figures) for what in (0, 1)]
                for form in (0, 1)
            ]
            (batch, batch_cpu), (singles, singles_cpu) = medians
            lines.append(
                f"{storage:6} {replicas} replica{'s' if replicas > 1 else ' '} {size:6} B, headers "
                f"{name:15} batch {batch:6.0f} (server {batch_cpu:6.0f})   "
                f"singles {singles:6.0f} (server {singles_cpu:6.0f})   {singles / batch:.2f}"
            )
            reader.close()
    return lines


def main() -> None:
    for replicas in (1, 3):
        for storage in ("memory", "file"):
            for size in (100, 10_000):
                print("\n".join(compare(storage, replicas, size)), flush=True)


if __name__ == "__main__":
    main()
