"""Pictures of a model card: what float and converted model see, and each class."""

import html
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.convert.card.pages import Picture
from deeplab2_edge.convert.images import public_name
from deeplab2_edge.datasets.folders import SampleLike
from deeplab2_edge.images import encode_jpeg
from deeplab2_edge.runtime.draw import draw_panel
from deeplab2_edge.runtime.engine import Engine
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.segmenter import PanopticSegmenter

_MAX_IMAGES = 3
_CELL_PX = 420  # three side by side fill a page; a picture stays below 100 KB
_QUALITY = 82
_EMPTY = 32  # as dark as what is between pictures

_ROW_PX = 22
_LABEL_PX = 210
_BAR_PX = 560
_MAX_CLASSES = 60
_MAX_LABEL = 30
# Readable for color-blind people (Okabe and Ito).
_COLORS = ("#0072b2", "#e69f00")


def draw_comparison(
    source: Engine, converted: Engine, samples: Sequence[SampleLike], label: str
) -> list[Picture]:
    """Runs both models on a few images and draws what they see side by side.

    Args:
        source: The float model.
        converted: The converted one.
        samples: Images; the first three are taken.
        label: What to call the converted model.
    """
    samples = samples[:_MAX_IMAGES]
    clips = (
        PanopticSegmenter(engine).segment_video(s.load_image() for s in samples)
        for engine in (source, converted)
    )
    pictures = []
    for sample, expected, found in zip(samples, *clips, strict=True):
        panel = _compare(expected, found, label)
        content = encode_jpeg(panel, quality=_QUALITY)
        pictures.append(Picture(public_name(sample.name), content))
    return pictures


def draw_classes(
    title: str, names: Sequence[str], bars: Sequence[tuple[str, Sequence[float]]]
) -> Picture:
    """Draws a figure of each class as bars.

    Args:
        title: What is shown.
        names: Of the classes; of more than 60 the first.
        bars: Label, and a fraction 0 to 1 for each class, of one or two models.
    """
    names = names[:_MAX_CLASSES]
    width = _LABEL_PX + _BAR_PX + 60
    height = _ROW_PX * (len(names) + 2) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="16" font-weight="bold">{html.escape(title)}</text>',
    ]
    for place, ((label, _), color) in enumerate(zip(bars, _COLORS, strict=False)):
        x = _LABEL_PX + 180 * place
        parts += [
            f'<rect x="{x}" y="26" width="12" height="12" fill="{color}"/>',
            f'<text x="{x + 18}" y="36">{html.escape(label)}</text>',
        ]
    thickness = (_ROW_PX - 6) / max(len(bars), 1)
    for row, name in enumerate(names):
        top = _ROW_PX * (row + 2)
        short = name if len(name) <= _MAX_LABEL else name[:_MAX_LABEL] + "..."
        parts.append(
            f'<text x="{_LABEL_PX - 8}" y="{top + 13}" text-anchor="end">'
            f"{html.escape(short)}</text>"
        )
        for place, ((_, values), color) in enumerate(zip(bars, _COLORS, strict=False)):
            y = top + thickness * place
            length = _BAR_PX * min(max(values[row], 0.0), 1.0)
            parts.append(
                f'<rect x="{_LABEL_PX}" y="{y:.1f}" width="{length:.1f}" '
                f'height="{thickness:.1f}" fill="{color}"/>'
            )
        last = bars[-1][1][row]
        end = _LABEL_PX + _BAR_PX * max(values[row] for _, values in bars) + 5
        parts.append(f'<text x="{end:.1f}" y="{top + 13}">{100 * last:.1f}</text>')
    return Picture(title, "\n".join([*parts, "</svg>"]).encode(), is_svg=True)


def _compare(
    expected: PanopticResult, found: PanopticResult, label: str
) -> NDArray[np.uint8]:
    cells = [
        ("input", expected.image),
        ("float", expected.overlay(labels=False)),
        (label, found.overlay(labels=False)),
    ]
    if expected.depth is not None and found.depth is not None:
        cells += [
            ("", np.full_like(expected.image, _EMPTY)),
            ("depth, float", expected.depth_map(labels=False)),
            (f"depth, {label}", found.depth_map(labels=False)),
        ]
    shrunk = [(title, _shrink(picture)) for title, picture in cells]
    return draw_panel(shrunk, columns=3)


def _shrink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = _CELL_PX / max(picture.shape[:2])
    if factor >= 1:
        return picture
    height, width = (max(round(side * factor), 1) for side in picture.shape[:2])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)
