"""Asynchronous training: workers learn each at its own speed, servers keep the weights.

The chief alone knows what is learnt: it builds the network on the parameter servers,
hands steps to the workers and writes checkpoints. Workers and parameter servers carry
out what they are told, and end when the last checkpoint is there.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deeplab2_edge.config import SolverOptions
from deeplab2_edge.errors import ConfigError, DeepLabEdgeError, UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.train.cluster import Cluster, check_port, wait_for_servers
from deeplab2_edge.train.data.pipeline import Share
from deeplab2_edge.train.data.traced_checks import readable_errors
from deeplab2_edge.train.losses import TOTAL_LOSS
from deeplab2_edge.train.run_options import RunOptions
from deeplab2_edge.train.step import GRADIENT_NORM, SKIPPED

tf: Any = require("tensorflow", extra="train")

_POLL_SECONDS = 1.0
# The chief says good-bye to servers after it wrote the last checkpoint.
_GRACE_SECONDS = 3.0


def asynchronous_cluster(strategy: str) -> Cluster | None:
    """Gives the cluster of an asynchronous run; None if the run is another.

    Args:
        strategy: See `make_strategy`.

    Raises:
        ConfigError: If the strategy is `parameter_server` and TF_CONFIG does not fit.
    """
    if strategy == "auto":
        cluster = Cluster.from_environment()
        if cluster is not None and cluster.has_parameter_servers:
            return parameter_server_cluster()
    return parameter_server_cluster() if strategy == "parameter_server" else None


def check_asynchronous(options: RunOptions, *, evaluates: bool) -> None:
    """Refuses what makes no sense if workers do not wait for each other.

    Args:
        options: Of the run.
        evaluates: Whether the chief would evaluate beside training.

    Raises:
        UsageError: If something does.
    """
    reason = None
    if options.deterministic:
        reason = "--deterministic cannot hold: workers move the weights by chance"
    elif options.precision == "mixed_float16":
        reason = (
            "--precision mixed_float16 has one loss scale, but workers overflow at "
            "different times: take mixed_bfloat16"
        )
    elif evaluates:
        reason = (
            "--mode train_and_eval would keep the workers waiting: run --mode "
            "continuous_eval beside it, in a process without TF_CONFIG"
        )
    if reason is not None:
        raise UsageError(f"with strategy parameter_server {reason}")


def check_batch_statistics(strategy: Any, options: SolverOptions) -> None:
    """Refuses to synchronize batch norm between the devices of each worker.

    Raises:
        ConfigError: If a worker has several, and `use_sync_batchnorm` is set.
    """
    replicas = int(strategy.num_replicas_in_sync)
    if is_asynchronous(strategy) and replicas > 1 and options.use_sync_batchnorm:
        raise ConfigError(
            f"solver_options.use_sync_batchnorm is true, but with strategy "
            f"parameter_server the {replicas} GPUs of a worker do not share batch "
            "statistics: set it to false, or give each worker one GPU"
        )


def is_asynchronous(strategy: Any) -> bool:
    """Tells whether workers learn each at its own speed."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def is_finished(output_dir: Path, last_step: int) -> bool:
    """Tells whether the last checkpoint of a run is there."""
    # TensorFlow writes last of all the file that names it.
    latest = tf.train.latest_checkpoint(str(output_dir))
    return latest is not None and int(latest.rpartition("-")[2]) >= last_step


def parameter_server_cluster() -> Cluster:
    """Reads the cluster of this strategy from TF_CONFIG.

    Raises:
        ConfigError: If it has not one chief, and workers and parameter servers.
    """
    cluster = Cluster.from_environment()
    counts = {} if cluster is None else {j: len(a) for j, a in cluster.jobs.items()}
    missing = [job for job in ("chief", "worker", "ps") if not counts.get(job)]
    if cluster is None or missing:
        raise ConfigError(
            "strategy parameter_server needs a chief, workers and parameter servers in "
            f"the environment variable TF_CONFIG, which lists no {missing[0]}; for "
            'example {"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222", '
            '"host2:2222"], "ps": ["host3:2222"]}, "task": {"type": "chief", "index": '
            "0}}"
        )
    return cluster


def serve(cluster: Cluster, is_finished: Callable[[], bool]) -> None:
    """Does what the chief says, as a worker or parameter server.

    Args:
        cluster: Says who this process is.
        is_finished: Asked every second; ends this.

    Raises:
        ConfigError: If the port of this process is taken.
    """
    check_port(cluster)
    # A chief that was killed comes back; until then calls must not fail at once.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    server = tf.distribute.Server(
        {job: list(addresses) for job, addresses in cluster.jobs.items()},
        job_name=cluster.task_type,
        task_index=cluster.task_index,
        protocol="grpc",
    )
    assert server is not None  # it lives as long as its name
    while not is_finished():
        time.sleep(_POLL_SECONDS)
    time.sleep(_GRACE_SECONDS)


