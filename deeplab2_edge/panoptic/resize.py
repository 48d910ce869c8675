"""Resizing with aligned corners, as the published models do it everywhere.

Output index `i` of `n_out` reads source position `i * (n_in - 1) / (n_out - 1)`,
computed in float32; an axis of one output pixel reads position 0. The order of the
float32 operations (along y, then along x) is part of the definition: the other
implementations of the project repeat it to get the same bits.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError

# Mixed cells interpolated at once: 4096 cells of 19 classes stay in a small cache.
_CELLS_PER_CHUNK = 4096
_VALUES_PER_BAND = 4_000_000


def resize_bilinear(
    x: NDArray[np.generic], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Resizes an array bilinearly with aligned corners.

    Args:
        x: `[h, w]` or `[h, w, C]`, any numeric type; computed in float32.
        size: (H, W) of the result.

    Returns:
        `[H, W]` or `[H, W, C]` float32. An unchanged size returns a copy.

    Raises:
        UsageError: If `x` has another rank or a size is below 1.
    """
    _check(x, size, ranks=(2, 3))
    source = x.astype(np.float32)
    left, right, x_weight = source_positions(x.shape[1], size[1])
    top, bottom, y_weight = source_positions(x.shape[0], size[0])
    trailing = (1,) * (x.ndim - 2)
    if x.shape[0] != size[0]:
        source = _lerp(source[top], source[bottom], y_weight.reshape(-1, 1, *trailing))
    if x.shape[1] != size[1]:
        source = _lerp(
            np.take(source, left, axis=1),
            np.take(source, right, axis=1),
            x_weight.reshape(1, -1, *trailing),
        )
    return source


