"""A server that makes training samples for machines that learn from them."""

import threading
from typing import Any

from deeplab2_edge.errors import UsageError
from deeplab2_edge.optional import require
from deeplab2_edge.train.cluster import port_problem

tf: Any = require("tensorflow", extra="train")


class SampleServer:
    """Makes samples for trainings that ask for them, as long as it lives.

    It is a dispatcher and the one worker of the `tf.data` service, in one process:
    several servers know nothing of each other, and a training lets them take turns.
    What is made, and from which files, each training says; so serve on networks alone
    whose machines you trust.

    Args:
        host: Name or address under which trainings reach this machine.
        port: Of the dispatcher, the one that trainings are given. Samples come from
            the port after it. 0 takes two that are free.

    Attributes:
        address: `host:port`, what trainings are given.

    Raises:
        UsageError: If a port is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        for taken in (port, port + 1) if port else ():
            # The service itself would share it with another server.
            if (problem := port_problem(taken)) is not None:
                raise UsageError(f"port {taken} {problem}")
        service = tf.data.experimental.service
        self._dispatcher = service.DispatchServer(service.DispatcherConfig(port=port))
        self.address = f"{host}:{self._dispatcher.target.rpartition(':')[2]}"
        self._worker = service.WorkerServer(
            service.WorkerConfig(
                self._dispatcher.target.partition("://")[2],
                worker_address=f"{host}:%port%",
                port=port + 1 if port else 0,
            )
        )

    def join(self) -> None:
        """Waits for ever; a signal ends it."""
        threading.Event().wait()
