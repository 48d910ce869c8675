"""Draws panoptic results over images: colors, thin contours, names and a legend."""

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # results.py imports this file
    from deeplab2_edge.runtime.results import Segment

Color = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618034  # spreads shades evenly, however many there are
_WHITE = (255, 255, 255)
_CONTOUR_VALUE = 255  # of all three channels
_MIN_LABEL_SIDE = 96  # px: on smaller images text would hide the picture
# px: on smaller images the legend stands beside the picture, not in it.
_MIN_LEGEND_SIDE = 480
_MAX_LEGEND_SHARE = 0.5  # of the height of the image, where the legend is in it
_LEGEND_CHARACTERS = 20  # of the legend beside; its width must not change in a video
_PANEL = (32, 32, 32)


def draw_overlay(
    image: NDArray[np.uint8],
    segment_map: NDArray[np.uint16],
    segments: "Sequence[Segment]",
    colors: Sequence[Color],
    *,
    alpha: float,
    labels: bool,
) -> NDArray[np.uint8]:
    """Draws segments over an image. Void pixels show the image.

    Args:
        image: uint8 `[H, W, 3]` RGB.
        segment_map: `[H, W]`, `n + 1` on the pixels of `segments[n]`, 0 on void.
        segments: What to draw.
        colors: RGB color of each class.
        alpha: Weight of the colors, 0 to 1.
        labels: Write names on things and a legend of the classes: in the lower left
            corner, or beside a small image (a side below 480 pixels), which it would
            hide. Images with a side below 96 pixels get neither.

    Returns:
        uint8 `[H, W, 3]` RGB, a new array. With a legend beside it is wider than the
        image, always equally for images of one size.
    """
    shades = segment_colors(segments, colors)
    painted = _paint(segment_map, [(0, 0, 0), *shades])
    blended = cv2.addWeighted(image, 1.0 - alpha, painted, alpha, 0.0)
    is_void = segment_map == 0
    if is_void.any():
        cv2.copyTo(image, is_void.view(np.uint8), blended)
    _draw_contours(blended, segment_map, [segment.is_thing for segment in segments])
    if labels and min(image.shape[:2]) >= _MIN_LABEL_SIDE:
        scale = _font_scale(image.shape[0], image.shape[1])
        _draw_names(blended, segments, shades, scale)
        rows = _legend_rows(segments)
        if min(image.shape[:2]) < _MIN_LEGEND_SIDE:
            return _add_legend(blended, rows, colors, scale)
        _draw_legend(blended, rows, colors, scale)
    return np.asarray(blended, np.uint8)


def segment_colors(
    segments: "Sequence[Segment]", colors: Sequence[Color]
) -> list[Color]:
    """Gives every segment a color: stuff that of its class, things shades of it.

    The shade depends on the segment's id alone, so it stays the same from frame to
    frame where ids do.
    """
    return [
        _shade(colors[segment.class_id], segment.id)
        if segment.is_thing
        else colors[segment.class_id]
        for segment in segments
    ]


def put_text(
    image: NDArray[np.uint8],
    text: str,
    left: int,
    baseline: int,
    *,
    scale: float,
    color: Color,
) -> None:
    """Writes one line of text into an image, smooth, in place.

    Characters outside ASCII become `?`, the only ones OpenCV's fonts lack.
    """
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(
        image, plain, (left, baseline), _FONT, scale, color, _stroke(scale), cv2.LINE_AA
    )


def text_size(text: str, scale: float) -> tuple[int, int, int]:
    """Gives width, height above and depth below the baseline of a line of text."""
    (width, height), depth = cv2.getTextSize(text, _FONT, scale, _stroke(scale))
    return width, height, depth


def _shade(color: Color, number: int) -> Color:
    hue, lightness, saturation = colorsys.rgb_to_hls(*(v / 255 for v in color))
    spread = (number * _GOLDEN_RATIO) % 1.0 - 0.5
    swing = (number * _GOLDEN_RATIO * _GOLDEN_RATIO) % 1.0 - 0.5
    shade = colorsys.hls_to_rgb(
        (hue + 0.16 * spread) % 1.0,
        min(max(0.5 + 0.35 * (lightness - 0.5) + 0.3 * swing, 0.25), 0.75),
        max(saturation, 0.55),
    )
    red, green, blue = (round(255 * v) for v in shade)
    return red, green, blue


def _paint(
    segment_map: NDArray[np.uint16], colors: Sequence[Color]
) -> NDArray[np.uint8]:
    """Gives each pixel the color of its number."""
    # As one 32-bit value per pixel: four times as fast as three bytes.
    table = np.array([(*color, 0) for color in colors], np.uint8).view(np.uint32)[:, 0]
    pixels = np.take(table, segment_map).view(np.uint8)
    painted = cv2.cvtColor(pixels.reshape(*segment_map.shape, 4), cv2.COLOR_RGBA2RGB)
    return np.asarray(painted, np.uint8)


