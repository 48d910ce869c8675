"""Resizing with aligned corners, with the bits of `deeplab2_edge.panoptic`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from deeplab2_edge.optional import require
from deeplab2_edge.panoptic.resize import source_positions

tf: Any = require("tensorflow", extra="train")

# Resized values held at once: 4 MB stay in a cache while several ops handle them.
_VALUES_PER_BAND = 1 << 20
# Each band is a dozen ops of the graph, so very large maps have larger bands instead.
_MAX_BANDS = 48


def resize_bilinear(x: Any, size: tuple[int, int]) -> Any:
    """Resizes an array bilinearly with aligned corners.

    Args:
        x: `[h, w, C]`, static sizes; computed in float32.
        size: (H, W) of the result.

    Returns:
        `[H, W, C]` float32.
    """
    source = tf.cast(x, tf.float32)
    if source.shape[0] != size[0]:
        source = _lerp(source, *source_positions(source.shape[0], size[0]), axis=0)
    return _widen(source, size[1])


def map_bands(
    function: Callable[[Any], tuple[Any, ...]], x: Any, size: tuple[int, int]
) -> tuple[Any, ...]:
    """Computes a function of `resize_bilinear(x, size)`, a band of rows at a time.

    For maps of many channels, which at full size would not fit into memory. A band
    begins when the one before is done, whatever the order in which a runtime likes to
    run ops.

    Args:
        function: From `[rows, W, C]` to maps `[rows, W, ...]`, of which the first
            holds integers of at least 0.
        x: `[h, w, C]`, static sizes; computed in float32.
        size: (H, W).

    Returns:
        The maps, `[H, W, ...]`.
    """
    source = tf.cast(x, tf.float32)
    top, bottom, weight = source_positions(source.shape[0], size[0])
    num_rows = max(
        _VALUES_PER_BAND // (size[1] * source.shape[2]), -(-size[0] // _MAX_BANDS)
    )
    bands: list[tuple[Any, ...]] = []
    for start in range(0, size[0], num_rows):
        rows = slice(start, min(start + num_rows, size[0]))
        waiting = source
        if bands:
            last = tf.cast(bands[-1][0][-1, -1], tf.float32)
            waiting = source + tf.minimum(last, 0.0)
        band = _lerp(waiting, top[rows], bottom[rows], weight[rows], axis=0)
        bands.append(function(_widen(band, size[1])))
    if len(bands) == 1:
        return bands[0]
    return tuple(tf.concat(parts, axis=0) for parts in zip(*bands, strict=True))


def upsample_argmax(logits: Any, size: tuple[int, int]) -> Any:
    """Finds the best class per pixel of the resized logits, band by band.

    Args:
        logits: `[h, w, C]`, static sizes.
        size: (H, W) of the result.

    Returns:
        `[H, W]` int32 class ids; the lowest wins a tie.
    """
    (classes,) = map_bands(
        lambda band: (tf.argmax(band, axis=-1, output_type=tf.int32),), logits, size
    )
    return classes


def _widen(x: Any, width: int) -> Any:
    """Resizes `[H, w, C]` to `[H, width, C]`."""
    height, source, channels = x.shape
    if source == width:
        return x
    growth, rest = divmod(width - 1, max(source - 1, 1))
    if rest or source == 1 or growth & (growth - 1):
        return _lerp(x, *source_positions(source, width), axis=1)
    # Weights repeat from cell to cell and are exact, so nothing has to be gathered.
    left = tf.reshape(x[:, :-1], [height, source - 1, 1, channels])
    right = tf.reshape(x[:, 1:], [height, source - 1, 1, channels])
    weight = (np.arange(growth, dtype=np.float32) / np.float32(growth))[:, np.newaxis]
    cells = left + (right - left) * weight
    return tf.concat(
        [tf.reshape(cells, [height, width - 1, channels]), x[:, -1:]], axis=1
    )


def _lerp(x: Any, lower: Any, upper: Any, weight: Any, *, axis: int) -> Any:
    a, b = (tf.gather(x, i.astype(np.int32), axis=axis) for i in (lower, upper))
    return a + (b - a) * weight.reshape([(-1, 1, 1), (1, -1, 1)][axis])
