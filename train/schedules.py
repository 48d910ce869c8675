"""Learning-rate schedules of the published configurations."""

from typing import Any

from deeplab2_edge.config import SolverOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")


def build_schedule(options: SolverOptions, *, multiplier: float = 1.0) -> Any:
    """Builds the learning-rate schedule of a configuration.

    `poly` falls to `poly_end_learning_rate` as `(1 - t / T) ** power`, `cosine` to 0
    along half a cosine, where `T` is `training_number_of_steps`. After a warm-up the
    schedule goes on at the step itself, so the rate steps down slightly there.

    Args:
        options: Policy, rates and step counts.
        multiplier: Scales the base rate (for a backbone that learns more slowly); the
            end rate stays as it is.

    Returns:
        A `tf_keras` learning-rate schedule: step -> float32 scalar.

    Raises:
        ConfigError: If the policy is unknown or a step count makes no sense.
    """
    num_steps = options.training_number_of_steps
    if num_steps < 1 or options.warmup_steps < 0:
        raise ConfigError(
            f"solver_options: training_number_of_steps is {num_steps} and "
            f"warmup_steps {options.warmup_steps}; expected at least 1 and 0"
        )
    base_rate = options.base_learning_rate * multiplier
    if options.learning_policy == "poly":
        schedule = tf_keras.optimizers.schedules.PolynomialDecay(
            base_rate,
            num_steps,
            end_learning_rate=options.poly_end_learning_rate,
            power=options.poly_learning_power,
        )
    elif options.learning_policy == "cosine":
        schedule = tf_keras.optimizers.schedules.CosineDecay(base_rate, num_steps)
    else:
        raise ConfigError(
            f"solver_options.learning_policy is {options.learning_policy!r}; it must "
            "be 'poly' or 'cosine'"
        )
    if options.warmup_steps == 0:
        return schedule
    return WarmUp(schedule, base_rate, options.warmup_steps)


class WarmUp(tf_keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[name-defined, misc]
    """Rises linearly from 0 to the base rate, then follows another schedule.

    Args:
        schedule: Gives the rate once the warm-up is over; it is not shifted.
        base_rate: What the warm-up rises to.
        num_steps: Length of the warm-up, at least 1. Step 0 has rate 0.
    """

    def __init__(self, schedule: Any, base_rate: float, num_steps: int) -> None:
        self._schedule = schedule
        self._base_rate = base_rate
        self._num_steps = num_steps

    def __call__(self, step: Any) -> Any:
        rising = self._base_rate * tf.cast(step, tf.float32) / self._num_steps
        return tf.where(step < self._num_steps, rising, self._schedule(step))

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": self._schedule,
            "base_rate": self._base_rate,
            "num_steps": self._num_steps,
        }
