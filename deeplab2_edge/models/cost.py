"""What a network costs: parameters, multiply-adds and memory.

Nothing is measured here. The inference graph is traced, and its operations are read:
every layer is counted as it is really computed, also those that are made of several
products (switchable convolution, attention) or called twice (the encoder of
ViP-DeepLab), and what no head reads is not counted.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.models.build import build_model
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
# A variable without a value has no public name (TF 2.21).
_variables: Any = require("tensorflow.python.ops.resource_variable_ops", extra="train")

# Their result is their input, seen otherwise.
_VIEWS = {"ExpandDims", "Identity", "Reshape", "Squeeze", "StopGradient"}
# They write over an input that nobody needs any more.
_IN_PLACE = {
    *("Add", "AddN", "AddV2", "BiasAdd", "Div", "Maximum", "Minimum", "Mul"),
    *("RealDiv", "Sub", "FusedBatchNormV3", "HardSwish", "Relu", "Relu6", "Rsqrt"),
    *("Sigmoid", "Softmax", "Softplus", "Square", "Tanh"),
}
# They live as long as the network.
_PERMANENT = {"Const", "Placeholder", "ReadVariableOp"}


@dataclass(frozen=True)
class ModelCost:
    """Holds the cost of one forward pass of one image.

    Attributes:
        parameters: Numbers in a checkpoint, statistics of batch norms included.
        trainable_parameters: Those that training changes by gradients.
        multiply_adds: Of all convolutions and matrix products; everything else is
            small beside them.
        activation_bytes: Most bytes of tensors alive at once, the image and the heads
            included, if operations run one after the other in the order of the graph,
            and elementwise ones write over inputs that end there. The workspace of
            convolutions comes on top.
    """

    parameters: int
    trainable_parameters: int
    multiply_adds: int
    activation_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Is the memory of float32 parameters and activations."""
        return 4 * self.parameters + self.activation_bytes


def network_cost(config: ExperimentOptions, *, input_size: Sequence[int]) -> ModelCost:
    """Counts the cost of an experiment's network without giving it weights.

    Half a billion parameters take half a minute, and no memory to speak of.

    Args:
        config: The experiment.
        input_size: (height, width) of the image in pixels.

    Raises:
        ConfigError: As `build_model`.
    """
    with tf.variable_creator_scope(_variable_without_value):
        model = build_model(config, input_size=input_size, batch_size=1)
    return model_cost(model)


def model_cost(model: Any) -> ModelCost:
    """Counts the cost of a model of static input size and batch 1."""
    graph = inference_graph(model)
    return ModelCost(
        parameters=_count(model.weights),
        trainable_parameters=_count(model.trainable_weights),
        multiply_adds=sum(map(_multiply_adds, graph.get_operations())),
        activation_bytes=activation_bytes(graph),
    )


def inference_graph(model: Any) -> Any:
    """Traces a model and returns the graph of its inference."""
    signature = tf.TensorSpec(model.input.shape, model.input.dtype)
    inference = tf.function(lambda image: model(image, training=False))
    return inference.get_concrete_function(signature).graph


def _variable_without_value(next_creator: Any, **options: Any) -> Any:
    names = ("name", "shape", "dtype", "trainable", "synchronization", "aggregation")
    return _variables.UninitializedVariable(**{name: options[name] for name in names})


def _count(variables: Sequence[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _multiply_adds(operation: Any) -> int:
    """Counts an operation: products per number of its result, times those numbers."""
    kind = operation.type
    if kind in ("Conv2D", "DepthwiseConv2dNative"):
        height, width, channels, _ = operation.inputs[1].shape
        products = height * width * (channels if kind == "Conv2D" else 1)
    elif kind in ("BatchMatMulV2", "MatMul"):
        flag = "adj_x" if kind == "BatchMatMulV2" else "transpose_a"
        products = operation.inputs[0].shape[-2 if operation.get_attr(flag) else -1]
    else:
        return 0
    result = operation.outputs[0]
    # Keras lays the pixels of a dilated depthwise convolution side by side and pads
    # them. What it cuts off afterwards is not part of the convolution.
    for consumer in result.consumers():
        if consumer.type == "BatchToSpaceND":
            result = consumer.outputs[0]
    return int(products) * int(result.shape.num_elements())


@dataclass
class _Buffer:
    """Is memory that operations `first` to `last` need."""

    size: int
    first: int
    last: int


def activation_bytes(graph: Any) -> int:
    """Gives the most bytes of tensors alive at once, see `ModelCost`.

    Args:
        graph: Of a traced function, also of one that computes gradients. Functions
            that it calls, as in branches and loops, are not looked into.
    """
    operations = graph.get_operations()
    last_reader = {
        tensor.name: step
        for step, operation in enumerate(operations)
        for tensor in operation.inputs
    }
    last_reader |= {tensor.name: len(operations) for tensor in graph.outputs}
    image = graph.inputs[0].name
    buffers: list[_Buffer] = []
    buffer_of: dict[str, _Buffer] = {}
    for step, operation in enumerate(operations):
        inputs = [buffer_of.get(tensor.name) for tensor in operation.inputs]
        for tensor in operation.outputs:
            if operation.type in _PERMANENT and tensor.name != image:
                continue
            size = _bytes(tensor)
            buffer = _reused(operation.type, inputs, step, size)
            if buffer is None:
                buffer = _Buffer(size, first=step, last=step)
                buffers.append(buffer)
            buffer.last = max(buffer.last, last_reader.get(tensor.name, step))
            buffer_of[tensor.name] = buffer
    changes = [0] * (len(operations) + 2)
    for buffer in buffers:
        changes[buffer.first] += buffer.size
        changes[buffer.last + 1] -= buffer.size
    return max(itertools.accumulate(changes))


def _reused(
    kind: str, inputs: Sequence[_Buffer | None], step: int, size: int
) -> _Buffer | None:
    """Returns the input that holds the result of an operation, too, if one does."""
    if kind in _VIEWS:
        return inputs[0]
    if kind in _IN_PLACE:
        for buffer in inputs:
            if buffer and buffer.last == step and buffer.size == size:
                return buffer
    return None


def _bytes(tensor: Any) -> int:
    # What training alone needs of a batch normalization has no size here.
    numbers = tensor.shape.num_elements() or 0
    return int(numbers) * int(tensor.dtype.size)
