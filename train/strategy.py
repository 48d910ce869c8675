"""Where training runs: one device, several, several machines, a TPU."""

import json
import os
from typing import Any

from deeplab2_edge.errors import ConfigError, UsageError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu")


def make_strategy(name: str = "auto", *, tpu: str = "") -> Any:
    """Makes the `tf.distribute` strategy of a run.

    Must be called before anything else of TensorFlow runs: several machines connect
    here.

    Args:
        name: `"one"` (GPU 0, or the CPU), `"mirrored"` (all GPUs of this machine),
            `"multi_worker"` (the machines that the environment variable TF_CONFIG
            lists), `"tpu"`, or `"auto"`: multi_worker if TF_CONFIG lists workers, tpu
            if `tpu` or the environment variable TPU_NAME is set, mirrored if there are
            several GPUs, else one.
        tpu: Name or address of the TPU.

    Raises:
        UsageError: If there is no strategy of that name.
        ConfigError: If this machine does not have what the strategy needs.
    """
    if name not in STRATEGIES:
        raise UsageError(
            f"strategy is {name!r}; expected one of {', '.join(STRATEGIES)}"
        )
    tpu = tpu or os.environ.get("TPU_NAME", "")
    if name == "auto":
        name = _best(tpu)
    if name == "multi_worker":
        if _num_workers() < 1:
            raise ConfigError(
                "strategy multi_worker needs the environment variable TF_CONFIG, for "
                'example {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                '"task": {"type": "worker", "index": 0}}'
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu_strategy(tpu)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_logical_devices())
    return tf.distribute.get_strategy()


def is_chief(strategy: Any) -> bool:
    """Tells whether this process writes checkpoints and summaries."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    return bool(resolver.task_type in ("chief", "worker") and resolver.task_id == 0)


def num_replicas(strategy: Any) -> int:
    """Returns how many copies of the model learn together."""
    return int(strategy.num_replicas_in_sync)


def check_batch_size(batch_size: int, strategy: Any) -> None:
    """Refuses a global batch that replicas cannot share evenly.

    Raises:
        ConfigError: If they cannot.
    """
    replicas = num_replicas(strategy)
    if batch_size % replicas:
        low = batch_size // replicas * replicas
        near = [size for size in (low, low + replicas) if size]
        raise ConfigError(
            f"train_dataset_options.batch_size is {batch_size}, to be shared by "
            f"{replicas} replicas; nearest that fit: {' and '.join(map(str, near))}"
        )


def _best(tpu: str) -> str:
    if _num_workers() > 1:
        return "multi_worker"
    if tpu:
        return "tpu"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one"


def _num_workers() -> int:
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0
    try:
        cluster = json.loads(text).get("cluster", {})
        return len(cluster.get("worker", ())) + len(cluster.get("chief", ()))
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"the environment variable TF_CONFIG is not a JSON object ({error})"
        ) from None


def _logical_devices() -> list[str]:
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [device.name for device in tf.config.list_logical_devices(kind)]


def _tpu_strategy(tpu: str) -> Any:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu)
    except (ValueError, tf.errors.OpError) as error:
        raise ConfigError(
            f"TPU {tpu or '(none given)'}: cannot be reached "
            f"({str(error).splitlines()[0]})"
        ) from None
    return tf.distribute.TPUStrategy(resolver)
