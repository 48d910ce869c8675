"""Asynchronous training: workers learn each at its own speed, servers keep the weights.

The chief alone knows what is learnt: it builds the network on the parameter servers,
hands steps to the workers and writes checkpoints. Workers and parameter servers carry
out what they are told, and end when the last checkpoint is there.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from deeplab2_edge.errors import ConfigError, DeepLabEdgeError
from deeplab2_edge.optional import require
from deeplab2_edge.train.cluster import Cluster, check_port, wait_for_servers
from deeplab2_edge.train.data.pipeline import Share

tf: Any = require("tensorflow", extra="train")

_POLL_SECONDS = 1.0
# The chief says good-bye to servers after it wrote the last checkpoint.
_GRACE_SECONDS = 3.0


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
            share = Share(ticket % num_workers, num_workers)
            # What comes back reads its part in another order.
            return make_dataset(share, seed + ticket // num_workers)

        @tf.function  # type: ignore[untyped-decorator]
        def remote_step(batches: Any) -> dict[str, Any]:
            return step(next(batches))

        self._batches = iter(
            self._coordinator.create_per_worker_dataset(dataset_of_worker)
        )
        self._step = remote_step

    def run(self, count: int) -> list[dict[str, float]]:
        """Takes steps, each on the worker that is free first; waits for all.

        A step that was under way on a worker that is lost is taken again by another.

        Returns:
            What each gave.

        Raises:
            DeepLabEdgeError: If a parameter server is lost: its weights are, too.
            tf.errors.OpError: If a step failed.
        """
        with _lost_servers():
            results = [
                self._coordinator.schedule(self._step, args=(self._batches,))
                for _ in range(count)
            ]
            self._coordinator.join()
            return [
                {name: float(value) for name, value in result.fetch().items()}
                for result in results
            ]


@contextlib.contextmanager
def _lost_servers() -> Iterator[None]:
    try:
        yield
    except tf.errors.UnavailableError as error:
        raise DeepLabEdgeError(
            f"a parameter server is lost ({str(error).splitlines()[0]}); start all "
            "again: training resumes from the last checkpoint"
        ) from None


def _draw(tickets: Any) -> Any:
    """Takes a number from a variable that all workers share; none gets it twice."""
    # Reading after `assign_add` could see what another worker added meanwhile.
    return tf.raw_ops.ResourceCountUpTo(
        resource=tickets.handle, limit=tf.int64.max, T=tf.int64
    )
