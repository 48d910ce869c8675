"""What a finished flatbuffer can do without, with the same values.

The converter writes what the network says. Here goes what says nothing: products that a
scale can say, steps that only rename pixels, kernels' taps that never see the image.
"""

from collections.abc import Mapping

from deeplab2_edge.convert.finishing.pixels import take_steps
from deeplab2_edge.convert.finishing.scales import fold_factors
from deeplab2_edge.convert.finishing.taps import drop_blind_taps
from deeplab2_edge.convert.quantization.edits import pack, unpack


def finish(graph: bytes) -> tuple[bytes, Mapping[str, tuple[float, float]]]:
    """Removes from a flatbuffer what no result depends on.

    Returns:
        The flatbuffer, and the ranges of `pixels.take_steps`.
    """
    model = unpack(graph)
    drop_blind_taps(model)
    fold_factors(model)
    ranges = take_steps(model)
    return pack(model), ranges
