"""What shapes the ops of TFLite give for what they take.

An interpreter computes shapes anew and trusts the constants behind them. Here what a
file declares must be what its ops give, so that its declared sizes can be believed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from deeplab2_edge.tflite_file.decode import Options

Shape: TypeAlias = tuple[int, ...]


class Misfit(Exception):
    """Says why an op cannot take what it is given."""


@dataclass(frozen=True)
class Operands:
    """Is what an op takes.

    Attributes:
        shapes: Of the inputs; None for those left out.
        integers: Values of inputs that are constant integers, else None.
        options: Of the op.
    """

    shapes: tuple[Shape | None, ...]
    integers: tuple[Shape | None, ...]
    options: Options | None

    def shape(self, index: int) -> Shape:
        """Returns the shape of an input.

        Raises:
            Misfit: If there is none.
        """
        found = self.shapes[index] if index < len(self.shapes) else None
        if found is None:
            raise Misfit(f"input {index} is missing")
        return found

    def option(self, field: int, kind: str = "i", default: int = 0) -> int:
        """Reads an option."""
        return (
            default
            if self.options is None
            else self.options.number(field, kind, default)
        )


# Gives the shape of each output; None for one that only a run shows.
Rule: TypeAlias = Callable[[Operands], "list[Shape | None]"]


def same(op: Operands) -> list[Shape | None]:
    """Keeps the shape of the first input."""
    return [op.shape(0)]


def all_same(op: Operands) -> list[Shape | None]:
    """Wants all inputs of one shape."""
    if len(set(op.shapes)) > 1:
        raise Misfit(f"takes {_list(op.shapes)}")
    return same(op)


def broadcast(op: Operands) -> list[Shape | None]:
    """Stretches sides of 1."""
    shapes = [op.shape(i) for i in range(len(op.shapes))]
    rank = max(map(len, shapes))
    sides = []
    for column in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        wide = {side for side in column if side != 1}
        if len(wide) > 1:
            raise Misfit(f"takes {_list(shapes)}")
        sides.append(wide.pop() if wide else 1)
    return [tuple(sides)]


def select(op: Operands) -> list[Shape | None]:
    """Chooses between two inputs of one shape."""
    condition, yes, no = (op.shape(i) for i in range(3))
    if yes != no or condition not in ((), yes, yes[:1]):
        raise Misfit(f"takes {_list(op.shapes)}")
    return [yes]


def convolution(op: Operands) -> list[Shape | None]:
    """Covers CONV_2D."""
    (batch, height, width, channels), (filters, *window, depth) = _conv_shapes(op)
    if depth < 1 or channels % depth or filters % (channels // depth):
        raise Misfit(f"takes {channels} channels with a filter of depth {depth}")
    _check_bias(op, filters)
    sides = _slide(op, (height, width), window, first_dilation=4)
    return [(batch, *sides, filters)]


def depthwise_convolution(op: Operands) -> list[Shape | None]:
    """Covers DEPTHWISE_CONV_2D."""
    (batch, height, width, channels), (one, *window, filters) = _conv_shapes(op)
    multiplier = op.option(3)
    # Converters write 0 or any factor; kernels take the one of the shapes.
    if one != 1 or filters % channels or multiplier < 0:
        raise Misfit(f"takes {channels} channels with {filters} filters")
    if multiplier and multiplier * channels != filters:
        raise Misfit(f"multiplies {channels} channels by {multiplier} to {filters}")
    _check_bias(op, filters)
    sides = _slide(op, (height, width), window, first_dilation=5)
    return [(batch, *sides, filters)]


def pool(op: Operands) -> list[Shape | None]:
    """Covers AVERAGE_POOL_2D and MAX_POOL_2D."""
    batch, height, width, channels = _of_rank(op, 0, 4)
    window = op.option(4), op.option(3)
    if min(window) < 1:
        raise Misfit(f"pools windows of {list(window)}")
    return [(batch, *_slide(op, (height, width), window), channels)]


def fully_connected(op: Operands) -> list[Shape | None]:
    """Covers FULLY_CONNECTED without packed weights."""
    shape = op.shape(0)
    units, depth = _of_rank(op, 1, 2)
    if op.option(1, "b"):
        raise Misfit("has packed weights")
    if math.prod(shape) % depth:
        raise Misfit(f"takes {list(shape)} with weights for {depth}")
    _check_bias(op, units)
    if op.option(2, "?"):
        if shape[-1:] != (depth,):
            raise Misfit(f"takes {list(shape)} with weights for {depth}")
        return [(*shape[:-1], units)]
    return [(math.prod(shape) // depth, units)]


def matmul(op: Operands) -> list[Shape | None]:
    """Covers BATCH_MATMUL."""
    left, right = op.shape(0), op.shape(1)
    if min(len(left), len(right)) < 2:
        raise Misfit(f"takes {_list(op.shapes)}")
    *_, rows, inner = _turned(left, bool(op.option(0, "?")))
    *_, other, columns = _turned(right, bool(op.option(1, "?")))
    if inner != other:
        raise Misfit(f"takes {_list(op.shapes)}")
    (batch,) = broadcast(Operands((left[:-2], right[:-2]), (), None))
    return [(*(batch or ()), rows, columns)]


def concatenation(op: Operands) -> list[Shape | None]:
    """Joins along an axis."""
    first = op.shape(0)
    axis = _axis(op.option(0), len(first))
    total = 0
    for index in range(len(op.shapes)):
        shape = op.shape(index)
        if len(shape) != len(first) or _without(shape, axis) != _without(first, axis):
            raise Misfit(f"takes {_list(op.shapes)}")
        total += shape[axis]
    return [(*first[:axis], total, *first[axis + 1 :])]


def pack(op: Operands) -> list[Shape | None]:
    """Stacks inputs of one shape."""
    (shape,) = all_same(op)
    assert shape is not None
    count = len(op.shapes)
    if op.option(0) != count:
        raise Misfit(f"packs {op.option(0)} of {count} inputs")
    axis = _axis(op.option(1), len(shape) + 1)
    return [(*shape[:axis], count, *shape[axis:])]


def reduce(op: Operands) -> list[Shape | None]:
    """Covers MEAN, SUM and their like."""
    shape, axes = op.shape(0), op.integers[1]
    if axes is None:
        return [None]
    gone = {_axis(axis, len(shape)) for axis in axes}
    keeps = op.option(0, "?")
    sides = [
        1 if index in gone else side
        for index, side in enumerate(shape)
        if keeps or index not in gone
    ]
    return [tuple(sides)]


def arg_max(op: Operands) -> list[Shape | None]:
    """Loses the axis that it searches."""
    shape, axes = op.shape(0), op.integers[1]
    if axes is None or len(axes) != 1:
        raise Misfit("needs a constant axis")
    return [_without(shape, _axis(axes[0], len(shape)))]


def top_k(op: Operands) -> list[Shape | None]:
    """Keeps the largest of the last axis."""
    shape, counts = op.shape(0) or (1,), op.integers[1]
    if counts is None or len(counts) != 1 or not 1 <= counts[0] <= shape[-1]:
        raise Misfit(f"needs a constant count within {list(shape)}")
    return [(*shape[:-1], counts[0])] * 2


def gather(op: Operands) -> list[Shape | None]:
    """Picks along an axis."""
    shape, picked = op.shape(0), op.shape(1)
    axis, batch = _axis(op.option(0), len(shape)), op.option(1)
    if not 0 <= batch <= min(axis, len(picked)) or shape[:batch] != picked[:batch]:
        raise Misfit(f"takes {_list(op.shapes)} with {batch} axes in common")
    if any(not 0 <= i < shape[axis] for i in op.integers[1] or ()):
        raise Misfit(f"picks outside of {shape[axis]}")
    return [(*shape[:axis], *picked[batch:], *shape[axis + 1 :])]


def reshape(op: Operands) -> list[Shape | None]:
    """Keeps the number of values; one side may be -1."""
    shape = op.shape(0)
    if len(op.shapes) < 2:
        return [None]
    wanted = op.integers[1]
    if wanted is None:
        return [None]
    if wanted.count(-1) > 1 or any(side < -1 for side in wanted):
        raise Misfit(f"takes {list(shape)} to {list(wanted)}")
    if -1 in wanted:
        known = math.prod(side for side in wanted if side != -1)
        rest = math.prod(shape) // known if known else 0
        wanted = tuple(rest if side == -1 else side for side in wanted)
    if math.prod(wanted) != math.prod(shape):
        raise Misfit(f"takes {list(shape)} to {list(wanted)}")
    return [wanted]


def resize(op: Operands) -> list[Shape | None]:
    """Covers RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR."""
    batch, _, _, channels = _of_rank(op, 0, 4)
    size = op.integers[1]
    if size is None or len(size) != 2 or min(size) < 1:
        raise Misfit("needs a constant size of two sides")
    return [(batch, *size, channels)]


def transpose(op: Operands) -> list[Shape | None]:
    """Changes the order of the axes."""
    shape, order = op.shape(0), op.integers[1]
    if order is None or sorted(order) != list(range(len(shape))):
        raise Misfit(f"needs a constant order of {len(shape)} axes")
    return [tuple(shape[axis] for axis in order)]


def pad(op: Operands) -> list[Shape | None]:
    """Adds to both ends of each axis."""
    shape, edges = op.shape(0), op.integers[1]
    if edges is None or len(edges) != 2 * len(shape) or min(edges, default=0) < 0:
        raise Misfit(f"needs two constants for each of {len(shape)} axes")
    return [
        tuple(
            before + side + after
            for side, before, after in zip(shape, edges[::2], edges[1::2], strict=True)
        )
    ]


def fill(op: Operands) -> list[Shape | None]:
    """Makes a tensor of a given shape."""
    return [op.integers[0]]


def cut(op: Operands) -> list[Shape | None]:
    """Covers SLICE."""
    shape, starts, sizes = op.shape(0), op.integers[1], op.integers[2]
    if starts is None or sizes is None:
        return [None]
    if not len(starts) == len(sizes) == len(shape):
        raise Misfit(f"cuts {list(shape)} at {list(starts)}, {list(sizes)}")
    sides = []
    for side, start, size in zip(shape, starts, sizes, strict=True):
        length = side - start if size == -1 else size
        if start < 0 or length < 0 or start + length > side:
            raise Misfit(f"cuts {list(shape)} at {list(starts)}, {list(sizes)}")
        sides.append(length)
    return [tuple(sides)]


def strided_cut(op: Operands) -> list[Shape | None]:
    """Covers STRIDED_SLICE without new axes."""
    shape = op.shape(0)
    starts, ends, steps = op.integers[1:4]
    begin, end, ellipsis, new, shrink = (op.option(i) for i in range(5))
    if ellipsis or new:
        raise Misfit("adds axes or leaves some out")
    if starts is None or ends is None or steps is None:
        return [None]
    count = len(starts)
    if not count == len(ends) == len(steps) <= len(shape) or 0 in steps:
        raise Misfit(f"cuts {list(shape)} at {list(starts)}, {list(ends)}")
    sides: list[int] = []
    for axis, side in enumerate(shape):
        bit = 1 << axis
        if axis >= count:
            sides.append(side)
        elif shrink & bit:
            if not -side <= starts[axis] < side or steps[axis] != 1:
                raise Misfit(f"takes {starts[axis]} of {side}")
        else:
            first = None if begin & bit else starts[axis]
            last = None if end & bit else ends[axis]
            sides.append(len(range(side)[first : last : steps[axis]]))
    return [tuple(sides)]


def split(op: Operands) -> list[Shape | None]:
    """Covers SPLIT_V."""
    shape, sizes, axes = op.shape(0), op.integers[1], op.integers[2]
    if sizes is None or axes is None or len(axes) != 1:
        raise Misfit("needs constant sizes and a constant axis")
    axis = _axis(axes[0], len(shape))
    if min(sizes, default=0) < 1 or sum(sizes) != shape[axis]:
        raise Misfit(f"splits {shape[axis]} into {list(sizes)}")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def split_evenly(op: Operands) -> list[Shape | None]:
    """Covers SPLIT, whose axis comes first."""
    axes, shape, count = op.integers[0], op.shape(1), op.option(0)
    if axes is None or len(axes) != 1:
        raise Misfit("needs a constant axis")
    axis = _axis(axes[0], len(shape))
    if count < 1 or shape[axis] % count:
        raise Misfit(f"splits {shape[axis]} into {count}")
    return [(*shape[:axis], shape[axis] // count, *shape[axis + 1 :])] * count


def segments(op: Operands) -> list[Shape | None]:
    """Covers UNSORTED_SEGMENT_SUM and its like."""
    shape, ids, counts = op.shape(0), op.shape(1), op.integers[2]
    if shape[: len(ids)] != ids:
        raise Misfit(f"takes {_list(op.shapes)}")
    if counts is None or len(counts) != 1 or counts[0] < 1:
        raise Misfit("needs a constant number of segments")
    return [(counts[0], *shape[len(ids) :])]


def unknown(_: Operands) -> list[Shape | None]:
    """Says nothing."""
    return []


def _conv_shapes(op: Operands) -> tuple[Shape, Shape]:
    return _of_rank(op, 0, 4), _of_rank(op, 1, 4)


def _slide(
    op: Operands,
    sides: Sequence[int],
    window: Sequence[int],
    first_dilation: int | None = None,
) -> list[int]:
    """Returns height and width after a window has moved over an image."""
    padding, strides = op.option(0, "b"), (op.option(2), op.option(1))
    dilations = 1, 1
    if first_dilation is not None:
        dilations = (
            op.option(first_dilation + 1, default=1),
            op.option(first_dilation, default=1),
        )
    if padding not in (0, 1) or min(*strides, *dilations) < 1:
        raise Misfit(
            f"has padding {padding}, strides {list(strides)} and dilations "
            f"{list(dilations)}"
        )
    found = []
    for side, size, stride, dilation in zip(
        sides, window, strides, dilations, strict=True
    ):
        reach = (size - 1) * dilation if padding else 0
        if side <= reach:
            raise Misfit(f"moves a window of {reach + 1} over {side} pixels")
        found.append(-((reach - side) // stride))
    return found


def _check_bias(op: Operands, filters: int) -> None:
    bias = op.shapes[2] if len(op.shapes) > 2 else None
    if bias is not None and math.prod(bias) != filters:
        raise Misfit(f"has a bias of {list(bias)} for {filters}")


def _of_rank(op: Operands, index: int, rank: int) -> Shape:
    shape = op.shape(index)
    if len(shape) != rank:
        raise Misfit(f"takes {list(shape)} where {rank} sides are needed")
    return shape


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Misfit(f"has axis {axis} of {rank}")
    return axis % rank


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _turned(shape: Shape, is_turned: bool) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if is_turned else shape


def _list(shapes: Sequence[Shape | None]) -> str:
    return " and ".join(str(list(shape or ())) for shape in shapes)
