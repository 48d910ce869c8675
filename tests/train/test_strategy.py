"""Training on several devices and several machines equals training on one."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.errors import ConfigError, UsageError
from deeplab2_edge.train.strategy import make_strategy

pytestmark = pytest.mark.tf

ROOT = Path(__file__).resolve().parents[2]
# One worker, or the only process: a small network learns a few steps from a fixed
# stream of samples, and its weights are printed.
PROGRAM = """
import json, os, sys
import numpy as np
import tensorflow as tf
import tf_keras
from deeplab2_edge.config import SolverOptions
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.conv import biased_conv, conv
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.train.optimizers import build_optimizer_groups
from deeplab2_edge.train.step import make_train_step
from deeplab2_edge.train.strategy import is_chief, make_strategy, num_replicas

cpus, name, micro_batches = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    device, [tf.config.LogicalDeviceConfiguration()] * cpus
)
strategy = make_strategy(name)
tf_keras.utils.set_random_seed(0)
synchronized = num_replicas(strategy) > 1
with strategy.scope():
    image = tf_keras.Input((9, 9, 3), name="image")
    x = conv(image, "a", 4, kernel_size=3, defaults=LayerDefaults(
        synchronize_batch_norm=True))
    x = biased_conv(x, "b", 2)
    model = tf_keras.Model(image, {"semantic_logits": x})
    step_number = tf.Variable(0, dtype=tf.int64, trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
    solver = SolverOptions(base_learning_rate=0.1, optimizer="sgd",
                           use_gradient_clipping=True, clip_gradient_norm=0.5)
    groups = build_optimizer_groups(solver, variable_paths(model))
random = np.random.default_rng(0)
for path, variable in sorted(variable_paths(model).items()):
    variable.assign(random.uniform(0.5, 1.0, variable.shape))

def loss(outputs, batch):
    error = outputs["semantic_logits"] - batch["target"]
    error = tf.reduce_mean(error ** 2, [1, 2, 3])
    return {"total_loss": error}

step = make_train_step(model, loss, groups, step_number, solver=solver,
                       strategy=strategy, num_micro_batches=micro_batches)
count, batch = 4, 8
images = random.normal(size=(count * batch, 9, 9, 3)).astype(np.float32)
targets = random.normal(size=(count * batch, 9, 9, 2)).astype(np.float32)
dataset = tf.data.Dataset.from_tensor_slices({"image": images, "target": targets})
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.DATA)
dataset = dataset.batch(batch, drop_remainder=True).with_options(options)
losses = [
    {k: float(v) for k, v in step(part).items()}
    for part in strategy.experimental_distribute_dataset(dataset)
]
weights = {p: v.numpy().tolist() for p, v in variable_paths(model).items()}
print("RESULT", json.dumps({"losses": losses, "weights": weights,
    "replicas": num_replicas(strategy), "chief": is_chief(strategy)}), flush=True)
"""


def run(
    *, cpus: int = 1, strategy: str = "one", micro_batches: int = 1, workers: int = 1
) -> list[dict[str, Any]]:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    addresses = [f"localhost:{_free_port()}" for _ in range(workers)]
    processes = []
    for index in range(workers):
        config = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        extra = {"TF_CONFIG": json.dumps(config)} if workers > 1 else {}
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    PROGRAM,
                    str(cpus),
                    strategy,
                    str(micro_batches),
                ],
                env=environment | extra,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    results = []
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        line = next(x for x in output.splitlines() if x.startswith("RESULT "))
        results.append(json.loads(line.removeprefix("RESULT ")))
    return results


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for mine, theirs in zip(found["losses"], expected["losses"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    for path, weight in expected["weights"].items():
        np.testing.assert_allclose(
            found["weights"][path], weight, rtol=1e-3, atol=1e-5, err_msg=path
        )


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    (result,) = run()
    assert result["replicas"] == 1
    return result


def test_two_devices_learn_what_one_learns(alone: dict[str, Any]) -> None:
    (result,) = run(cpus=2, strategy="mirrored")
    assert result["replicas"] == 2
    assert_same(result, alone)


def test_two_workers_learn_what_one_learns(alone: dict[str, Any]) -> None:
    results = run(workers=2, strategy="auto")
    assert [result["replicas"] for result in results] == [2, 2]
    assert [result["chief"] for result in results] == [True, False]
    for result in results:
        assert_same(result, alone)


def test_micro_batches_change_batch_statistics_alone(alone: dict[str, Any]) -> None:
    (result,) = run(micro_batches=2)
    first, expected = result["losses"][0], alone["losses"][0]
    # The same samples before the first update, normalized in two halves.
    assert first["total_loss"] == pytest.approx(expected["total_loss"], rel=0.05)
    assert result["losses"][-1]["total_loss"] < first["total_loss"]


def test_unknown_strategies_are_refused() -> None:
    with pytest.raises(UsageError, match="expected one of auto, one, mirrored"):
        make_strategy("two")


def test_several_machines_need_to_know_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="TF_CONFIG"):
        make_strategy("multi_worker")
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(ConfigError, match="not a JSON object"):
        make_strategy("multi_worker")
