"""Attention among all pixels of a map."""

from typing import Any

from deeplab2_edge.layers.attention import AttentionOptions
from deeplab2_edge.layers.axial_attention import AxisAttention
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

_POSITIONAL = (
    "use_query_rpe_similarity",
    "use_key_rpe_similarity",
    "retrieve_value_rpe",
)


def global_attention(
    x: Any,
    path: str,
    filters: int,
    *,
    options: AttentionOptions,
    defaults: LayerDefaults,
    stride: int = 1,
) -> Any:
    """Adds attention in which every pixel looks at every other, once or twice.

    It knows no positions: absolute encodings, which no published configuration uses,
    are left out. Memory grows with the square of the number of pixels.

    Args:
        x: `[B, H, W, C]`.
        path: Checkpoint path.
        filters: Base width; `options` expand it.
        options: Heads and expansions; content terms only.
        defaults: What all layers share.
        stride: Of the queries that are kept, on both axes.

    Returns:
        `[B, ceil(H / stride), ceil(W / stride), round(filters * value_expansion)]`,
        not activated.

    Raises:
        ValueError: If `options` ask for relative positions or a span.
    """
    wrong = [name for name in _POSITIONAL if getattr(options, name)]
    if wrong:
        raise ValueError(
            f"{path}: {', '.join(wrong)} must be False for global attention; "
            "relative positions exist along one axis only"
        )
    if options.span is not None:
        raise ValueError(
            f"{path}: span is {options.span}; global attention sees all pixels: "
            "set it to None"
        )
    height, width = x.shape[1:3]
    # One row of all pixels.
    x = tf_keras.layers.Reshape((1, height * width, x.shape[-1]), name=f"{path}/_flat")(
        x
    )
    edges = ("_global", "_global2") if options.double_global_attention else ("_global",)
    for edge in edges:
        x = AxisAttention(
            "width",
            round(filters * options.key_expansion),
            round(filters * options.value_expansion),
            options=options,
            defaults=defaults,
            name=f"{path}/{edge}",
        )(x)
    x = tf_keras.layers.Reshape((height, width, x.shape[-1]), name=f"{path}/_map")(x)
    if stride == 1:
        return x
    # Every `stride`-th pixel: a pooling window of one pixel.
    return tf_keras.layers.MaxPooling2D(
        1, strides=stride, padding="same", name=f"{path}/_subsample"
    )(x)
