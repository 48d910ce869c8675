"""Draws results: segments over images, instances, depth, and pictures side by side."""

import colorsys
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.native.drawing import blend_segments

if TYPE_CHECKING:
    from deeplab2_edge.runtime.segments import Segment

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

# Meters; the range of the usual benchmarks of streets. A fixed one, so that colors
# mean the same in all frames and pictures.
DEPTH_RANGE = (2.0, 80.0)
# Perceptually uniform: equal steps look equal. Near is light, far is dark.
_DEPTH_COLORS = cv2.COLORMAP_VIRIDIS
_UNKNOWN_DEPTH = (96, 96, 96)
_TICKS = (1.0, 2.0, 5.0)  # times powers of ten
_STUFF_LIGHT = 0.45  # how light the image is around instances
_INSTANCE_ALPHA = 0.8
_CLASS_TURN = 0.19  # of the circle of hues, from class to class
_PANEL_GAP = 4  # px


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
    is_thing = [segment.is_thing for segment in segments]
    blend = blend_segments if native.is_available() else _blend_segments
    blended = blend(
        image, segment_map, shades, is_thing, alpha=alpha, contour=_CONTOUR_VALUE
    )
    if labels and min(image.shape[:2]) >= _MIN_LABEL_SIDE:
        scale = _font_scale(image.shape[0], image.shape[1])
        names = [_scored_name(segment) for segment in segments]
        _draw_names(blended, segments, names, shades, scale)
        rows = _legend_rows(segments)
        if min(image.shape[:2]) < _MIN_LEGEND_SIDE:
            return _add_legend(blended, rows, colors, scale)
        _draw_legend(blended, rows, colors, scale)
    return np.asarray(blended, np.uint8)


def paint_segments(
    segment_map: NDArray[np.uint16],
    segments: "Sequence[Segment]",
    colors: Sequence[Color],
) -> NDArray[np.uint8]:
    """Gives each pixel the color of its segment, as overlays do; void is black."""
    return _paint(segment_map, [(0, 0, 0), *segment_colors(segments, colors)])


