"""What TF_CONFIG says is checked, and workers meet before they begin."""

import json
import socket
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from deeplab2_edge.errors import ConfigError
from deeplab2_edge.train import cluster
from deeplab2_edge.train.cluster import Cluster

GREETING = "experiment: a\n  rate: 0.1\n"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def two_workers() -> list[Cluster]:
    addresses = tuple(f"localhost:{free_port()}" for _ in range(2))
    return [Cluster({"worker": addresses}, "worker", index) for index in range(2)]


def config(jobs: Any, task: Any = ("worker", 0), **others: Any) -> Mapping[str, Any]:
    return {"cluster": jobs, "task": dict(zip(("type", "index"), task, strict=True))}


def test_a_cluster_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {"chief": ["a:1"], "worker": ["b:1", "[::1]:2"], "ps": ["c:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config(jobs, ("worker", "1"))))
    found = Cluster.from_environment()
    assert found is not None
    assert (found.address, found.task_index) == ("[::1]:2", 1)
    assert found.has_parameter_servers and not found.is_chief
    assert found.learners == {
        "a:1": "chief 0",
        "b:1": "worker 0",
        "[::1]:2": "worker 1",
    }


def test_the_chief_is_the_first_worker_only_without_a_chief() -> None:
    assert Cluster({"worker": ("a:1",)}, "worker", 0).is_chief
    assert not Cluster({"chief": ("b:1",), "worker": ("a:1",)}, "worker", 0).is_chief


def test_no_cluster_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", '{"environment": "cloud"}')
    assert Cluster.from_environment() is None
    monkeypatch.delenv("TF_CONFIG")
    assert Cluster.from_environment() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        (config(["a:1"]), "`cluster` that is not an object"),
        (config({"workers": ["a:1"]}), "lists 'workers'; expected chief, worker, ps"),
        (config({"worker": "a:1"}), "has 'a:1' for worker; expected a list"),
        (config({"worker": ["a"]}), "lists 'a' for worker; expected host:port"),
        (config({"worker": ["a:99999"]}), "lists 'a:99999' for worker"),
        (config({"worker": ["a:1", "a:1"]}), "lists a:1 twice"),
        (config({"chief": ["a:1", "b:1"], "worker": ["c:1"]}), "several chiefs"),
        ({"cluster": {"worker": ["a:1"]}}, "says nothing under `task`"),
        (config({"worker": ["a:1"]}, ("ps", 0)), "'ps'; its cluster lists worker"),
        (config({"worker": ["a:1"]}, ("worker", 1)), "index 1 for worker; expected 0"),
        (config({"worker": ["a:1"]}, ("worker", None)), "index None for worker"),
    ],
)
def test_what_is_wrong_with_a_cluster_is_named(
    monkeypatch: pytest.MonkeyPatch, text: Any, message: str
) -> None:
    value = text if isinstance(text, str) else json.dumps(text)
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ConfigError, match=message):
        Cluster.from_environment()


def meet_all(
    clusters: list[Cluster], greetings: list[str], *, timeout: float = 20.0
) -> list[str]:
    """Lets all meet at once; returns what each was told, "" if all was well."""
    told = ["?"] * len(clusters)

    def meet(index: int) -> None:
        try:
            cluster.meet(clusters[index], greetings[index], timeout=timeout)
        except ConfigError as error:
            told[index] = str(error)
        else:
            told[index] = ""

    threads = [threading.Thread(target=meet, args=(i,)) for i in range(len(clusters))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_workers_that_agree_meet_and_leave_their_ports_free() -> None:
    clusters = two_workers()
    assert meet_all(clusters, [GREETING] * 2) == ["", ""]
    for one in clusters:
        cluster.check_port(one)


def test_the_first_difference_between_workers_is_named() -> None:
    clusters = two_workers()
    told = meet_all(clusters, [GREETING, GREETING.replace("0.1", "0.2")])
    assert told[0].startswith(f"worker 1, {clusters[1].address} was started with")
    assert "'rate: 0.1' here, 'rate: 0.2' there" in told[0]
    assert "'rate: 0.2' here, 'rate: 0.1' there" in told[1]


def test_workers_with_other_lists_of_machines_are_named() -> None:
    first, second = two_workers()
    longer = {"worker": (*second.jobs["worker"], f"localhost:{free_port()}")}
    told = meet_all([first, Cluster(longer, "worker", 1)], [GREETING] * 2, timeout=3.0)
    assert "lists other machines here than at worker 1" in told[0]


def test_a_worker_that_does_not_come_is_named() -> None:
    first, second = two_workers()
    with pytest.raises(
        ConfigError, match=f"worker 1 at {second.address}: did not come"
    ):
        cluster.meet(first, GREETING, timeout=0.3)


def test_something_else_at_the_address_of_a_worker_is_no_worker() -> None:
    first, second = two_workers()
    port = int(second.address.rpartition(":")[2])
    with socket.create_server(("", port)) as other:
        other.settimeout(0.1)
        stop = threading.Event()

        def answer() -> None:
            while not stop.is_set():
                try:
                    other.accept()[0].sendall(b"HTTP/1.1 400\n")
                except OSError:
                    continue

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(ConfigError, match=f"at {second.address}: did not come"):
                cluster.meet(first, GREETING, timeout=0.5)
        finally:
            stop.set()
            thread.join()


def test_a_port_that_is_taken_is_named() -> None:
    first, _ = two_workers()
    port = int(first.address.rpartition(":")[2])
    with socket.create_server(("", port)):
        with pytest.raises(ConfigError, match=f"port {port} is taken here"):
            cluster.meet(first, GREETING, timeout=0.3)
        with pytest.raises(ConfigError, match=f"port {port} is taken here"):
            cluster.check_port(first)


def test_servers_that_do_not_answer_are_named() -> None:
    chief, worker, ps = (f"localhost:{free_port()}" for _ in range(3))
    jobs = {"chief": (chief,), "worker": (worker,), "ps": (ps,)}
    with socket.create_server(("", int(ps.rpartition(":")[2]))):
        with pytest.raises(ConfigError, match=f"^worker 0 at {worker}: did not come"):
            cluster.wait_for_servers(Cluster(jobs, "chief", 0), timeout=0.3)


def test_an_address_that_does_not_answer_is_named() -> None:
    address = f"localhost:{free_port()}"
    with pytest.raises(ConfigError, match=f"--data-service {address}: cannot be"):
        cluster.wait_for_address(address, timeout=0.2, what="--data-service")
    with pytest.raises(ConfigError, match="'host'; expected host:port"):
        cluster.wait_for_address("host", timeout=0.2, what="--data-service")
