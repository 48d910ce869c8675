"""Taps of convolutions that never see the image.

On a small canvas an atrous convolution may reach beyond the feature map from every one
of its pixels: at 257x513 and stride 16 there are 17 rows, and a rate of 18 leaves of a
3x3 kernel one row that ever meets anything but padding. The others multiply zeros.
"""

from typing import Any

import numpy as np

from deeplab2_edge.convert.quantization.edits import kind_of

_SAME = 0  # of schema.Padding


def drop_blind_taps(model: Any) -> None:
    """Cuts off rows and columns of kernels that only ever meet padding.

    Values stay as they are: exactly for integers, to rounding for float32.

    Args:
        model: An unpacked flatbuffer of any quantization, changed in place.
    """
    network = model.subgraphs[0]
    users: dict[int, int] = {}
    for op in network.operators:
        for index in op.inputs:
            users[int(index)] = users.get(int(index), 0) + 1
    for op in network.operators:
        if kind_of(model, op) == "CONV_2D" and users[int(op.inputs[1])] == 1:
            _cut(model, network, op)


def _cut(model: Any, network: Any, op: Any) -> None:
    options = op.builtinOptions
    if options.padding != _SAME or (options.strideH, options.strideW) != (1, 1):
        return
    features = network.tensors[int(op.inputs[0])]
    kernel = network.tensors[int(op.inputs[1])]
    data = model.buffers[kernel.buffer].data
    if data is None or not len(data):  # not a constant: float16 that is unpacked
        return
    outputs, height, width, inputs = (int(side) for side in kernel.shape)
    rows = _seeing(height, options.dilationHFactor, int(features.shape[1]))
    columns = _seeing(width, options.dilationWFactor, int(features.shape[2]))
    size = len(range(height)[rows]), len(range(width)[columns])
    if size == (height, width):
        return
    # Whatever the type, an element is so many bytes.
    values = np.asarray(data, np.uint8).reshape(outputs, height, width, inputs, -1)
    model.buffers[kernel.buffer].data = values[:, rows, columns].reshape(-1).copy()
    kernel.shape = np.array([outputs, *size, inputs], np.int32)
    if size == (1, 1):  # no longer atrous
        options.dilationHFactor = options.dilationWFactor = 1


def _seeing(taps: int, dilation: int, length: int) -> slice:
    """Gives the taps that reach a pixel of an axis from at least one other."""
    if taps % 2 == 0:  # does not lie around its middle
        return slice(taps)
    reach = min(taps // 2, (length - 1) // max(dilation, 1))
    return slice(taps // 2 - reach, taps // 2 + reach + 1)
