"""Brings images of any size to the canvas of a model, and its maps back.

Resizing keeps the aspect ratio, never enlarges unless the model's resize rule says
so, and uses aligned corners; the rest of the canvas is padded at the bottom and right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError
from deeplab2_edge.images import MAX_PIXELS
from deeplab2_edge.model_file import ResizeRule
from deeplab2_edge.panoptic.resize import source_positions
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.timing import StageTimer

# 127.5 in training, which becomes 0 inside the network; the nearest uint8.
PADDING_VALUE = 128


@dataclass(frozen=True)
class Placement:
    """Says where an image lies on a canvas.

    Attributes:
        image_size: (height, width) of the original.
        resized_size: (height, width) on the canvas, from its top left corner.
    """

    image_size: tuple[int, int]
    resized_size: tuple[int, int]


class PlacedImage:
    """Is an image on its way to the canvas: it gets there when it is written.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        canvas: (height, width).
        rule: The model's resize rule.
        timer: Of the stage `preprocess`.

    Attributes:
        placement: Where it will lie.
        shape: Of the canvas with channels.
        dtype: uint8, of the pixels before any table.

    Raises:
        DataError: As `place_on_canvas`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        image: NDArray[np.uint8],
        canvas: tuple[int, int],
        rule: ResizeRule,
        timer: StageTimer | None = None,
    ) -> None:
        self.placement = _placement(image, canvas, rule)
        self.shape = (*canvas, 3)
        self._canvas = canvas
        self._image = image
        self._timer = timer or StageTimer()

    def pixels(self) -> NDArray[np.uint8]:
        """Gives the canvas, see `place_on_canvas`."""
        with self._timer.stage("preprocess"):
            return _fill_canvas(self._image, self.placement, self._canvas)

    def write(self, out: NDArray[Any], table: NDArray[Any] | None) -> None:
        """Writes the canvas, or what the table says of its pixels, into an array.

        Args:
            out: `[canvas height, canvas width, 3]`.
            table: What each of the 256 values becomes; None leaves them.
        """
        with self._timer.stage("preprocess"):
            if native.is_available() and out.flags.carray:
                native.place_image(
                    self._image,
                    self.placement,
                    self._canvas,
                    out,
                    table,
                    padding=PADDING_VALUE,
                )
            else:
                write_pixels(self.pixels(), out, table)


def write_pixels(
    pixels: NDArray[np.uint8], out: NDArray[Any], table: NDArray[Any] | None
) -> None:
    """Writes pixels, or what the table says of them, into an array of their shape."""
    if table is None:
        np.copyto(out, pixels)
    else:
        np.take(table, pixels, out=out, mode="clip")


def resized_size(
    image_size: tuple[int, int], canvas: tuple[int, int], rule: ResizeRule
) -> tuple[int, int]:
    """Computes the size an image gets on the canvas.

    Ratios are rounded to float32, multiplied by the float32 side and floored, as in
    training: another rounding gives another size for some images.

    Args:
        image_size: (height, width), both positive.
        canvas: (height, width); the limit if `rule.max` is None.
        rule: The model's resize rule.

    Raises:
        DataError: If the result does not fit the canvas.

    Example:
        >>> resized_size((480, 640), (641, 641), ResizeRule(min=(641, 641)))
        (481, 641)
    """
    height, width = image_size
    if rule.min is not None:
        height, width = _scale(
            height, width, max(rule.min[0] / height, rule.min[1] / width)
        )
    limit = rule.max or canvas
    if rule.factor:
        limit = (
            limit[0] - (limit[0] - 1) % rule.factor,
            limit[1] - (limit[1] - 1) % rule.factor,
        )
    height, width = _scale(height, width, min(limit[0] / height, limit[1] / width, 1.0))
    if rule.factor:
        height += -(height - 1) % rule.factor
        width += -(width - 1) % rule.factor
    if height > canvas[0] or width > canvas[1]:
        raise DataError(
            f"an image of {image_size[0]}x{image_size[1]} becomes {height}x{width}, "
            f"larger than the canvas of {canvas[0]}x{canvas[1]}; the resize rule of "
            "the model does not fit its canvas"
        )
    return height, width


