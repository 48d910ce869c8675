"""How a run is carried out, whatever is learnt; needs no TensorFlow."""

from dataclasses import dataclass

from deeplab2_edge.errors import UsageError


@dataclass(frozen=True)
class RunOptions:
    """Says how a run is carried out; what is learnt stands in the experiment.

    Attributes:
        seed: Of weights, data order and augmentation.
        deterministic: Use only ops with a fixed summation order: a resumed run then
            equals an uninterrupted one bit for bit; somewhat slower.
        strategy: See `make_strategy`.
        tpu: Name or address of a TPU.
        precision: See `build_model`. With float16 the loss is scaled.
        recompute: See `build_model`: less memory, more time, the same result.
        num_micro_batches: See `make_train_step`.
        xla: See `make_train_step`; for one replica.
        stop_after: Stop at this step, before the configured number.
        data_services: See `training_dataset`.
        worker_timeout: Seconds to wait for other machines.
    """

    seed: int = 0
    deterministic: bool = False
    strategy: str = "auto"
    tpu: str = ""
    precision: str = "float32"
    recompute: bool = False
    num_micro_batches: int = 1
    xla: bool = False
    stop_after: int | None = None
    data_services: tuple[str, ...] = ()
    worker_timeout: float = 600.0

    def __post_init__(self) -> None:
        if self.stop_after is not None and self.stop_after < 1:
            raise UsageError(
                f"the step to stop at is {self.stop_after}; must be at least 1"
            )
        if self.num_micro_batches < 1:
            raise UsageError(
                f"the number of micro-batches is {self.num_micro_batches}; must be at "
                "least 1"
            )
        if not self.worker_timeout > 0:
            raise UsageError(
                f"the time to wait for other machines is {self.worker_timeout:g} "
                "seconds; must be above 0"
            )

    def agreement(self) -> str:
        """Says, line by line, what must be the same in all processes of a run."""
        own = ("data_services", "worker_timeout")
        options = {name: value for name, value in vars(self).items() if name not in own}
        return "".join(f"option {name}: {value}\n" for name, value in options.items())