def _draw_contours(
    image: NDArray[np.uint8], segment_map: NDArray[np.uint16], is_thing: list[bool]
) -> None:
    """Draws a line of one pixel where a thing meets anything else."""
    thing_number = np.where([False, *is_thing], np.arange(len(is_thing) + 1), 0)
    things = np.take(thing_number.astype(np.uint16), segment_map)
    is_edge = np.zeros(things.shape, np.bool_)
    is_edge[:, :-1] = things[:, :-1] != things[:, 1:]
    is_edge[:-1] |= things[:-1] != things[1:]
    cv2.copyTo(np.full_like(image, _CONTOUR_VALUE), is_edge.view(np.uint8), image)


def _draw_names(
    image: NDArray[np.uint8],
    segments: "Sequence[Segment]",
    shades: Sequence[Color],
    scale: float,
) -> None:
    """Writes the names of things above their boxes, where there is room."""
    taken = np.zeros(image.shape[:2], np.bool_)
    order = sorted(
        (n for n, segment in enumerate(segments) if segment.is_thing),
        key=lambda n: -segments[n].area_px,
    )
    for place in order:
        segment = segments[place]
        text = segment.class_name
        if segment.score is not None:
            text += f" {segment.score:.2f}"
        width, height, depth = text_size(text, scale)
        left, top, right, _ = segment.box_xyxy
        if right - left < width // 2:
            continue  # a name wider than its thing hides its neighbors
        left = max(min(left, image.shape[1] - width - 4), 0)
        bottom = max(top, height + depth + 2)
        area = (
            slice(bottom - height - depth - 2, bottom),
            slice(left, left + width + 4),
        )
        if taken[area].any():
            continue
        taken[area] = True
        image[area] = shades[place]
        put_text(
            image,
            text,
            left + 2,
            bottom - depth,
            scale=scale,
            color=_readable_on(shades[place]),
        )


def _legend_rows(segments: "Sequence[Segment]") -> list[tuple[int, str]]:
    """Gives class id and text of the classes in the image, largest first."""
    areas: dict[int, int] = {}
    names: dict[int, str] = {}
    counts: dict[int, int] = {}
    for segment in segments:
        areas[segment.class_id] = areas.get(segment.class_id, 0) + segment.area_px
        counts[segment.class_id] = counts.get(segment.class_id, 0) + segment.is_thing
        names[segment.class_id] = segment.class_name
    return [
        (c, f"{names[c]} x{counts[c]}" if counts[c] > 1 else names[c])
        for c in sorted(areas, key=lambda class_id: -areas[class_id])
    ]


def _draw_legend(
    image: NDArray[np.uint8],
    rows: Sequence[tuple[int, str]],
    colors: Sequence[Color],
    scale: float,
) -> None:
    """Writes the legend into the lower left corner, in place."""
    height = _row_height(scale)
    rows = rows[: int(image.shape[0] * _MAX_LEGEND_SHARE) // height]
    if not rows:
        return
    width = max(text_size(text, scale)[0] for _, text in rows) + height + 6
    top = image.shape[0] - height * len(rows) - 4
    panel = image[top:, :width]
    panel[...] = panel // 3
    _write_rows(image, rows, colors, scale, left=0, top=top + 2)


def _add_legend(
    image: NDArray[np.uint8],
    rows: Sequence[tuple[int, str]],
    colors: Sequence[Color],
    scale: float,
) -> NDArray[np.uint8]:
    """Returns the image with the legend in a panel on its right."""
    height = _row_height(scale)
    extra = text_size("n" * _LEGEND_CHARACTERS, scale)[0] + height + 6
    canvas = cv2.copyMakeBorder(
        image, 0, 0, 0, extra, cv2.BORDER_CONSTANT, value=_PANEL
    )
    rows = rows[: (image.shape[0] - 4) // height]
    _write_rows(canvas, rows, colors, scale, left=image.shape[1], top=2)
    return np.asarray(canvas, np.uint8)


def _write_rows(
    image: NDArray[np.uint8],
    rows: Sequence[tuple[int, str]],
    colors: Sequence[Color],
    scale: float,
    *,
    left: int,
    top: int,
) -> None:
    height = _row_height(scale)
    depth = text_size("Ag", scale)[2]
    for place, (class_id, text) in enumerate(rows):
        y = top + place * height
        box = image[y + 2 : y + height - 2, left + 3 : left + height - 1]
        box[...] = colors[class_id]
        baseline = y + height - depth - 2
        put_text(image, text, left + height + 2, baseline, scale=scale, color=_WHITE)


def _row_height(scale: float) -> int:
    _, height, depth = text_size("Ag", scale)
    return height + depth + 4


def _font_scale(height: int, width: int) -> float:
    return float(np.clip(min(height, width) / 1000, 0.35, 1.5))


def _stroke(scale: float) -> int:
    return max(round(scale * 1.5), 1)


def _readable_on(color: Color) -> Color:
    # Luma of BT.601: black text on light colors, white text on dark ones.
    luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)