def place_on_canvas(
    image: NDArray[np.uint8], canvas: tuple[int, int], rule: ResizeRule
) -> tuple[NDArray[np.uint8], Placement]:
    """Resizes an image by the rule and pads it to the canvas.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        canvas: (height, width) of the result.
        rule: The model's resize rule.

    Returns:
        uint8 `[canvas height, canvas width, 3]`, and where the image lies on it.
        An image that has the size of the canvas is returned itself, not copied.

    Raises:
        DataError: If the image is not uint8 RGB, is empty or has more than
            `MAX_PIXELS`.
    """
    placement = _placement(image, canvas, rule)
    return _fill_canvas(image, placement, canvas), placement


def _placement(
    image: NDArray[np.uint8], canvas: tuple[int, int], rule: ResizeRule
) -> Placement:
    check_image(image)
    image_size = image.shape[0], image.shape[1]
    return Placement(image_size, resized_size(image_size, canvas, rule))


def _fill_canvas(
    image: NDArray[np.uint8], placement: Placement, canvas: tuple[int, int]
) -> NDArray[np.uint8]:
    height, width = placement.resized_size
    if placement.resized_size != placement.image_size:
        image = resize_image(image, placement.resized_size)
    if placement.resized_size == canvas:
        return image
    padded = np.full((*canvas, 3), PADDING_VALUE, np.uint8)
    padded[:height, :width] = image
    return padded


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resizes bilinearly with aligned corners, rounding half up.

    Reads only the four neighbors of each output pixel, so shrinking a large photo
    costs what its result costs. Equals `panoptic.resize_bilinear`, rounded.

    Args:
        image: uint8 `[H, W, 3]`.
        size: (height, width) of the result.

    References:
        OpenCV has no aligned corners in `resize`, and `remap` and `warpAffine`
        round their weights to 1/32: up to 4 grey levels off.
    """
    top, bottom, y_weight = source_positions(image.shape[0], size[0])
    left, right, x_weight = source_positions(image.shape[1], size[1])
    x_weight = x_weight[:, None]
    upper = _lerp_columns(image[top], left, right, x_weight)
    lower = _lerp_columns(image[bottom], left, right, x_weight)
    lower -= upper
    lower *= y_weight[:, None, None]
    upper += lower
    upper += 0.5
    return upper.astype(np.uint8)


def check_image(image: NDArray[np.uint8]) -> None:
    """Checks that an array is an image this package takes.

    Raises:
        DataError: If it is not uint8 `[H, W, 3]` of at least one pixel and at most
            `MAX_PIXELS`.
    """
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"image is a {type(image).__name__}; give a path or a uint8 [H, W, 3] array"
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        hint = ""
        if image.ndim == 2:
            hint = "; for grey images use np.repeat(grey[..., None], 3, axis=2)"
        elif image.ndim == 3 and image.shape[2] == 4:
            hint = "; drop alpha with image[..., :3]"
        raise DataError(
            f"image has shape {list(image.shape)}; it must be [H, W, 3] (RGB){hint}"
        )
    if image.dtype != np.uint8:
        raise DataError(
            f"image is {image.dtype}; it must be uint8 with values 0 to 255"
        )
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise DataError(
            f"image has {image.shape[0]}x{image.shape[1]} pixels; at most "
            f"{MAX_PIXELS} are taken, shrink it first"
        )


def _scale(height: int, width: int, ratio: float) -> tuple[int, int]:
    # An extreme aspect ratio would floor to nothing: keep one pixel.
    return max(_floor_product(height, ratio), 1), max(_floor_product(width, ratio), 1)


def _floor_product(side: int, ratio: float) -> int:
    return int(np.floor(np.float32(side) * np.float32(ratio)))


def _lerp_columns(
    rows: NDArray[np.uint8],
    left: NDArray[np.intp],
    right: NDArray[np.intp],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    start = np.take(rows, left, axis=1).astype(np.float32)
    difference = np.take(rows, right, axis=1).astype(np.float32)
    difference -= start
    difference *= weight
    start += difference
    return start
