"""Workers learn each at its own speed; losing one, or the chief, loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.config import format_config
from deeplab2_edge.errors import ConfigError, UsageError
from deeplab2_edge.train import trainer
from deeplab2_edge.train.parameter_server import asynchronous_cluster
from deeplab2_edge.train.run_options import RunOptions
from tests.train.small_run import ROOT, experiment, write_scenes

pytestmark = pytest.mark.tf

STEPS = 200
_SECONDS = 1500.0  # a busy machine traces slowly
_PROGRAM = (
    "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
)
CLUSTER = {
    "chief": ["localhost:1001"],
    "worker": ["localhost:1002"],
    "ps": ["localhost:1003"],
}


class Processes:
    """Starts the same command as chief, workers and parameter server."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.folder = folder
        self.arguments = arguments
        jobs = {"chief": 1, "worker": 2, "ps": 1}
        ports = iter(free_ports(sum(jobs.values())))
        self.cluster = {
            job: [f"localhost:{next(ports)}" for _ in range(count)]
            for job, count in jobs.items()
        }
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, job: str, index: int = 0) -> None:
        task = {"type": job, "index": index}
        with (self.folder / f"{job}{index}.txt").open("a") as log:
            self.running[f"{job}{index}"] = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *self.arguments],
                env={
                    "PYTHONPATH": str(ROOT),
                    "PATH": "/usr/bin:/bin",
                    "HOME": str(self.folder),
                    "TF_CONFIG": json.dumps({"cluster": self.cluster, "task": task}),
                },
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    def wait_until(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _SECONDS
        while not is_done():
            assert time.monotonic() < deadline, self.logs()
            for process in self.running.values():
                assert process.poll() is None, self.logs()
            time.sleep(0.02)

    def result(self, name: str) -> dict[str, Any]:
        process = self.running.pop(name)
        output, _ = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0, self.logs()
        summary: dict[str, Any] = json.loads(output)
        return summary

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}: {path.read_text()[-2000:]}"
            for path in sorted(self.folder.glob("*.txt"))
        )

    def end(self) -> None:
        for name in list(self.running):
            self.kill(name)


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.mark.slow
def test_asynchronous_training_outlives_a_worker_and_its_chief(tmp_path: Path) -> None:
    config = tmp_path / "experiment.textproto"
    changes: dict[str, object] = {
        "trainer_options.solver_options.training_number_of_steps": STEPS,
        "trainer_options.save_checkpoints_steps": 20,
        "trainer_options.save_summaries_steps": 10,
    }
    config.write_text(format_config(experiment(write_scenes(tmp_path, 4), changes)))
    output = tmp_path / "runs"
    arguments = ["train", str(config), "--output", str(output), "--json", "--quiet"]
    arguments += ["--strategy", "parameter_server"]
    run = Processes(tmp_path, arguments)

    def checkpoints() -> list[int]:
        folder = output / "run"
        return sorted(int(p.stem[5:]) for p in folder.glob("ckpt-*.index"))

    try:
        for job, index in (("ps", 0), ("worker", 0), ("worker", 1), ("chief", 0)):
            run.start(job, index)
        run.wait_until(lambda: bool(checkpoints()))
        run.kill("chief0")
        assert max(checkpoints()) < STEPS
        resumed_from = max(checkpoints())
        run.start("chief")
        run.wait_until(lambda: max(checkpoints()) > resumed_from)
        # It may have a step in hand, which the other takes again.
        run.kill("worker1")
        chief = run.result("chief0")
        served = [run.result(name) for name in ("worker0", "ps0")]
    finally:
        run.end()
    assert resumed_from <= chief["first_step"] < chief["last_step"] == STEPS
    # A step that was lost with its worker may have been counted before.
    assert STEPS <= max(checkpoints()) <= STEPS + 1
    assert [one["served_as"] for one in served] == ["worker 0", "ps 0"]
    assert chief["losses"]["total_loss"] < 20.0  # it began above 30
    # What is left of a run that is over needs nobody.
    run.start("chief")
    try:
        again = run.result("chief0")
    finally:
        run.end()
    assert again["first_step"] == again["last_step"]


@pytest.mark.parametrize(
    ("options", "evaluates", "message"),
    [
        (RunOptions(deterministic=True), False, "--deterministic cannot hold"),
        (RunOptions(precision="mixed_float16"), False, "take mixed_bfloat16"),
        (RunOptions(), True, "run --mode continuous_eval beside it"),
    ],
)
def test_what_asynchronous_training_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: RunOptions,
    evaluates: bool,
    message: str,
) -> None:
    config = {"cluster": CLUSTER, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    run = experiment(write_scenes(tmp_path, 2))
    evaluate = (lambda step, checkpoint: None) if evaluates else None
    with pytest.raises(UsageError, match=message):
        trainer.train(run, tmp_path, options, evaluate=evaluate)
    with pytest.raises(UsageError, match="--dry-run takes steps in this process"):
        trainer.dry_run(run, tmp_path, options)


def test_a_cluster_without_parameter_servers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = {job: CLUSTER[job] for job in ("chief", "worker")}
    config = {"cluster": jobs, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ConfigError, match="which lists no ps"):
        asynchronous_cluster("parameter_server")
    assert asynchronous_cluster("auto") is None
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(ConfigError, match="which lists no chief"):
        asynchronous_cluster("parameter_server")


def test_a_chief_whose_servers_do_not_come_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chief, worker, ps = (f"localhost:{port}" for port in free_ports(3))
    jobs = {"chief": [chief], "worker": [worker], "ps": [ps]}
    config = {"cluster": jobs, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    run = experiment(write_scenes(tmp_path, 2))
    with pytest.raises(ConfigError, match=f"worker 0 at {worker}, ps 0 at {ps}: did"):
        trainer.train(run, tmp_path, RunOptions(worker_timeout=0.2))