def draw_instances(
    image: NDArray[np.uint8],
    segment_map: NDArray[np.uint16],
    segments: "Sequence[Segment]",
    *,
    label_divisor: int,
    labels: bool,
) -> NDArray[np.uint8]:
    """Draws things in colors that depend on their ids alone, all else dark and grey.

    Args:
        image: uint8 `[H, W, 3]` RGB.
        segment_map: As in `draw_overlay`.
        segments: What to draw; stuff is not.
        label_divisor: Of the segments' ids.
        labels: Write class and number on things, where there is room.

    Returns:
        uint8 `[H, W, 3]` RGB, a new array.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    background = cv2.cvtColor(
        cv2.convertScaleAbs(grey, alpha=_STUFF_LIGHT), cv2.COLOR_GRAY2RGB
    )
    shades = [
        instance_color(segment.id, label_divisor) if segment.is_thing else (0, 0, 0)
        for segment in segments
    ]
    painted = _paint(segment_map, [(0, 0, 0), *shades])
    blended = cv2.addWeighted(
        image, 1.0 - _INSTANCE_ALPHA, painted, _INSTANCE_ALPHA, 0.0
    )
    is_thing = [segment.is_thing for segment in segments]
    is_stuff = ~np.take(np.array([False, *is_thing]), segment_map)
    cv2.copyTo(background, is_stuff.view(np.uint8), blended)
    _draw_contours(blended, segment_map, is_thing)
    if labels and min(image.shape[:2]) >= _MIN_LABEL_SIDE:
        names = [f"{s.class_name} {s.id % label_divisor}" for s in segments]
        scale = _font_scale(image.shape[0], image.shape[1])
        _draw_names(blended, segments, names, shades, scale)
    return np.asarray(blended, np.uint8)


def instance_color(panoptic_id: int, label_divisor: int) -> Color:
    """Gives an instance the color that its id always has.

    Numbers that follow each other differ most; so do equal numbers of two classes.
    """
    class_id, number = divmod(panoptic_id, label_divisor)
    hue = (number * _GOLDEN_RATIO + class_id * _CLASS_TURN) % 1.0
    lightness = 0.45 + 0.25 * (number * _GOLDEN_RATIO * _GOLDEN_RATIO % 1.0)
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def color_depth(
    depth: NDArray[np.float32], *, limits: tuple[float, float] = DEPTH_RANGE
) -> NDArray[np.uint8]:
    """Gives each pixel the color of its depth, on a logarithmic scale.

    Args:
        depth: `[H, W]` meters; 0 and what is not finite is unknown, and grey.
        limits: Nearest and farthest; what lies outside has the color of the end.

    Returns:
        uint8 `[H, W, 3]` RGB.

    Raises:
        UsageError: If the limits are not 0 < near < far.
    """
    near, far = limits
    if not 0 < near < far < math.inf:
        raise UsageError(
            f"the range of depth is {near:g} to {far:g} meters; expected 0 < near < far"
        )
    is_known = np.isfinite(depth) & (depth > 0)
    share = np.log(np.where(is_known, depth, far) / near) / math.log(far / near)
    level = np.rint(255 * (1 - np.clip(share, 0, 1))).astype(np.uint8)
    painted = np.asarray(cv2.applyColorMap(level, _DEPTH_COLORS)[..., ::-1], np.uint8)
    painted = np.ascontiguousarray(painted)
    painted[~is_known] = _UNKNOWN_DEPTH
    return painted


def draw_depth(
    depth: NDArray[np.float32],
    *,
    limits: tuple[float, float] = DEPTH_RANGE,
    labels: bool = True,
) -> NDArray[np.uint8]:
    """Colors a depth map, with a scale in meters on its right.

    Args:
        depth: See `color_depth`.
        limits: See `color_depth`.
        labels: Add the scale, unless a side is below 96 pixels.

    Returns:
        uint8 `[H, W, 3]` RGB; with a scale wider than the map, always equally for maps
        of one size.

    Raises:
        UsageError: As `color_depth`.
    """
    painted = color_depth(depth, limits=limits)
    height, width = depth.shape
    if not labels or min(height, width) < _MIN_LABEL_SIDE:
        return painted
    scale = _font_scale(height, width)
    _, text_height, text_depth = text_size("0", scale)
    bar, gap, margin = text_height, text_height // 2, text_height
    extra = gap + bar + gap + text_size("0.005 m", scale)[0] + gap
    picture = np.empty((height, width + extra, 3), np.uint8)
    picture[:] = _PANEL
    picture[:, :width] = painted
    near, far = limits
    rows = np.linspace(0, 1, height - 2 * margin, dtype=np.float32)
    column = np.exp(math.log(far) + rows * math.log(near / far))[:, np.newaxis]
    left = width + gap
    picture[margin : height - margin, left : left + bar] = color_depth(
        np.repeat(column, bar, axis=1).astype(np.float32), limits=limits
    )
    last = math.inf
    for meters in _tick_values(near, far):
        share = math.log(far / meters) / math.log(far / near)
        y = margin + round(share * (height - 2 * margin - 1))
        picture[y, left : left + bar] = _WHITE
        baseline = min(y + text_height // 2, height - text_depth)
        if last - baseline < text_height + text_depth:
            continue  # would lie on the last one
        last = baseline
        text = f"{meters:g} m"
        put_text(picture, text, left + bar + gap, baseline, scale=scale, color=_WHITE)
    return picture


def draw_panel(
    pictures: Sequence[tuple[str, NDArray[np.uint8]]], *, columns: int = 2
) -> NDArray[np.uint8]:
    """Lays pictures side by side under their titles.

    Args:
        pictures: Title and uint8 `[H, W, 3]` RGB of each, at least one.
        columns: Pictures in a row.

    Returns:
        uint8 `[H, W, 3]` RGB; all cells have the size of the largest picture.
    """
    height = max(picture.shape[0] for _, picture in pictures)
    width = max(picture.shape[1] for _, picture in pictures)
    scale = _font_scale(height, width)
    strip = _row_height(scale)
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    cell_height, cell_width = height + strip + _PANEL_GAP, width + _PANEL_GAP
    panel = np.empty(
        (rows * cell_height + _PANEL_GAP, columns * cell_width + _PANEL_GAP, 3),
        np.uint8,
    )
    panel[:] = _PANEL
    for place, (title, picture) in enumerate(pictures):
        top = _PANEL_GAP + place // columns * cell_height
        left = _PANEL_GAP + place % columns * cell_width
        baseline = top + strip - text_size("Ag", scale)[2] - 2
        put_text(panel, title, left + 2, baseline, scale=scale, color=_WHITE)
        top += strip
        panel[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return panel


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


def _blend_segments(
    image: NDArray[np.uint8],
    segment_map: NDArray[np.uint16],
    shades: Sequence[Color],
    is_thing: Sequence[bool],
    *,
    alpha: float,
    contour: int,
) -> NDArray[np.uint8]:
    """Does what `native.drawing.blend_segments` does."""
    painted = _paint(segment_map, [(0, 0, 0), *shades])
    blended = cv2.addWeighted(image, 1.0 - alpha, painted, alpha, 0.0)
    is_void = segment_map == 0
    if is_void.any():
        cv2.copyTo(image, is_void.view(np.uint8), blended)
    _draw_contours(blended, segment_map, is_thing, contour)
    return np.asarray(blended, np.uint8)


def _draw_contours(
    image: NDArray[np.uint8],
    segment_map: NDArray[np.uint16],
    is_thing: Sequence[bool],
    contour: int = _CONTOUR_VALUE,
) -> None:
    """Draws a line of one pixel where a thing meets anything else."""
    thing_number = np.where([False, *is_thing], np.arange(len(is_thing) + 1), 0)
    things = np.take(thing_number.astype(np.uint16), segment_map)
    is_edge = np.zeros(things.shape, np.bool_)
    is_edge[:, :-1] = things[:, :-1] != things[:, 1:]
    is_edge[:-1] |= things[:-1] != things[1:]
    cv2.copyTo(np.full_like(image, contour), is_edge.view(np.uint8), image)


def _draw_names(
    image: NDArray[np.uint8],
    segments: "Sequence[Segment]",
    names: Sequence[str],
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
        segment, text = segments[place], names[place]
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


def _scored_name(segment: "Segment") -> str:
    if segment.score is None:
        return segment.class_name
    return f"{segment.class_name} {segment.score:.2f}"


def _tick_values(near: float, far: float) -> list[float]:
    """Gives the ends of a range, and between them 1, 2 and 5 times powers of ten."""
    powers = range(math.floor(math.log10(near)), math.ceil(math.log10(far)))
    ticks = [step * 10.0**power for power in powers for step in _TICKS]
    return [near, *(tick for tick in ticks if near < tick < far), far]


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
