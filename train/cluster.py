"""The machines of a run: who they are, whether they answer, whether they agree.

Needs no TensorFlow, which answers many of these questions by waiting for ever.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.errors import ConfigError

TASK_TYPES = ("chief", "worker", "ps")

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
# What another worker says about itself is a configuration, of some kilobytes.
_MAX_GREETING = 1 << 22
_ROUND_SECONDS = 0.1
_CONNECTION_SECONDS = 5.0
_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """Is what the environment variable TF_CONFIG says.

    Attributes:
        jobs: Addresses, `host:port`, of each type of task.
        task_type: Type of this process.
        task_index: Number of this process among those of its type.
    """

    jobs: Mapping[str, tuple[str, ...]]
    task_type: str
    task_index: int

    @classmethod
    def from_environment(cls) -> "Cluster | None":
        """Reads TF_CONFIG; None if it is not set or names no cluster.

        Raises:
            ConfigError: If it cannot be understood; the message says what is wrong.
        """
        text = os.environ.get("TF_CONFIG", "").strip()
        if not text:
            return None
        try:
            document = json.loads(text)
        except ValueError as error:
            raise _fault(f"is not a JSON object ({error})") from None
        if not isinstance(document, dict):
            raise _fault("is not a JSON object")
        if not document.get("cluster"):
            return None
        jobs = _jobs(document["cluster"])
        task_type, index = _task(document.get("task"), jobs)
        return cls(jobs, task_type, index)

    @property
    def address(self) -> str:
        """Is the address of this process."""
        return self.jobs[self.task_type][self.task_index]

    @property
    def is_chief(self) -> bool:
        """True for the process that writes checkpoints: the chief, or worker 0."""
        first = "chief" if self.jobs.get("chief") else "worker"
        return (self.task_type, self.task_index) == (first, 0)

    @property
    def has_parameter_servers(self) -> bool:
        """True if some task keeps variables for the others."""
        return bool(self.jobs.get("ps"))

    @property
    def learners(self) -> dict[str, str]:
        """Names the processes that learn, `worker 0`, by address; not those of ps."""
        return {
            address: f"{job} {index}"
            for job in ("chief", "worker")
            for index, address in enumerate(self.jobs.get(job, ()))
        }


def check_port(cluster: Cluster) -> None:
    """Refuses a cluster whose port for this process is taken.

    Raises:
        ConfigError: If it is.
    """
    _listen(cluster).close()


def port_problem(port: int) -> str | None:
    """Says why this machine cannot serve at a port; None if it can."""
    try:
        socket.create_server(("", port)).close()
    except OverflowError:
        return "is none; expected 1 to 65535"
    except OSError as error:
        return _port_problem(error)
    return None


def wait_for_servers(cluster: Cluster, *, timeout: float) -> None:
    """Waits until all tasks but this one accept connections.

    Raises:
        ConfigError: If some do not within `timeout` seconds; the message names them.
    """
    missing = {
        address: f"{job} {index}"
        for job, addresses in cluster.jobs.items()
        for index, address in enumerate(addresses)
        if address != cluster.address
    }
    for _ in _rounds(timeout, missing):
        for address in list(missing):
            with contextlib.suppress(OSError), _connection(address):
                del missing[address]
    if missing:
        raise _unreachable(missing, timeout)


def wait_for_address(address: str, *, timeout: float, what: str) -> None:
    """Waits until a server accepts connections.

    Raises:
        ConfigError: If it does not within `timeout` seconds, or the address is none.
    """
    if _split(address) is None:
        raise ConfigError(f"{what} is {address!r}; expected host:port")
    missing = {address: what}
    for _ in _rounds(timeout, missing):
        with contextlib.suppress(OSError), _connection(address):
            missing.clear()
    if missing:
        raise ConfigError(
            f"{what} {address}: cannot be reached ({timeout:g} seconds long); is it "
            "running, and is its port open to this machine?"
        )


def meet(cluster: Cluster, greeting: str, *, timeout: float) -> None:
    """Waits until all workers are there, and compares what they are about to do.

    Each listens at its own address and asks all others. Nobody goes on before all
    have met, after which the ports are free again.

    Args:
        cluster: The cluster.
        greeting: Must be the same everywhere: the experiment, line by line.
        timeout: Seconds to wait for the others.

    Raises:
        ConfigError: If the port of this process is taken, another worker does not come
            in time, or one differs; the message names it.
    """
    own = {"jobs": {k: list(v) for k, v in cluster.jobs.items()}, "greeting": greeting}
    message = json.dumps({"from": cluster.address, **own}).encode() + b"\n"
    others = {a: n for a, n in cluster.learners.items() if a != cluster.address}
    unanswered, ungreeted = dict(others), dict(others)
    answers: dict[str, Any] = {}
    with _answering(cluster, message, ungreeted):
        waiting = _Either(unanswered, ungreeted)
        for _ in _rounds(timeout, waiting):
            for address in list(unanswered):
                if (answer := _ask(address, message)) is not None:
                    answers[address] = answer
                    del unanswered[address]
        if waiting:
            raise _unreachable(dict(waiting.items()), timeout)
    for address, name in others.items():
        _compare(answers[address], own, f"{name}, {address}")


class _Either:
    """Holds the names of those that are in one of two changing dictionaries."""

    def __init__(self, *parts: dict[str, str]) -> None:
        self._parts = parts

    def __bool__(self) -> bool:
        return any(self._parts)

    def items(self) -> Iterable[tuple[str, str]]:
        together: dict[str, str] = {}
        for part in self._parts:
            together.update(part)
        return together.items()


def _rounds(timeout: float, missing: Any) -> Iterator[None]:
    """Yields until nothing is missing or time is over; says what is waited for."""
    started = reported = time.monotonic()
    while missing:
        yield
        now = time.monotonic()
        if not missing or now - started > timeout:
            return
        if now - reported > _REPORT_SECONDS:
            reported = now
            print(f"waiting for {_names(missing.items())}", file=sys.stderr, flush=True)
        time.sleep(_ROUND_SECONDS)


@contextlib.contextmanager
def _answering(
    cluster: Cluster, message: bytes, ungreeted: dict[str, str]
) -> Iterator[None]:
    """Tells everyone who asks, beside what is done meanwhile."""
    is_over = threading.Event()
    with _listen(cluster) as listener:
        listener.settimeout(_ROUND_SECONDS)

        def answer() -> None:
            while not is_over.is_set():
                with contextlib.suppress(OSError, ValueError):
                    caller, _ = listener.accept()
                    with caller:
                        caller.settimeout(_CONNECTION_SECONDS)
                        sender = _receive(caller)["from"]
                        caller.sendall(message)
                        # The caller closes first: the port is free at once then.
                        caller.recv(1)
                        ungreeted.pop(sender, None)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def _ask(address: str, message: bytes) -> Any:
    """Returns what a worker says, None if it is not there yet."""
    try:
        with _connection(address) as connection:
            connection.sendall(message)
            return _receive(connection)
    except (OSError, ValueError):
        return None


def _receive(connection: socket.socket) -> dict[str, Any]:
    """Reads one message.

    Raises:
        ValueError: If the other side speaks of something else.
    """
    with connection.makefile("rb") as stream:
        line = stream.readline(_MAX_GREETING)
    document = json.loads(line)
    fields = {"from": str, "jobs": dict, "greeting": str}
    if not isinstance(document, dict) or any(
        not isinstance(document.get(field), kind) for field, kind in fields.items()
    ):
        raise ValueError("not a worker")
    return document


def _compare(theirs: Mapping[str, Any], own: Mapping[str, Any], name: str) -> None:
    if theirs["jobs"] != own["jobs"]:
        raise _fault(f"lists other machines here than at {name}")
    if theirs["greeting"] == own["greeting"]:
        return
    here, there = own["greeting"].splitlines(), theirs["greeting"].splitlines()
    first = next(
        (
            n
            for n, pair in enumerate(zip(here, there, strict=False))
            if len({*pair}) > 1
        ),
        min(len(here), len(there)),
    )
    mine, other = (
        lines[first].strip() if first < len(lines) else "nothing"
        for lines in (here, there)
    )
    raise ConfigError(
        f"{name} was started with another experiment or other options: first "
        f"difference {mine!r} here, {other!r} there; start all with the same command"
    )


def _listen(cluster: Cluster) -> socket.socket:
    _, port = _place(cluster.address)
    try:
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise _fault(
            f"gives this process, {cluster.task_type} {cluster.task_index}, the "
            f"address {cluster.address}, but port {port} {_port_problem(error)}"
        ) from None


def _port_problem(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is taken here; does something that ran before still hold it?"
    return f"cannot be used ({error.strerror})"


def _connection(address: str) -> socket.socket:
    return socket.create_connection(_place(address), timeout=_CONNECTION_SECONDS)


def _place(address: str) -> tuple[str, int]:
    place = _split(address)
    assert place is not None, "addresses are checked when they are read"
    return place


def _split(address: Any) -> tuple[str, int] | None:
    if not isinstance(address, str):
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        return None
    return (host.strip("[]"), int(port)) if 0 < int(port) < 1 << 16 else None


def _jobs(cluster: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(cluster, dict):
        raise _fault("has a `cluster` that is not an object of lists of addresses")
    jobs = {}
    for job, addresses in cluster.items():
        if job == "evaluator":  # takes no part
            continue
        if job not in TASK_TYPES:
            raise _fault(f"lists {job!r}; expected {', '.join(TASK_TYPES)}")
        if not isinstance(addresses, list):
            raise _fault(f"has {addresses!r} for {job}; expected a list of host:port")
        for address in addresses:
            if _split(address) is None:
                raise _fault(f"lists {address!r} for {job}; expected host:port")
        jobs[job] = tuple(addresses)
    listed = [address for addresses in jobs.values() for address in addresses]
    twice = sorted({address for address in listed if listed.count(address) > 1})
    if twice:
        raise _fault(f"lists {twice[0]} twice")
    if len(jobs.get("chief", ())) > 1:
        raise _fault("lists several chiefs; there is at most one")
    return jobs


def _task(task: Any, jobs: Mapping[str, tuple[str, ...]]) -> tuple[str, int]:
    if not isinstance(task, dict):
        raise _fault("says nothing under `task`, which names this process")
    task_type, index = task.get("type"), task.get("index")
    if not isinstance(task_type, str) or task_type not in jobs:
        known = ", ".join(jobs) or "none"
        raise _fault(f"has task type {task_type!r}; its cluster lists {known}")
    if isinstance(index, str) and index.isdigit():
        index = int(index)
    count = len(jobs[task_type])
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        expected = f"0 to {count - 1}" if count > 1 else "0"
        raise _fault(f"has task index {index!r} for {task_type}; expected {expected}")
    return task_type, index


def _fault(what: str) -> ConfigError:
    return ConfigError(
        f"the environment variable TF_CONFIG {what}. An example: {_EXAMPLE}"
    )


def _unreachable(missing: Mapping[str, str], timeout: float) -> ConfigError:
    return ConfigError(
        f"{_names(missing.items())}: did not come within {timeout:g} seconds; is the "
        "same command running there, is that address open to this machine, and has "
        "whatever ran before ended? (--worker-timeout waits longer)"
    )


def _names(missing: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} at {address}" for address, name in missing)
