"""One optimization step as a compiled function, over all replicas."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import SolverOptions
from deeplab2_edge.layers.dropout import Replayable
from deeplab2_edge.layers.replay import current_draws, draws_of
from deeplab2_edge.models import resize_outputs
from deeplab2_edge.optional import require
from deeplab2_edge.train.loss_scale import LossScale
from deeplab2_edge.train.losses.total import TOTAL_LOSS
from deeplab2_edge.train.optimizers import OptimizerGroup, clip_gradients

tf = require("tensorflow", extra="train")

# Names under which a step reports whether its update was left out, and the norm of the
# gradient before clipping.
SKIPPED = "skipped"
GRADIENT_NORM = "gradient_norm"
# Keeps the random streams of replicas apart; a prime above any number of replicas.
_REPLICA_STRIDE = 1_000_003

# Predictions and targets to `[B]` values by name, `total_loss` among them.
LossFunction = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]


def make_train_step(
    model: Any,
    loss: LossFunction,
    groups: Sequence[OptimizerGroup],
    global_step: Any,
    *,
    solver: SolverOptions,
    strategy: Any = None,
    num_micro_batches: int = 1,
    loss_scale: LossScale | None = None,
    xla: bool = False,
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Builds the function that learns from one batch.

    Gradients are means over the global batch: n replicas with B samples each learn
    what one with n * B samples learns (batch statistics apart, unless they are
    synchronized). They are clipped after they are summed, for the same reason; the
    original clips those of each replica.

    A step whose gradient is not finite leaves weights, statistics of batch norm and
    optimizer alone and is reported; the original trainer replaces such a loss by zero
    and loses the step silently. Without a loss scale, whose search it would end, no
    step after it changes anything, so that its cause can be looked for.

    Args:
        model: See `build_model`.
        loss: See `LossFunction`.
        groups: Optimizers and their shares of the trainable variables.
        global_step: int64 variable, counted up by the step.
        solver: Says how gradients are clipped.
        strategy: By default the one in scope.
        num_micro_batches: Parts each replica's batch is learnt from one after the
            other, in one update: less memory. Batch statistics are those of a part.
        loss_scale: For float16.
        xla: Compile forward pass, losses and gradients of a replica with XLA.

    Returns:
        From a global batch to the mean of every loss over it (unweighted mean, the
        weights of the terms applied), `gradient_norm`, and `skipped`, 1.0 if the
        update was left out.
    """
    strategy = strategy or tf.distribute.get_strategy()
    for layer in model.submodules:
        if isinstance(layer, Replayable):
            layer.seed_source = seed_of(global_step)
    replica_step = ReplicaStep(
        model,
        loss,
        tuple(groups),
        solver,
        share=1.0 / (strategy.num_replicas_in_sync * num_micro_batches),
        num_micro_batches=num_micro_batches,
        loss_scale=loss_scale,
        xla=xla,
    )
    with strategy.scope():
        has_diverged = tf.Variable(
            False,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(batch: Mapping[str, Any]) -> dict[str, Any]:
        statistics = strategy.run(replica_step.read_statistics)
        values, gradients = strategy.run(replica_step.learn, args=(batch,))
        gradients, norms = strategy.run(replica_step.finish, args=(gradients,))
        # After the reduction all replicas hold the same.
        values = {
            n: strategy.experimental_local_results(v)[0] for n, v in values.items()
        }
        norm = strategy.experimental_local_results(norms)[0]
        is_finite = tf.math.is_finite(values[TOTAL_LOSS]) & tf.math.is_finite(norm)
        is_learnt = is_finite & ~has_diverged.read_value()
        if is_learnt:
            strategy.run(replica_step.update, args=(gradients,))
        else:
            strategy.run(replica_step.write_statistics, args=(statistics,))
        if loss_scale is not None:
            loss_scale.adapt(is_finite)
        else:
            has_diverged.assign(~is_learnt)
        global_step.assign_add(1)
        values[GRADIENT_NORM] = norm
        values[SKIPPED] = 1.0 - tf.cast(is_learnt, tf.float32)
        return values

    return step  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class ReplicaStep:
    """Is the share of a step that every replica does; see `make_train_step`.

    Attributes:
        model: See `make_train_step`, as for all but `share`.
        loss: The loss.
        groups: Optimizers and their variables.
        solver: Says how gradients are clipped.
        share: Weight of the mean over one part of the batch in that over all.
        num_micro_batches: Parts of the replica's batch.
        loss_scale: For float16.
        xla: See `make_train_step`.
    """

    model: Any
    loss: LossFunction
    groups: tuple[OptimizerGroup, ...]
    solver: SolverOptions
    share: float
    num_micro_batches: int
    loss_scale: LossScale | None
    xla: bool = False

    @property
    def variables(self) -> list[Any]:
        """The trainable variables, in the order of their gradients."""
        return [variable for group in self.groups for variable in group.variables]

    def learn(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Returns losses and gradients, summed over parts and replicas."""
        values: dict[str, Any] = {}
        gradients: list[Any] = [None] * len(self.variables)
        learn_part: Any = self.learn_part
        if self.xla:
            learn_part = tf.function(learn_part, jit_compile=True)
        for number, part in enumerate(_parts(batch, self.num_micro_batches)):
            part_values, part_gradients = learn_part(part, number)
            values = {n: values.get(n, 0.0) + v for n, v in part_values.items()}
            gradients = [
                _sum(*pair) for pair in zip(gradients, part_gradients, strict=True)
            ]
        # What no loss reaches has no gradient.
        reached = [g for g in gradients if g is not None]
        replica = tf.distribute.get_replica_context()
        values, reached = replica.all_reduce("SUM", [values, reached])
        rest = iter(reached)
        return values, [None if g is None else next(rest) for g in gradients]

    def learn_part(
        self, part: Mapping[str, Any], number: int = 0
    ) -> tuple[dict[str, Any], list[Any]]:
        """Returns the share of one part in the losses and in the gradients.

        Args:
            part: Of the batch.
            number: Of the part; each draws random masks of its own.
        """
        size = tuple(self.model.input.shape[1:3])
        draws = (*current_draws(), number) if number else current_draws()
        with draws_of(draws), tf.GradientTape() as tape:
            outputs = resize_outputs(self.model(part[keys.IMAGE], training=True), size)
            values = {
                name: self.share * tf.reduce_mean(value)
                for name, value in self.loss(outputs, part).items()
            }
            target = values[TOTAL_LOSS]
            if self.loss_scale is not None:
                target = self.loss_scale.apply(target)
        gradients = tape.gradient(target, self.variables)
        # Gathered tables have gradients in slices, whose sums have no static shape.
        return values, [
            None if gradient is None else tf.convert_to_tensor(gradient)
            for gradient in gradients
        ]

    @property
    def statistics(self) -> list[Any]:
        """What a forward pass changes: statistics of batch norm, ranges."""
        # Weights that were frozen are not changed by anything.
        return [v for v in self.model.non_trainable_weights if not v.trainable]

    def read_statistics(self) -> list[Any]:
        """Returns copies of the statistics."""
        return [tf.identity(variable) for variable in self.statistics]

    def write_statistics(self, values: list[Any]) -> None:
        """Takes a forward pass back."""
        for variable, value in zip(self.statistics, values, strict=True):
            variable.assign(value)

    def finish(self, gradients: list[Any]) -> tuple[list[Any], Any]:
        """Returns unscaled, clipped gradients, and their norm before clipping."""
        if self.loss_scale is not None:
            gradients = self.loss_scale.remove(gradients)
        return clip_gradients(gradients, self.solver)

    def update(self, gradients: Iterable[Any]) -> None:
        """Moves the variables."""
        remaining = iter(gradients)
        for group in self.groups:
            pairs = [(next(remaining), variable) for variable in group.variables]
            group.optimizer.apply_gradients(
                [pair for pair in pairs if pair[0] is not None],
                skip_gradients_aggregation=True,
            )


def seed_of(global_step: Any) -> Callable[[], Any]:
    """Gives a function to an int64 tensor that differs by step and by replica."""

    def seed() -> Any:
        replica = tf.distribute.get_replica_context()
        number = tf.cast(replica.replica_id_in_sync_group, tf.int64)
        return global_step.read_value() * _REPLICA_STRIDE + number

    return seed


def _parts(batch: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    if count == 1:
        return [dict(batch)]
    pieces = {name: tf.split(value, count) for name, value in batch.items()}
    return [{n: piece[index] for n, piece in pieces.items()} for index in range(count)]


def _sum(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return tf.convert_to_tensor(first) + tf.convert_to_tensor(second)
