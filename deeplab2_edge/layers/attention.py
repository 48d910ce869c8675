"""What the attention layers share: options, normalization of terms, positions.

Attention here adds several terms before the softmax (content, query position, key
position) and several after it (content, position), and normalizes every term by itself,
per head. Published checkpoints hold the parameters of such a normalization stacked, as
rank 5 arrays; the computation never needs a tensor of more than rank 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.layers.replay import is_second
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

_ACTIVATIONS = ("softmax", "sigmoid")
# Published tables reach this far either way.
_MAX_DISTANCE = 254


@dataclass(frozen=True)
class AttentionOptions:
    """Says what kind of attention a layer computes.

    Attributes:
        num_heads: Heads `h`; depths must be multiples of it.
        key_expansion: Total depth of queries and of keys over `filters`.
        value_expansion: Total depth of values, and of the result, over `filters`.
        use_content_similarity: Add query . key to the logits.
        use_query_rpe_similarity: Add query . relative position.
        use_key_rpe_similarity: Add key . relative position.
        retrieve_value_content: Retrieve values.
        retrieve_value_rpe: Retrieve relative positions.
        self_attention_activation: `"softmax"` over the keys, or `"sigmoid"`.
        initialization_std_for_query_key_rpe: Of the tables of queries and keys.
        initialization_std_for_value_rpe: Of the table of values.
        double_global_attention: Two global attention layers in a row; axial attention
            ignores it.
        span: A query sees the keys at most this many pixels away; `None`: all.

    Raises:
        ValueError: If nothing is compared or nothing is retrieved, the activation is
            unknown, or `num_heads` or `span` is out of range.
    """

    num_heads: int = 8
    key_expansion: float = 1.0
    value_expansion: float = 2.0
    use_content_similarity: bool = True
    use_query_rpe_similarity: bool = True
    use_key_rpe_similarity: bool = True
    retrieve_value_content: bool = True
    retrieve_value_rpe: bool = True
    self_attention_activation: str = "softmax"
    initialization_std_for_query_key_rpe: float = 1.0
    initialization_std_for_value_rpe: float = 1.0
    double_global_attention: bool = False
    span: int | None = None

    def __post_init__(self) -> None:
        if not (
            self.use_content_similarity
            or self.use_query_rpe_similarity
            or self.use_key_rpe_similarity
        ):
            raise ValueError(
                "use_content_similarity, use_query_rpe_similarity and "
                "use_key_rpe_similarity are all False; attention needs one of them"
            )
        if not (self.retrieve_value_content or self.retrieve_value_rpe):
            raise ValueError(
                "retrieve_value_content and retrieve_value_rpe are both False; "
                "attention needs one of them"
            )
        if self.self_attention_activation not in _ACTIVATIONS:
            raise ValueError(
                f"self_attention_activation is {self.self_attention_activation!r}; "
                f"must be one of {', '.join(_ACTIVATIONS)}"
            )
        if self.num_heads < 1:
            raise ValueError(f"num_heads is {self.num_heads}; must be at least 1")
        if self.span is not None and self.span < 1:
            raise ValueError(f"span is {self.span}; must be at least 1 or None")


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class TermNormalization(tf_keras.layers.Layer):  # type: ignore[misc]
    """Holds the batch normalization of stacked attention terms.

    It equals Keras' `BatchNormalization(axis=[0, 2])`, or `axis=[0, 2, 4]`, on a stack
    `[terms, N, heads, L, M]`, but never sees the stack: it gives the scale and the
    shift of every term, which the attention folds into smaller tensors.

    Args:
        num_terms: Size of the stack.
        num_heads: Heads.
        depth: Channels of a head that keep statistics of their own; 1 for none.
        momentum: Of the moving statistics.
        epsilon: Added to the variance.
        synchronized: Average the statistics of a batch over replicas.
    """

    def __init__(
        self,
        num_terms: int,
        num_heads: int,
        depth: int = 1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_terms = num_terms
        self.num_heads = num_heads
        self.depth = depth
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized

    def build(self, input_shape: Any) -> None:
        for name, first, trainable in (
            ("gamma", "ones", True),
            ("beta", "zeros", True),
            ("moving_mean", "zeros", False),
            ("moving_variance", "ones", False),
        ):
            moving = {
                "synchronization": tf.VariableSynchronization.ON_READ,
                "aggregation": tf.VariableAggregation.MEAN,
            }
            variable = self.add_weight(
                name=name,
                shape=(self.num_terms, 1, self.num_heads, 1, self.depth),
                dtype=tf.float32,
                initializer=first,
                trainable=trainable,
                experimental_autocast=False,
                **({} if trainable else moving),
            )
            setattr(self, name, variable)
        super().build(input_shape)

    def moving_affine(self) -> tuple[Any, Any]:
        """Returns scale and shift of inference.

        Returns:
            Two float32 `[terms, heads, depth]`.
        """
        return self._affine(
            self._flat(self.moving_mean), self._flat(self.moving_variance)
        )

    def batch_affine(
        self, means: Sequence[Any], variances: Sequence[Any], count: Any
    ) -> tuple[Any, Any]:
        """Returns scale and shift of a training batch; updates the moving statistics.

        A pass that only repeats another for its gradient updates nothing.

        Args:
            means: Per term, float32 `[heads, depth]`.
            variances: Likewise, biased.
            count: Float32 number of values behind each statistic.

        Returns:
            Two float32 `[terms, heads, depth]`.
        """
        mean, variance = tf.stack(means), tf.stack(variances)
        replica = tf.distribute.get_replica_context() if self.synchronized else None
        if replica is not None and replica.num_replicas_in_sync > 1:
            mean, variance, count = _synchronize(replica, mean, variance, count)
        if is_second():
            return self._affine(mean, variance)
        # A replica without samples learns nothing.
        rate = (1.0 - self.momentum) * tf.cast(count > 0, tf.float32)
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            value = tf.reshape(value, moving.shape)
            moving.assign_sub((moving - value) * rate)
        return self._affine(mean, variance)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_terms": self.num_terms,
            "num_heads": self.num_heads,
            "depth": self.depth,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }

    def _affine(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        scale = self._flat(self.gamma) * tf.math.rsqrt(variance + self.epsilon)
        return scale, self._flat(self.beta) - mean * scale

    def _flat(self, variable: Any) -> Any:
        return tf.reshape(variable, (self.num_terms, self.num_heads, self.depth))


def _synchronize(
    replica: Any, mean: Any, variance: Any, count: Any
) -> tuple[Any, Any, Any]:
    weights = tf.fill(tf.shape(mean), count)
    sums = tf.stack([weights, weights * mean, weights * (variance + tf.square(mean))])
    weights, total, squares = tf.unstack(replica.all_reduce("SUM", sums))
    mean = tf.math.divide_no_nan(total, weights)
    variance = tf.math.divide_no_nan(squares, weights) - tf.square(mean)
    return mean, tf.maximum(variance, 0.0), weights[0, 0, 0]


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class RelativePositions(tf_keras.layers.Layer):  # type: ignore[misc]
    """Holds one vector per distance -254..254 along an axis, shared by all heads.

    The table has this size whatever the length of the axis.

    Args:
        depth: Size of a vector.
        initial_std: Standard deviation of its first values.
    """

    def __init__(self, depth: int, initial_std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth
        self.initial_std = initial_std

    def build(self, input_shape: Any) -> None:
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(2 * _MAX_DISTANCE + 1, self.depth),
            dtype=tf.float32,
            initializer=tf_keras.initializers.TruncatedNormal(stddev=self.initial_std),
            experimental_autocast=False,
        )
        super().build(input_shape)

    def vectors(self, distances: NDArray[np.int64], scale: float = 1.0) -> Any:
        """Looks up the vectors of distances.

        Args:
            distances: Of any shape; key position minus query position.
            scale: What one pixel of distance is in the table. Between two rows the
                vectors are interpolated linearly; beyond 254 the last row counts.

        Returns:
            Float32 `[*distances.shape, depth]`.
        """
        nearest, farthest = int(distances.min()), int(distances.max())
        place = np.arange(nearest, farthest + 1) * scale + _MAX_DISTANCE
        place = np.clip(place, 0, 2 * _MAX_DISTANCE)
        lower = np.floor(place).astype(np.int32)
        rest = (place - lower).astype(np.float32)[:, None]
        rows = tf.gather(self.embeddings, lower)
        if rest.any():
            upper = np.minimum(lower + 1, 2 * _MAX_DISTANCE)
            rows += rest * (tf.gather(self.embeddings, upper) - rows)
        # The rows first: the gradient of the second look-up, which has many repeats,
        # then is a small dense table.
        return tf.gather(rows, (distances - nearest).astype(np.int32))

    def get_config(self) -> dict[str, Any]:
        config = {"depth": self.depth, "initial_std": self.initial_std}
        return {**super().get_config(), **config}
