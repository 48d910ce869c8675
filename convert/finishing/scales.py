"""Factors that cost nothing: they go into scales instead of ops.

The int8 form of hard-swish is `(x * 1/6) * relu6(x + 3)`. The factor is an op over the
whole tensor, and yet says only what a step means. Without it the integers behind are
those of six times the value; a convolution that divides its weights' scale by six then
computes what it did, with the same integers and one rounding less.
"""

from typing import Any

import numpy as np

from deeplab2_edge.convert.quantization.edits import kind_of

# Ops whose integers stay as they are if all steps grow by one factor.
_CARRIERS = frozenset({"MEAN", "AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR"})
_CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


def fold_factors(model: Any) -> None:
    """Removes products with a constant number that later convolutions can make.

    Of `(x * constant) * y`, the first product goes away if all that follows, through
    pools and products, are convolutions of int8; the graph is left as it is elsewhere.

    Args:
        model: An unpacked flatbuffer, changed in place.
    """
    network = _Network(model)
    for op in list(network.ops):
        if network.kind(op) == "MUL":
            network.fold(op)


class _Network:
    """Is a graph that can say who uses what."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._graph = model.subgraphs[0]
        self._outputs = {int(i) for i in self._graph.outputs}
        self._users: dict[int, list[Any]] = {}
        for op in self.ops:
            for index in {int(i) for i in op.inputs if i >= 0}:
                self._users.setdefault(index, []).append(op)

    @property
    def ops(self) -> list[Any]:
        """In the order in which they run."""
        operators: list[Any] = self._graph.operators
        return operators

    def kind(self, op: Any) -> str:
        """Gives the name of an op."""
        return kind_of(self._model, op)

    def fold(self, op: Any) -> None:
        """Removes a product with a number if what follows can take it over."""
        found = self._number_of(op)
        if found is None:
            return
        values, factor = found
        scaled = int(op.outputs[0])
        users = self._users.get(scaled, [])
        if scaled in self._outputs or len(users) != 1:
            return
        (product,) = users
        if (
            self.kind(product) != "MUL"
            or product.builtinOptions.fusedActivationFunction
        ):
            return
        carriers: list[int] = []
        weights: list[int] = []
        if not self._follow(int(product.outputs[0]), carriers, weights):
            return
        if not all(self._is_alone(index) for index in weights):
            return
        product.inputs = [
            values if int(i) == scaled else int(i) for i in product.inputs
        ]
        users_of_values = self._users[values]
        users_of_values.remove(op)
        if product not in users_of_values:
            users_of_values.append(product)
        self.ops.remove(op)
        for index in carriers:
            self._rescale(index, 1 / factor)
        for index in weights:
            self._rescale(index, factor)

    def _number_of(self, op: Any) -> tuple[int, float] | None:
        """Gives tensor and number of a product of int8 with a number above 0."""
        if op.builtinOptions.fusedActivationFunction:
            return None
        first, second = (int(i) for i in op.inputs)
        for values, constant in ((first, second), (second, first)):
            data = self._constant(constant)
            if data is None or len(data) != 1 or self._constant(values) is not None:
                continue
            quantization = self._tensor(constant).quantization
            number = float(
                (int(data.view(np.int8)[0]) - int(quantization.zeroPoint[0]))
                * quantization.scale[0]
            )
            # A step may mean anything, but not nothing or the other direction.
            if number > 0 and self._is_int8(values):
                return values, number
        return None

    def _follow(self, index: int, carriers: list[int], weights: list[int]) -> bool:
        """Collects what must change where a tensor's step does; False if it cannot."""
        if index in self._outputs or not self._is_int8(index):
            return False
        if index in carriers:
            return True
        carriers.append(index)
        for op in self._users.get(index, []):
            kind = self.kind(op)
            if kind in _CONVOLUTIONS and int(op.inputs[0]) == index:
                if int(op.inputs[1]) not in weights:
                    weights.append(int(op.inputs[1]))
            elif kind in _CARRIERS and int(op.inputs[0]) == index:
                if not self._follow(int(op.outputs[0]), carriers, weights):
                    return False
            elif kind == "MUL" and list(op.inputs).count(index) == 1:
                if op.builtinOptions.fusedActivationFunction:
                    return False
                other = next(int(i) for i in op.inputs if int(i) != index)
                if other in carriers:  # its step would change twice
                    return False
                if not self._follow(int(op.outputs[0]), carriers, weights):
                    return False
            else:
                return False
        return True

    def _is_alone(self, weights: int) -> bool:
        """Whether only one op uses a constant of int8."""
        is_int8 = self._constant(weights) is not None and self._is_int8(weights)
        return is_int8 and len(self._users[weights]) == 1

    def _rescale(self, index: int, factor: float) -> None:
        quantization = self._tensor(index).quantization
        scale = np.asarray(quantization.scale, np.float64) * factor
        quantization.scale = scale.astype(np.float32)

    def _tensor(self, index: int) -> Any:
        return self._graph.tensors[index]

    def _constant(self, index: int) -> Any:
        data = self._model.buffers[self._tensor(index).buffer].data
        return None if data is None or not len(data) else np.asarray(data, np.uint8)

    def _is_int8(self, index: int) -> bool:
        from tensorflow.lite.python import schema_py_generated as schema

        tensor = self._tensor(index)
        return bool(tensor.type == schema.TensorType.INT8) and (
            tensor.quantization is not None and tensor.quantization.scale is not None
        )