def connect(cluster: Cluster, *, timeout: float) -> Any:
    """Makes the strategy of the chief, once all others are there.

    Raises:
        ConfigError: If the port of this process is taken, or somebody does not come
            within `timeout` seconds.
    """
    check_port(cluster)
    wait_for_servers(cluster, timeout=timeout)
    return tf.distribute.ParameterServerStrategy(
        tf.distribute.cluster_resolver.TFConfigClusterResolver()
    )


class Coordinator:
    """Hands out steps to the workers of a parameter server strategy.

    Args:
        strategy: Of `connect`.
        step: See `make_train_step`.
        make_dataset: From share and seed, which may be tensors, to endless batches.
        num_workers: In the cluster.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        strategy: Any,
        step: Callable[[Any], dict[str, Any]],
        make_dataset: Callable[[Share, Any], Any],
        *,
        num_workers: int,
        seed: int,
    ) -> None:
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        with strategy.scope():
            tickets = tf.Variable(0, dtype=tf.int64, trainable=False)

        def dataset_of_worker() -> Any:
            # Runs on each worker when it comes, and again when it comes back.
            ticket = _draw(tickets)
            share = Share(
                ticket % num_workers, num_workers, int(strategy.num_replicas_in_sync)
            )
            # What comes back reads its part in another order.
            dataset = make_dataset(share, seed + ticket // num_workers)
            if share.num_replicas == 1:
                return dataset
            return strategy.distribute_datasets_from_function(lambda context: dataset)

        @tf.function  # type: ignore[untyped-decorator]
        def remote_step(batches: Any) -> dict[str, Any]:
            return step(next(batches))

        self._batches = iter(
            self._coordinator.create_per_worker_dataset(dataset_of_worker)
        )
        self._step = remote_step

    def run(self, count: int) -> Iterator[dict[str, float]]:
        """Takes steps, each on the worker that is free first.

        A step that was under way on a worker that is lost is taken again by another.

        Yields:
            What each gave. The last one comes when all are done.

        Raises:
            DeepLabEdgeError: If a parameter server is lost: its weights are, too.
            DataError: If a record cannot be used.
        """
        with _readable_errors():
            results = [
                self._coordinator.schedule(self._step, args=(self._batches,))
                for _ in range(count)
            ]
            for number, result in enumerate(results, start=1):
                if number == count:
                    self._coordinator.join()
                losses = result.fetch()
                yield {name: float(value) for name, value in losses.items()}

    def run_between(
        self, first: int, last: int, stops: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Takes the steps after `first` up to `last`.

        Args:
            first: Steps that were done before.
            last: Step to end with.
            stops: At multiples of these all workers wait, for example for a
                checkpoint.

        Yields:
            Number of each step, and what it gave.

        Raises:
            DeepLabEdgeError: As in `run`, and if a step could not be learnt from.
        """
        while first < last:
            ends = [last, *((first // stop + 1) * stop for stop in stops)]
            end = min(ends)
            for step, losses in enumerate(self.run(end - first), start=first + 1):
                _refuse_divergence(step, losses)
                yield step, losses
            first = end


def _refuse_divergence(step: int, losses: dict[str, float]) -> None:
    if not losses[SKIPPED]:
        return
    culprits = [
        name
        for name, value in losses.items()
        if name not in (TOTAL_LOSS, GRADIENT_NORM) and not math.isfinite(value)
    ]
    what = " and ".join(culprits) or "the gradient of a finite loss"
    raise DeepLabEdgeError(
        f"step {step}, counted by the chief: {what} is not finite, so nothing was "
        "learnt from it. Lower solver_options.base_learning_rate or set "
        "use_gradient_clipping, then start all again: training resumes from the last "
        "checkpoint"
    )


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except tf.errors.UnavailableError as error:
        raise DeepLabEdgeError(
            f"a parameter server is lost ({str(error).splitlines()[0]}); start all "
            "again: training resumes from the last checkpoint"
        ) from None
    except tf.errors.InvalidArgumentError:
        with readable_errors():
            raise


def _draw(tickets: Any) -> Any:
    """Takes a number from a variable that all workers share; none gets it twice."""
    # Reading after `assign_add` could see what another worker added meanwhile.
    return tf.raw_ops.ResourceCountUpTo(
        resource=tickets.handle, limit=tf.int64.max, T=tf.int64
    )
