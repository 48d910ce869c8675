"""Where training runs: one device, several, several machines, a TPU."""

import os
from typing import Any

from deeplab2_edge.errors import ConfigError, UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.train.cluster import Cluster, meet
from deeplab2_edge.train.parameter_server import connect, parameter_server_cluster

tf = require("tensorflow", extra="train")

STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "parameter_server", "tpu")

WORKER_TIMEOUT = 600.0


def choose_strategy(name: str = "auto", *, tpu: str = "") -> str:
    """Names the strategy of a run: what is there, if `name` is `"auto"`.

    Args:
        name: See `make_strategy`.
        tpu: Name or address of the TPU.

    Raises:
        UsageError: If there is no strategy of that name.
        ConfigError: If TF_CONFIG cannot be understood.
    """
    if name not in STRATEGIES:
        raise UsageError(
            f"strategy is {name!r}; expected one of {', '.join(STRATEGIES)}"
        )
    if name != "auto":
        return name
    cluster = Cluster.from_environment()
    if cluster is not None and cluster.has_parameter_servers:
        return "parameter_server"
    if cluster is not None and len(cluster.learners) > 1:
        return "multi_worker"
    if _tpu_name(tpu):
        return "tpu"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one"


def make_strategy(
    name: str = "auto",
    *,
    tpu: str = "",
    greeting: str = "",
    timeout: float = WORKER_TIMEOUT,
) -> Any:
    """Makes the `tf.distribute` strategy of a run.

    Must be called before anything else of TensorFlow runs: several machines connect
    here.

    Args:
        name: `"one"` (GPU 0, or the CPU), `"mirrored"` (all GPUs of this machine),
            `"multi_worker"` (the machines that the environment variable TF_CONFIG
            lists), `"parameter_server"` (the same, for its chief), `"tpu"`, or
            `"auto"`: parameter_server or multi_worker if TF_CONFIG lists such
            machines, tpu if `tpu` or the environment variable TPU_NAME is set,
            mirrored if there are several GPUs, else one.
        tpu: Name or address of the TPU.
        greeting: What all workers must agree on, line by line.
        timeout: Seconds to wait for other machines.

    Raises:
        UsageError: If there is no strategy of that name.
        ConfigError: If this machine does not have what the strategy needs, or another
            cannot be reached or does something else.
    """
    name = choose_strategy(name, tpu=tpu)
    if name == "multi_worker":
        return _multi_worker_strategy(greeting, timeout)
    if name == "parameter_server":
        return connect(parameter_server_cluster(), timeout=timeout)
    if name == "tpu":
        return _tpu_strategy(_tpu_name(tpu))
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_logical_devices())
    return tf.distribute.get_strategy()


def is_chief(strategy: Any) -> bool:
    """Tells whether this process writes checkpoints and summaries."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    first = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return bool((resolver.task_type, resolver.task_id) == (first, 0))


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


def _multi_worker_strategy(greeting: str, timeout: float) -> Any:
    cluster = Cluster.from_environment()
    if cluster is None or not cluster.learners:
        raise ConfigError(
            "strategy multi_worker needs the environment variable TF_CONFIG, for "
            'example {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}'
        )
    if cluster.has_parameter_servers:
        raise ConfigError(
            "strategy multi_worker has no parameter servers, but TF_CONFIG lists some "
            "under `ps`: leave them out, or use strategy parameter_server"
        )
    if len(cluster.learners) > 1:
        meet(cluster, greeting, timeout=timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu_name(tpu: str) -> str:
    return tpu or os.environ.get("TPU_NAME", "")


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
