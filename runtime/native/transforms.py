"""Images on their way to the canvas in C++, called on NumPy arrays."""

import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime.native.library import load_core

if TYPE_CHECKING:
    from deeplab2_edge.runtime.preprocess import Placement

_TYPES: Mapping[str, int] = {"uint8": 0, "int8": 1, "int16": 2, "float32": 3}


class _PlacedImage(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("row_bytes", ctypes.c_int64),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("resized_height", ctypes.c_int32),
        ("resized_width", ctypes.c_int32),
        ("canvas_height", ctypes.c_int32),
        ("canvas_width", ctypes.c_int32),
        ("padding", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("table", ctypes.c_void_p),
    )


def place_image(
    image: NDArray[np.uint8],
    placement: "Placement",
    canvas: tuple[int, int],
    out: NDArray[Any],
    table: NDArray[Any] | None,
    *,
    padding: int = 128,
) -> None:
    """Writes an image, resized, padded and by a table, into a network's input.

    Equals `preprocess.place_on_canvas` and a look into the table, bit for bit, in one
    pass: besides the result two rows are stored.

    Args:
        image: uint8 `[h, w, 3]`, RGB. Rows may lie apart; another order in memory is
            copied first.
        placement: Where it lies, of `image` and `canvas`.
        canvas: (H, W).
        out: `[H, W, 3]` of uint8, int8, int16 or float32, in C order.
        table: `[256]` of the type of `out`; None leaves the values, for uint8.
        padding: Value of the pixels outside, before the table.

    Raises:
        UsageError: If shapes or types do not fit, or as `load_core`.
        MissingExtraError: As `load_core`.
        MemoryError: If there is not enough.
    """
    dtype = out.dtype.name
    if dtype not in _TYPES:
        raise UsageError(f"out is {dtype}; expected one of {', '.join(_TYPES)}")
    if out.shape != (*canvas, 3) or not out.flags.carray:
        raise UsageError(
            f"out has shape {list(out.shape)}, strides {list(out.strides)}; expected "
            f"{[*canvas, 3]}, writeable and in C order"
        )
    is_image = image.dtype == np.uint8 and image.shape == (*placement.image_size, 3)
    if not is_image:
        raise UsageError(
            f"image is {image.dtype} {list(image.shape)}; expected uint8 "
            f"{[*placement.image_size, 3]}"
        )
    if table is None:
        if dtype != "uint8":
            raise UsageError(f"a table is needed for {dtype}")
    elif table.shape != (256,) or table.dtype != out.dtype:
        raise UsageError(
            f"table is {table.dtype} {list(table.shape)}; expected {dtype} [256]"
        )
    else:
        table = np.ascontiguousarray(table)
    if image.strides[1:] != (3, 1):
        image = np.ascontiguousarray(image)
    code = load_core().dle_place_image(
        ctypes.byref(
            _PlacedImage(
                pixels=image.ctypes.data,
                row_bytes=image.strides[0],
                height=image.shape[0],
                width=image.shape[1],
                resized_height=placement.resized_size[0],
                resized_width=placement.resized_size[1],
                canvas_height=canvas[0],
                canvas_width=canvas[1],
                padding=padding,
                type=_TYPES[dtype],
                table=None if table is None else table.ctypes.data,
            )
        ),
        ctypes.c_void_p(out.ctypes.data),
    )
    if code == 2:
        raise MemoryError("native placing of an image: out of memory")
    if code:
        raise UsageError(
            f"native placing of an image: {placement} does not fit a canvas of {canvas}"
        )
