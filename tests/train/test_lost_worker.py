"""Two worker processes train together; one is lost, and all start again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.config import format_config
from tests.train.small_run import ROOT, experiment, write_scenes

pytestmark = [pytest.mark.tf, pytest.mark.slow]

STEPS = 12
_SECONDS = 900.0  # a busy machine traces slowly
_PROGRAM = (
    "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
)


def start_workers(arguments: Sequence[str], logs: Path) -> list[subprocess.Popen[str]]:
    addresses = [f"localhost:{free_port()}" for _ in range(2)]
    workers = []
    for index in range(2):
        cluster = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        with (logs / f"worker{index}.txt").open("w") as log:
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *arguments],
                    env={
                        "PYTHONPATH": str(ROOT),
                        "PATH": "/usr/bin:/bin",
                        "HOME": str(logs),
                        "TF_CONFIG": json.dumps(cluster),
                    },
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            )
    return workers


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def log_of(folder: Path) -> str:
    return "\n".join(p.read_text()[-3000:] for p in sorted(folder.glob("worker*")))


def stop(workers: Sequence[subprocess.Popen[str]]) -> None:
    for worker in workers:
        worker.kill()
        worker.communicate()


def test_workers_go_on_from_the_checkpoint_after_one_was_killed(tmp_path: Path) -> None:
    config = tmp_path / "experiment.textproto"
    changes: dict[str, object] = {
        "trainer_options.solver_options.training_number_of_steps": STEPS,
        "trainer_options.save_checkpoints_steps": 4,
    }
    config.write_text(format_config(experiment(write_scenes(tmp_path, 4), changes)))
    output = tmp_path / "runs"
    arguments = ["train", str(config), "--output", str(output), "--json", "--quiet"]
    arguments += ["--strategy", "multi_worker"]

    workers = start_workers(arguments, tmp_path)
    try:
        # It is written last, and names the checkpoint to go on from.
        first = output / "run" / "checkpoint"
        deadline = time.monotonic() + _SECONDS
        while not first.exists():
            assert time.monotonic() < deadline, log_of(tmp_path)
            for worker in workers:
                assert worker.poll() is None, log_of(tmp_path)
            time.sleep(0.01)
        os.kill(workers[1].pid, signal.SIGKILL)
    finally:
        # Whoever runs the machines ends what is left: a worker may wait for the lost.
        stop(workers)
    assert workers[1].returncode == -signal.SIGKILL
    assert not (output / "run" / f"ckpt-{STEPS}.index").exists()

    workers = start_workers(arguments, tmp_path)
    try:
        told = [worker.communicate(timeout=_SECONDS)[0] for worker in workers]
    finally:
        stop(workers)
    assert [worker.returncode for worker in workers] == [0, 0], log_of(tmp_path)
    for text in told:
        summary = json.loads(text)
        assert summary["first_step"] in range(4, STEPS)
        assert summary["last_step"] == STEPS
        checkpoint = output / "run" / f"ckpt-{summary['first_step']}"
        assert summary["restored"]["checkpoint"] == str(checkpoint)
    assert (output / "run" / f"ckpt-{STEPS}.index").is_file()