def resize_bilinear_in_bands(
    x: NDArray[np.generic], size: tuple[int, int]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yields `resize_bilinear(x, size)` a band of rows at a time.

    For maps of many channels, which at full size would not fit into memory. A band
    holds about 16 MB, at least one row.

    Args:
        x: `[h, w, C]`, any numeric type; computed in float32.
        size: (H, W) of the result.

    Yields:
        The rows of the band, and `[rows, W, C]` float32.

    Raises:
        UsageError: If `x` has another rank or a size is below 1.
    """
    _check(x, size, ranks=(3,))
    top, bottom, y_weight = source_positions(x.shape[0], size[0])
    num_rows = max(_VALUES_PER_BAND // (size[1] * x.shape[2]), 1)
    for start in range(0, size[0], num_rows):
        rows = slice(start, min(start + num_rows, size[0]))
        # Along y, then along x: the same float32 steps as resize_bilinear.
        above, below = (x[r[rows]].astype(np.float32) for r in (top, bottom))
        band = _lerp(above, below, y_weight[rows].reshape(-1, 1, 1))
        yield rows, resize_bilinear(band, (band.shape[0], size[1]))


def resize_nearest(
    x: NDArray[np.generic], size: tuple[int, int]
) -> NDArray[np.generic]:
    """Resizes an array to the nearest source pixels, corners aligned.

    Args:
        x: `[h, w]` or `[h, w, C]`, any type.
        size: (H, W) of the result.

    Returns:
        `[H, W]` or `[H, W, C]` of the type of `x`. Halfway positions take the
        larger index.

    Raises:
        UsageError: If `x` has another rank or a size is below 1.
    """
    _check(x, size, ranks=(2, 3))
    rows = _nearest_positions(x.shape[0], size[0])
    columns = _nearest_positions(x.shape[1], size[1])
    return np.take(x[rows], columns, axis=1)


def upsample_argmax(
    logits: NDArray[np.float32] | NDArray[np.int8], size: tuple[int, int]
) -> NDArray[np.int32]:
    """Finds the best class per pixel of the resized logits without resizing them.

    The result is `argmax(resize_bilinear(logits, size))`. Between four source
    pixels the difference of two interpolated classes is itself bilinear, so a class
    that wins at all four wins everywhere between them. Only cells with different
    winners at their corners are interpolated; memory is that of the result.

    Args:
        logits: `[h, w, C]` float32, or the int8 values of a quantized head (one
            scale for all classes leaves the argmax as it is).
        size: (H, W) of the result.

    Returns:
        `[H, W]` class ids; the lowest wins a tie. Two classes that differ by no
        more than float32 rounding count as a tie of either order.

    Raises:
        UsageError: If `logits` is not of rank 3 or a size is below 1.
    """
    _check(logits, size, ranks=(3,))
    winners = np.argmax(logits, axis=-1).astype(np.int32)
    top, _, y_weight = source_positions(logits.shape[0], size[0])
    left, _, x_weight = source_positions(logits.shape[1], size[1])
    result = np.take(winners[top], left, axis=1)

    # Cells are named by their top left pixel; edges are repeated.
    padded = np.pad(winners, ((0, 1), (0, 1)), mode="edge")
    is_mixed = (
        (winners != padded[1:, :-1])
        | (winners != padded[:-1, 1:])
        | (winners != padded[1:, 1:])
    )
    rows, columns = _Runs(top, logits.shape[0]), _Runs(left, logits.shape[1])
    is_mixed &= rows.is_seen[:, None] & columns.is_seen
    cells = np.stack(np.nonzero(is_mixed))
    for start in range(0, cells.shape[1], _CELLS_PER_CHUNK):
        cell_y, cell_x = cells[:, start : start + _CELLS_PER_CHUNK]
        top_left, top_right, bottom_left, bottom_right = _corners(
            logits, cell_y, cell_x
        )
        for row in rows.walk(cell_y):
            on_left = _lerp(top_left, bottom_left, y_weight[row])
            on_right = _lerp(top_right, bottom_right, y_weight[row])
            for column in columns.walk(cell_x):
                values = _lerp(on_left, on_right, x_weight[column])
                result[row, column] = _argmax_of_rows(values)
    return result


def source_positions(
    n_in: int, n_out: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Says between which source pixels each output pixel lies.

    Args:
        n_in: Source pixels along the axis.
        n_out: Output pixels along the axis.

    Returns:
        `[n_out]` lower index, `[n_out]` upper index, and `[n_out]` weight of the
        upper one in [0, 1).
    """
    positions = _positions(n_in, n_out)
    lower = np.minimum(positions.astype(np.intp), n_in - 1)
    upper = np.minimum(lower + 1, n_in - 1)
    return lower, upper, positions - lower.astype(np.float32)


class _Runs:
    """Knows which output positions lie in each source cell along one axis."""

    def __init__(self, lower: NDArray[np.intp], n_in: int) -> None:
        # `lower` ascends, so the positions of one cell are a run of it.
        self._first = np.searchsorted(lower, np.arange(n_in))
        self._last = np.searchsorted(lower, np.arange(n_in), side="right") - 1
        self.is_seen: NDArray[np.bool_] = self._first <= self._last

    def walk(self, cells: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """Yields one position in each cell at a time; short runs repeat their last."""
        first, last = self._first[cells], self._last[cells]
        for step in range(int((last - first).max(initial=-1)) + 1):
            yield np.minimum(first + step, last)


def _corners(
    logits: NDArray[np.float32] | NDArray[np.int8],
    cell_y: NDArray[np.intp],
    cell_x: NDArray[np.intp],
) -> list[NDArray[np.float32]]:
    """Gives the logits `[C, K]` at the four corners of `K` cells, in reading order."""
    height, width, num_classes = logits.shape
    pixels = logits.reshape(-1, num_classes)
    below = np.minimum(cell_y + 1, height - 1)
    beside = np.minimum(cell_x + 1, width - 1)
    return [
        np.ascontiguousarray(np.take(pixels, y * width + x, axis=0).T, np.float32)
        for y in (cell_y, below)
        for x in (cell_x, beside)
    ]


def _argmax_of_rows(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Computes `argmax(values, axis=0)`, several times as fast as NumPy for few rows.

    Where values are not numbers the result is some row.
    """
    num_rows = len(values)
    is_best = values == values.max(axis=0)
    # The first best row has the highest rank; small integers make use of SIMD.
    rank = np.arange(num_rows, 0, -1).astype(np.min_scalar_type(num_rows))
    best: NDArray[np.integer] = (is_best.view(np.uint8) * rank[:, None]).max(axis=0)
    return np.minimum(num_rows - best.astype(np.int64), num_rows - 1)


def _lerp(
    a: NDArray[np.float32], b: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    result: NDArray[np.float32] = b - a
    result *= weight
    result += a
    return result


def _positions(n_in: int, n_out: int) -> NDArray[np.float32]:
    scale = np.float32(n_in - 1) / np.float32(max(n_out - 1, 1))
    return np.arange(n_out, dtype=np.float32) * scale


def _nearest_positions(n_in: int, n_out: int) -> NDArray[np.intp]:
    # Positions are not negative, so the conversion rounds down.
    rounded = (_positions(n_in, n_out) + np.float32(0.5)).astype(np.intp)
    return np.minimum(rounded, n_in - 1)


def _check(
    x: NDArray[np.generic], size: tuple[int, int], *, ranks: tuple[int, ...]
) -> None:
    if x.ndim not in ranks or 0 in x.shape:
        expected = " or ".join(("[h, w]", "[h, w, C]")[rank - 2] for rank in ranks)
        raise UsageError(f"array to resize has shape {x.shape}; expected {expected}")
    if len(size) != 2 or min(size) < 1:
        raise UsageError(f"size is {size}; expected (height, width) of at least 1")
