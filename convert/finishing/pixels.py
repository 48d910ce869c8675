"""Pixels that are steps already: normalization that costs nothing.

A quantized network takes uint8 pixels, makes int8 of them, multiplies and subtracts,
and has in the end what it began with, less 128. Its first convolution can as well be
the input: whoever fills it subtracts while copying. QUANTIZE, which XNNPACK does not
take, and two ops over the largest tensor of all go away, and no value changes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.convert.quantization.edits import kind_of
from deeplab2_edge.convert.quantization.float_graph import PIXEL_INPUTS

_LEVELS = np.arange(256)


def take_steps(model: Any) -> Mapping[str, tuple[float, float]]:
    """Lets pictures come as the int8 steps that the first convolution works on.

    Args:
        model: An unpacked flatbuffer with one signature, changed in place.

    Returns:
        For each picture that comes as int8 the real values of grey levels 0 and 255. A
        picture keeps uint8 if what is done with it is more than to shift it by a number
        of levels.
    """
    network = model.subgraphs[0]
    ranges: dict[str, tuple[float, float]] = {}
    for entry in model.signatureDefs[0].inputs:
        name = entry.name.decode()
        if name in PIXEL_INPUTS:
            old = int(entry.tensorIndex)
            found = _Chain(model, old).as_steps()
            if found is not None:
                new, ops, ranges[name] = found
                network.tensors[new].name = network.tensors[old].name
                network.operators = [op for op in network.operators if op not in ops]
                network.inputs = [new if int(i) == old else i for i in network.inputs]
                entry.tensorIndex = new
    return ranges


class _Chain:
    """Is what happens to the levels of a picture, one by one."""

    def __init__(self, model: Any, index: int) -> None:
        self._model = model
        self._graph = model.subgraphs[0]
        self._index = index

    def as_steps(self) -> tuple[int, list[Any], tuple[float, float]] | None:
        """Gives the last tensor of the chain, its ops, and what 0 and 255 become."""
        ops: list[Any] = []
        steps: NDArray[np.int64] = _LEVELS
        index = self._index
        while (op := self._only_user(index)) is not None:
            following = self._after(op, index, steps)
            if following is None:
                break
            steps, index = following, int(op.outputs[0])
            ops.append(op)
        if not ops or not self._is_int8(index):
            return None
        # No integer means the middle between levels 127 and 128. The converter takes
        # one of its neighbors, perhaps one beyond which the last level is cut off: as
        # many steps further no level is, and all mean what they meant.
        shift = int(steps[128]) - 128
        if abs(shift + 128) > 1 or (steps != np.clip(_LEVELS + shift, -128, 127)).any():
            return None
        scale, zero_point = self._steps_of(index)
        zero_point -= shift + 128
        self._graph.tensors[index].quantization.zeroPoint = np.array([zero_point])
        low, high = ((step - zero_point) * scale for step in (-128, 127))
        return index, ops, (low, high)

    def _only_user(self, index: int) -> Any | None:
        users = [op for op in self._graph.operators if index in list(op.inputs)]
        is_output = index in list(self._graph.outputs)
        return users[0] if len(users) == 1 and not is_output else None

    def _after(
        self, op: Any, index: int, steps: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Computes what an op makes of each level; None if it does more than that."""
        kind = kind_of(self._model, op)
        if kind not in ("QUANTIZE", "MUL", "ADD") or not self._is_int8(
            int(op.outputs[0])
        ):
            return None
        scale, zero_point = self._steps_of(index)
        real = (steps - zero_point) * scale
        if kind != "QUANTIZE":
            others = [int(i) for i in op.inputs if int(i) != index]
            number = self._number(others[0]) if len(others) == 1 else None
            if number is None or op.builtinOptions.fusedActivationFunction:
                return None
            real = real * number if kind == "MUL" else real + number
        scale, zero_point = self._steps_of(int(op.outputs[0]))
        rounded: NDArray[np.int64] = np.floor(real / scale + 0.5).astype(np.int64)
        return np.clip(rounded + zero_point, -128, 127)

    def _number(self, index: int) -> float | None:
        data = self._model.buffers[self._graph.tensors[index].buffer].data
        if data is None or len(data) != 1 or not self._is_int8(index):
            return None
        scale, zero_point = self._steps_of(index)
        return (int(np.asarray(data, np.uint8).view(np.int8)[0]) - zero_point) * scale

    def _is_int8(self, index: int) -> bool:
        from tensorflow.lite.python import schema_py_generated as schema

        return bool(self._graph.tensors[index].type == schema.TensorType.INT8)

    def _steps_of(self, index: int) -> tuple[float, int]:
        quantization = self._graph.tensors[index].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])
