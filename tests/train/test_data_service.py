"""Samples made by servers in other processes are those the trainer would make."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.config import DatasetOptions
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.train.data import pipeline, readable_errors
from deeplab2_edge.train.data.service import SampleServer
from tests.train.small_run import ROOT, write_scenes

pytestmark = pytest.mark.tf

_PROGRAM = (
    "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
)


@contextlib.contextmanager
def server(folder: Path, port: int = 0) -> Iterator[tuple[Any, str]]:
    """Runs `data serve` in another process; gives it and its address."""
    command = ["data", "serve", "--host", "localhost", "--port", str(port)]
    with (folder / "server.txt").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *command],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "--data-service" in line, (folder / "server.txt").read_text()[-2000:]
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


def free_ports() -> int:
    """Returns a port that is free, as the next one probably is."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def batches(options: DatasetOptions, **settings: Any) -> Any:
    dataset = pipeline.training_dataset(
        options, get_dataset("synthetic_street"), seed=3, **settings
    )
    return dataset.as_numpy_iterator()


@pytest.fixture
def options(tmp_path: Path) -> DatasetOptions:
    return DatasetOptions(
        file_pattern=(write_scenes(tmp_path, 5),), batch_size=4, crop_size=(33, 65)
    )


def test_servers_make_what_the_process_itself_would(
    options: DatasetOptions, tmp_path: Path
) -> None:
    share = pipeline.Share(1, 2, num_replicas=2)
    alone = batches(options, share=share, start_step=3)
    expected = [next(alone) for _ in range(5)]
    with server(tmp_path) as (_, first), server(tmp_path) as (_, second):
        services = [first, second]
        served = batches(options, share=share, start_step=3, services=services)
        for one in expected:
            other = next(served)
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])


def test_a_server_that_began_anew_is_noticed(
    options: DatasetOptions, tmp_path: Path
) -> None:
    port = free_ports()
    with server(tmp_path, port) as (_, address):
        served = batches(options, services=[address])
        next(served)
    with server(tmp_path, port), pytest.raises(DataError), readable_errors():
        for _ in range(1000):  # some were fetched before
            next(served)


def test_a_port_that_is_taken_is_named() -> None:
    port = free_ports()
    first = SampleServer("localhost", port)
    assert first.address == f"localhost:{port}"
    with pytest.raises(UsageError, match=f"port {port} is taken"):
        SampleServer("localhost", port)
    with pytest.raises(UsageError, match=f"port {port} is taken"):
        SampleServer("localhost", port - 1)
    with pytest.raises(UsageError, match="port 70000 is none"):
        SampleServer("localhost", 70000)
