"""Less memory for more time: activations that are computed again for the gradient.

References:
    Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
"""

from collections.abc import Callable, Sequence
from typing import Any

from deeplab2_edge.layers.replay import current_draws, draws_of, first_pass, second_pass
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


def recomputed(build: Callable[..., Any], inputs: Sequence[Any], name: str) -> Any:
    """Adds a part of a network that keeps nothing but its inputs during training.

    The values, gradients and moving statistics are those of the part itself.

    Args:
        build: Extends the graph, from inputs to outputs.
        inputs: Keras tensors.
        name: Of the layer; layers inside keep the names `build` gives them.

    Returns:
        What `build` returns.
    """
    placeholders = [
        tf_keras.Input(x.shape[1:], batch_size=x.shape[0], dtype=x.dtype)
        for x in inputs
    ]
    network = tf_keras.Model(placeholders, build(*placeholders), name=f"{name}/network")
    return Recompute(network, name=name)(list(inputs))


class Recompute(tf_keras.layers.Layer):  # type: ignore[misc]
    """Runs a network and, for its gradient, runs it again."""

    def __init__(self, network: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return self.network(inputs, training=False)
        passes = iter((first_pass, second_pass))
        numbers = current_draws()  # the second pass is run from elsewhere

        def run(*arguments: Any) -> Any:
            with next(passes)(), draws_of(numbers):
                return self.network(list(arguments), training=True)

        return tf.recompute_grad(run)(*inputs)
