"""The dual-path transformer of MaX-DeepLab: a pixel path and a memory path talk.

References:
    Wang et al., MaX-DeepLab: End-to-End Panoptic Segmentation with Mask
    Transformers, CVPR 2021, arXiv:2012.00759.
"""

from collections.abc import Sequence
from typing import Any

from deeplab2_edge.layers.conv import conv1d
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dropout import drop_path
from deeplab2_edge.layers.dual_path_inference import FoldedDualPath
from deeplab2_edge.layers.dual_path_options import DualPathOptions
from deeplab2_edge.layers.normalization import batch_norm
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

# Published checkpoints hold this many mask slots, whatever number a model uses.
MAX_SLOTS = 128


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class MemoryFeature(tf_keras.layers.Layer):  # type: ignore[misc]
    """Gives every sample of a batch the learned first memory `[slots, channels]`.

    Its input lends the batch size only.
    """

    def __init__(self, slots: int, channels: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if not 1 <= slots <= MAX_SLOTS:
            raise ValueError(f"slots is {slots}; must be 1 to {MAX_SLOTS}")
        self.slots = slots
        self.channels = channels

    def build(self, input_shape: Any) -> None:
        self.memory_feature = self.add_weight(
            "memory_feature",
            (1, MAX_SLOTS, self.channels),
            initializer=tf_keras.initializers.TruncatedNormal(stddev=1.0),
        )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        memory = tf.cast(self.memory_feature, self.compute_dtype)[:, : self.slots]
        batch = inputs.shape[0] or tf.shape(inputs)[0]
        return tf.tile(memory, [batch, 1, 1])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "slots": self.slots, "channels": self.channels}


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class SplitHeads(tf_keras.layers.Layer):  # type: ignore[misc]
    """Cuts channels into parts and each part into heads.

    `[B, L, sum(sizes)]` becomes a `[B, num_heads, L, size / num_heads]` for each
    size; the channels of one head are neighbors.
    """

    def __init__(self, num_heads: int, sizes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.sizes = tuple(sizes)
        if any(size % num_heads for size in sizes):
            raise ValueError(
                f"{self.name}: widths {self.sizes} cannot be divided among "
                f"{num_heads} heads"
            )

    def call(self, inputs: Any) -> Any:
        length = inputs.shape[1]
        return [
            tf.transpose(
                tf.reshape(part, [-1, length, self.num_heads, size // self.num_heads]),
                [0, 2, 1, 3],
            )
            for part, size in zip(
                tf.split(inputs, self.sizes, axis=-1), self.sizes, strict=True
            )
        ]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "num_heads": self.num_heads, "sizes": self.sizes}


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class MatMul(tf_keras.layers.Layer):  # type: ignore[misc]
    """Multiplies two stacks of matrices, the second one transposed if asked."""

    def __init__(self, transpose_b: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.transpose_b = transpose_b

    def call(self, inputs: Any) -> Any:
        first, second = inputs
        return tf.matmul(first, second, transpose_b=self.transpose_b)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "transpose_b": self.transpose_b}


def memory_feature(reference: Any, path: str, slots: int, channels: int) -> Any:
    """Adds the learned memory that the first transformer reads.

    The variable `<path>/memory_feature` always has 128 slots, as in published
    checkpoints; a model with fewer uses the first ones.

    Args:
        reference: Any tensor with the batch size.
        path: Name of the layer; the variable lies directly below it.
        slots: Number of masks, 1 to 128.
        channels: Width of the memory.

    Returns:
        `[B, slots, channels]`, not activated.
    """
    return MemoryFeature(slots, channels, name=path)(reference)


def dual_path_transformer(
    pixels: Any,
    memory: Any,
    path: str,
    channels: int,
    *,
    options: DualPathOptions,
    defaults: LayerDefaults,
    keep_prob: float = 1.0,
) -> tuple[Any, Any]:
    """Lets memory look at pixels and memory, and pixels at the memory of before.

    There is no division of logits by the square root of the depth: logits are batch
    normalized per head.

    Args:
        pixels: `[B, H, W, Cp]`, a residual block's sum, not activated.
        memory: `[B, N, Cm]`.
        path: Checkpoint path, for example `"encoder/_stage5/_block1_transformer"`.
        channels: Base width that the expansions of `options` multiply.
        options: Widths, heads and which attentions there are.
        defaults: What all layers share.
        keep_prob: Probability that a sample keeps a residual branch in training; each
            of the three branches draws for itself.

    Returns:
        Pixels `[B, H, W, Cp]`, not activated (layer `<path>/_pixel_output`), and
        memory `[B, N, Cm]`, activated (layer `<path>/_memory_output`). With
        `axial="builtin"` the layer `<path>` gives both, and does not train.

    Raises:
        ValueError: If heads do not divide the widths.
    """
    if defaults.axial == "builtin":
        folded = FoldedDualPath(channels, options, defaults, name=path)
        return tuple(folded([pixels, memory]))
    feedback = options.use_pixel2memory_feedback_attention
    height, width, pixel_channels = pixels.shape[1:]
    x = tf_keras.layers.ReLU(name=f"{path}/_pixel_activation")(pixels)
    x = tf_keras.layers.Reshape(
        (height * width, pixel_channels), name=f"{path}/_pixel_sequence"
    )(x)
    # What nobody reads is not built: the pixels' queries without feedback, the
    # memory's keys and values where only its queries are used.
    memory_parts = "qkv" if feedback or options.use_memory_self_attention else "q"
    pixel_parts = "qkv" if feedback else "kv"
    of_memory = _project(
        memory, f"{path}/_memory", channels, memory_parts, options, defaults
    )
    of_pixels = _project(x, f"{path}/_pixel", channels, pixel_parts, options, defaults)

    keys, values = of_pixels["k"], of_pixels["v"]
    if options.use_memory_self_attention:
        # One softmax over pixels and memory together; pixels come first.
        keys = tf_keras.layers.Concatenate(axis=2, name=f"{path}/_memory_keys")(
            [keys, of_memory["k"]]
        )
        values = tf_keras.layers.Concatenate(axis=2, name=f"{path}/_memory_values")(
            [values, of_memory["v"]]
        )
    retrieved = _attend(
        of_memory["q"], keys, values, f"{path}/_memory_attention", options, defaults
    )
    new_memory = _update_memory(memory, retrieved, path, options, defaults, keep_prob)
    if not feedback:
        return pixels, new_memory

    retrieved = _attend(
        of_pixels["q"],
        of_memory["k"],
        of_memory["v"],
        f"{path}/_pixel_attention",
        options,
        defaults,
    )
    y = conv1d(
        retrieved,
        f"{path}/_pixel_conv3_bn",
        pixel_channels,
        defaults=defaults,
        activation="none",
        gamma=0.0,
    )
    y = drop_path(y, f"{path}/_pixel_drop_path", keep_prob)
    y = tf_keras.layers.Reshape(
        (height, width, pixel_channels), name=f"{path}/_pixel_map"
    )(y)
    return tf_keras.layers.Add(name=f"{path}/_pixel_output")([pixels, y]), new_memory


def _project(
    x: Any,
    path: str,
    channels: int,
    parts: str,
    options: DualPathOptions,
    defaults: LayerDefaults,
) -> dict[str, Any]:
    """Makes of `[B, L, C]` the queries, keys and values named by `parts`, in heads."""
    bottleneck = round(channels * options.bottleneck_expansion)
    key_depth = round(channels * options.key_expansion)
    depths = {
        "q": key_depth,
        "k": key_depth,
        "v": round(channels * options.value_expansion),
    }
    sizes = [depths[part] for part in parts]
    x = conv1d(x, f"{path}_conv1_bn_act", bottleneck, defaults=defaults)
    x = conv1d(
        x,
        f"{path}_qkv_conv_bn",
        sum(sizes),
        defaults=defaults,
        activation="none",
        kernel_initializer=tf_keras.initializers.TruncatedNormal(
            stddev=bottleneck**-0.5
        ),
    )
    heads = SplitHeads(options.num_heads, sizes, name=f"{path}_heads")(x)
    return dict(zip(parts, heads, strict=True))


def _attend(
    queries: Any,
    keys: Any,
    values: Any,
    path: str,
    options: DualPathOptions,
    defaults: LayerDefaults,
) -> Any:
    """Gives each query the mean of values, activated: `[B, L, value depth]`."""
    logits = MatMul(transpose_b=True, name=f"{path}/_similarity")([queries, keys])
    num_heads, num_queries, num_keys = logits.shape[1:]
    # Statistics are per head. Rank 3 spares Keras' fused channels-first op, which
    # the TFLite converter and TensorFlow's CPU kernels surround with transposes.
    x = tf_keras.layers.Reshape(
        (num_heads, num_queries * num_keys), name=f"{path}/_flat_similarity"
    )(logits)
    # float32 under mixed precision, too: thousands of keys share one sum.
    x = batch_norm(f"{path}/_batch_norm_similarity", defaults, axis=1, dtype="float32")(
        x
    )
    x = tf_keras.layers.Reshape(
        (num_heads, num_queries, num_keys), dtype="float32", name=f"{path}/_logits"
    )(x)
    weights = tf_keras.layers.Activation(
        options.transformer_activation, dtype="float32", name=f"{path}/_weights"
    )(x)
    x = MatMul(name=f"{path}/_retrieval")([weights, values])
    x = batch_norm(f"{path}/_batch_norm_retrieved_value", defaults, axis=(1, 3))(x)
    x = tf_keras.layers.ReLU(name=f"{path}/_activation")(x)
    x = tf_keras.layers.Permute((2, 1, 3), name=f"{path}/_heads_last")(x)
    return tf_keras.layers.Reshape((num_queries, -1), name=f"{path}/_merged_heads")(x)


def _update_memory(
    memory: Any,
    retrieved: Any,
    path: str,
    options: DualPathOptions,
    defaults: LayerDefaults,
    keep_prob: float,
) -> Any:
    channels = memory.shape[-1]
    x = conv1d(
        retrieved,
        f"{path}/_memory_conv3_bn",
        channels,
        defaults=defaults,
        activation="none",
        gamma=0.0,
    )
    x = drop_path(x, f"{path}/_memory_drop_path", keep_prob)
    x = tf_keras.layers.Add(name=f"{path}/_memory_sum")([memory, x])
    attended = tf_keras.layers.ReLU(name=f"{path}/_memory_sum_activation")(x)
    x = conv1d(
        attended,
        f"{path}/_memory_ffn_conv1_bn_act",
        options.feed_forward_network_channels,
        defaults=defaults,
    )
    x = conv1d(
        x,
        f"{path}/_memory_ffn_conv2_bn",
        channels,
        defaults=defaults,
        activation="none",
        gamma=0.0,
    )
    x = drop_path(x, f"{path}/_memory_ffn_drop_path", keep_prob)
    x = tf_keras.layers.Add(name=f"{path}/_memory_ffn_sum")([attended, x])
    return tf_keras.layers.ReLU(name=f"{path}/_memory_output")(x)
