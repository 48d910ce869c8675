"""Resizing with aligned corners, as the published models do it everywhere.

Output index `i` of `n_out` reads source position `i * (n_in - 1) / (n_out - 1)`,
computed in float32; an axis of one output pixel reads position 0. The order of the
float32 operations (along y, then along x) is part of the definition: the other
implementations of the project repeat it to get the same bits.
"""

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError

# Mixed cells interpolated at once: 4096 cells of 19 classes stay in a small cache.
_CELLS_PER_CHUNK = 4096


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
    height, width = logits.shape[:2]
    winners = np.argmax(logits, axis=-1).astype(np.int32)
    top, _, y_weight = source_positions(height, size[0])
    left, _, x_weight = source_positions(width, size[1])
    result = np.take(winners[top], left, axis=1)

    # Cells are named by their top left pixel; edges are repeated.
    padded = np.pad(winners, ((0, 1), (0, 1)), mode="edge")
    is_mixed = (
        (winners != padded[1:, :-1])
        | (winners != padded[:-1, 1:])
        | (winners != padded[1:, 1:])
    )
    cell_y, cell_x = np.nonzero(is_mixed)
    for start in range(0, cell_y.size, _CELLS_PER_CHUNK):
        chunk = slice(start, start + _CELLS_PER_CHUNK)
        _fill_cells(
            result, logits, cell_y[chunk], cell_x[chunk], top, left, y_weight, x_weight
        )
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


def _fill_cells(
    result: NDArray[np.int32],
    logits: NDArray[np.float32] | NDArray[np.int8],
    cell_y: NDArray[np.intp],
    cell_x: NDArray[np.intp],
    top: NDArray[np.intp],
    left: NDArray[np.intp],
    y_weight: NDArray[np.float32],
    x_weight: NDArray[np.float32],
) -> None:
    """Writes the interpolated argmax of all output pixels inside some cells.

    `top` and `left` are sorted, so the output rows of cell `y` are the run of `y`
    in `top`; the runs are walked together, one (row, column) step for all cells.
    """
    below = np.minimum(cell_y + 1, logits.shape[0] - 1)
    beside = np.minimum(cell_x + 1, logits.shape[1] - 1)
    corners = [
        logits[y, x].astype(np.float32)
        for y, x in (
            (cell_y, cell_x),
            (cell_y, beside),
            (below, cell_x),
            (below, beside),
        )
    ]
    first_row = np.searchsorted(top, cell_y)
    end_row = np.searchsorted(top, cell_y, side="right")
    first_column = np.searchsorted(left, cell_x)
    end_column = np.searchsorted(left, cell_x, side="right")
    for row_step in range(int((end_row - first_row).max(initial=0))):
        has_row = first_row + row_step < end_row
        rows = (first_row + row_step)[has_row]
        top_left, top_right, bottom_left, bottom_right = (
            corner if has_row.all() else corner[has_row] for corner in corners
        )
        weight = y_weight[rows][:, None]
        on_left = _lerp(top_left, bottom_left, weight)
        on_right = _lerp(top_right, bottom_right, weight)
        start, end = first_column[has_row], end_column[has_row]
        for column_step in range(int((end - start).max(initial=0))):
            has_column = start + column_step < end
            columns = (start + column_step)[has_column]
            weight = x_weight[columns][:, None]
            if has_column.all():
                values = _lerp(on_left, on_right, weight)
            else:
                values = _lerp(on_left[has_column], on_right[has_column], weight)
            result[rows[has_column], columns] = np.argmax(values, axis=-1)


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
