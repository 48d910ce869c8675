"""Axial attention: self-attention along the height, then along the width.

References:
    Wang et al., Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic
    Segmentation, ECCV 2020, arXiv:2003.07853.
"""

import dataclasses
from typing import Any

import numpy as np

from deeplab2_edge.layers.attention import (
    AttentionOptions,
    TermNormalization,
    skew,
    unskew,
)
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.normalization import batch_norm
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

__all__ = ["AttentionOptions", "AxisAttention", "axial_attention"]

# Published tables reach 254 positions either way, whatever the length of the axis.
_MAX_DISTANCE = 254
_AXES = ("height", "width")


def axial_attention(
    x: Any,
    path: str,
    filters: int,
    *,
    options: AttentionOptions,
    defaults: LayerDefaults,
    stride: int = 1,
    trained_size: tuple[int, int] | None = None,
) -> Any:
    """Adds attention along the height, then along the width.

    Args:
        x: `[B, H, W, C]`.
        path: Checkpoint path, for example `"encoder/_stage4/_block2/_attention"`.
        filters: Base width; `options` expand it.
        options: Terms, heads and expansions.
        defaults: What all layers share.
        stride: Of the queries that are kept, on both axes.
        trained_size: See `AxisAttention`, per axis (height, width).

    Returns:
        `[B, ceil(H / stride), ceil(W / stride), round(filters * value_expansion)]`,
        not activated.
    """
    for number, axis in enumerate(_AXES):
        x = AxisAttention(
            axis,
            round(filters * options.key_expansion),
            round(filters * options.value_expansion),
            options=options,
            defaults=defaults,
            stride=stride,
            trained_length=trained_size[number] if trained_size else None,
            name=f"{path}/_{axis}_axis",
        )(x)
    return x


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class RelativePositions(tf_keras.layers.Layer):  # type: ignore[misc]
    """Holds one vector per relative position -254..254, shared by all heads."""

    def __init__(self, depth: int, initial_std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth
        self.initial_std = initial_std

    def build(self, input_shape: Any) -> None:
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(2 * _MAX_DISTANCE + 1, self.depth),
            initializer=tf_keras.initializers.TruncatedNormal(stddev=self.initial_std),
            experimental_autocast=False,
        )
        super().build(input_shape)

    def rows(self, length: int, trained_length: int | None = None) -> Any:
        """Returns float32 `[2 L - 1, depth]` for the distances `1 - L .. L - 1`."""
        distances = np.arange(1 - length, length, dtype=np.float64)
        if trained_length is not None and length > 1:
            distances *= (trained_length - 1) / (length - 1)
        index = np.clip(distances + _MAX_DISTANCE, 0, 2 * _MAX_DISTANCE)
        lower = np.floor(index).astype(np.int32)
        fraction = (index - lower).astype(np.float32)[:, None]
        if not fraction.any() and lower[-1] - lower[0] == 2 * length - 2:
            return self.embeddings[lower[0] : lower[-1] + 1]
        upper = np.minimum(lower + 1, 2 * _MAX_DISTANCE)
        below = tf.gather(self.embeddings, lower)
        if not fraction.any():
            return below
        return below + fraction * (tf.gather(self.embeddings, upper) - below)

    def get_config(self) -> dict[str, Any]:
        config = {"depth": self.depth, "initial_std": self.initial_std}
        return {**super().get_config(), **config}


@tf_keras.utils.register_keras_serializable(package="deeplab2_edge")
class AxisAttention(tf_keras.layers.Layer):  # type: ignore[misc]
    """Lets every pixel look along one axis of the map.

    With queries q, keys k, values v of one head and tables E of relative positions,
    query l and key m:

        logit[l, m] = N(q_l . k_m) + N(q_l . Eq[m - l]) + N(k_m . Ek[m - l])
        out[l]      = N(sum_m a[l, m] v_m) + N(sum_m a[l, m] Ev[m - l])

    where a is the softmax over m and every N is a batch normalization of its own.

    Any length works with any checkpoint. By default relative positions keep their
    meaning in pixels: the tables' rows `-(L - 1) .. L - 1` are used, and distances
    beyond 254 share the last row. With `trained_length` they keep their meaning as
    parts of the axis: distance d of L pixels reads, linearly interpolated, row
    `d * (trained_length - 1) / (L - 1)`.

    Args:
        axis: `"height"` or `"width"`.
        key_depth: Channels of queries, and of keys, of all heads together.
        value_depth: Likewise of values.
        options: Terms, heads and activation.
        defaults: Batch normalization.
        stride: Every `stride`-th query is kept. Training computes all of them: they
            belong to the batch statistics.
        trained_length: Length of the axis the weights were trained at.

    Raises:
        ValueError: If a depth is not a multiple of the heads.
    """

    def __init__(
        self,
        axis: str,
        key_depth: int,
        value_depth: int,
        *,
        options: AttentionOptions,
        defaults: LayerDefaults,
        stride: int = 1,
        trained_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        heads = options.num_heads
        if key_depth % heads or value_depth % heads:
            raise ValueError(
                f"{self.name}: keys of {key_depth} and values of {value_depth} channels "
                f"cannot be split among {heads} heads"
            )
        self.axis = axis
        self.key_depth = key_depth
        self.value_depth = value_depth
        self.options = options
        self.defaults = defaults
        self.stride = stride
        self.trained_length = trained_length

    def build(self, input_shape: Any) -> None:
        options, heads = self.options, self.options.num_heads
        channels = int(input_shape[-1])
        self.qkv_kernel = self.add_weight(
            name="qkv_kernel",
            shape=(channels, 2 * self.key_depth + self.value_depth),
            initializer=tf_keras.initializers.TruncatedNormal(stddev=channels**-0.5),
            experimental_autocast=False,
        )
        self.qkv_norm = batch_norm(f"{self.name}/_batch_norm_qkv", self.defaults)
        self.qkv_norm.build((None, None, 2 * self.key_depth + self.value_depth))
        self.similarity_norm = self._term_norm(
            "_batch_norm_similarity",
            options.use_content_similarity
            + options.use_query_rpe_similarity
            + options.use_key_rpe_similarity,
        )
        self.output_norm = self._term_norm(
            "_batch_norm_retrieved_output",
            options.retrieve_value_content + options.retrieve_value_rpe,
            self.value_depth // heads,
        )
        logit_std = options.initialization_std_for_query_key_rpe
        self.query_positions = self.key_positions = self.value_positions = None
        if options.use_query_rpe_similarity:
            self.query_positions = self._table(
                "_query_rpe", self.key_depth // heads, logit_std
            )
        if options.use_key_rpe_similarity:
            self.key_positions = self._table(
                "_key_rpe", self.key_depth // heads, logit_std
            )
        if options.retrieve_value_rpe:
            self.value_positions = self._table(
                "_value_rpe",
                self.value_depth // heads,
                options.initialization_std_for_value_rpe,
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        training = bool(training)
        height, width = inputs.shape[1:3]
        length = height if self.axis == "height" else width
        z = self._project(inputs, training)
        query, key, value = (
            self._to_sequences(part)
            for part in tf.split(
                z, [self.key_depth, self.key_depth, self.value_depth], -1
            )
        )
        terms = [tf.cast(t, tf.float32) for t in self._logits(query, key, length)]
        scale, shift = self._affine(self.similarity_norm, terms, (0, 2, 3), training)
        logits = sum(t * scale[s, :, :, None] for s, t in enumerate(terms))
        if self.options.self_attention_activation == "softmax":
            # A shift per head changes no softmax; its gradient is exactly 0.
            weights = tf.nn.softmax(logits + 0.0 * tf.reduce_sum(shift))
        else:
            weights = tf.sigmoid(logits + tf.reduce_sum(shift, 0)[:, :, None])
        weights = tf.cast(weights, z.dtype)
        retrieved = [
            tf.cast(t, tf.float32) for t in self._retrieve(weights, value, length)
        ]
        scale, shift = self._affine(self.output_norm, retrieved, (0, 2), training)
        out = sum(
            t * scale[s, :, None, :] + shift[s, :, None, :]
            for s, t in enumerate(retrieved)
        )
        out = self._from_sequences(tf.cast(out, z.dtype), (height, width))
        if self.axis == "height":
            return out[:, :: self.stride]
        return out[:, :, :: self.stride]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "key_depth": self.key_depth,
            "value_depth": self.value_depth,
            "options": dataclasses.asdict(self.options),
            "defaults": dataclasses.asdict(self.defaults),
            "stride": self.stride,
            "trained_length": self.trained_length,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AxisAttention":
        options = AttentionOptions(**config.pop("options"))
        defaults = LayerDefaults(**config.pop("defaults"))
        return cls(**config, options=options, defaults=defaults)

    def _term_norm(self, edge: str, num_terms: int, depth: int = 1) -> Any:
        norm = TermNormalization(
            num_terms,
            self.options.num_heads,
            depth,
            momentum=self.defaults.batch_norm_momentum,
            epsilon=self.defaults.batch_norm_epsilon,
            synchronized=self.defaults.synchronize_batch_norm,
            name=f"{self.name}/{edge}",
        )
        norm.build(None)
        return norm

    def _table(self, edge: str, depth: int, initial_std: float) -> Any:
        table = RelativePositions(depth, initial_std, name=f"{self.name}/{edge}")
        table.build(None)
        return table

    def _project(self, x: Any, training: bool) -> Any:
        height, width, channels = x.shape[1:]
        kernel = tf.cast(self.qkv_kernel, x.dtype)[None, None]
        z = tf.nn.conv2d(x, kernel, 1, "VALID")
        # Rank 3, as in the published training: the fused kernel, which takes rank 4,
        # keeps another moving variance.
        flat = tf.reshape(z, (-1, height * width, z.shape[-1]))
        return tf.reshape(self.qkv_norm(flat, training=training), tf.shape(z))

    def _affine(
        self, norm: Any, terms: list[Any], axes: tuple[int, ...], training: bool
    ) -> tuple[Any, Any]:
        if not (training and norm.trainable):
            return norm.moving_affine()
        moments = [tf.nn.moments(term, axes) for term in terms]
        shape = (norm.num_heads, norm.depth)
        count = tf.size(terms[0]) / (norm.num_heads * norm.depth)
        return norm.batch_affine(
            [tf.reshape(mean, shape) for mean, _ in moments],
            [tf.reshape(variance, shape) for _, variance in moments],
            tf.cast(count, tf.float32),
        )

    def _logits(self, query: Any, key: Any, length: int) -> list[Any]:
        terms = []
        if self.options.use_content_similarity:
            terms.append(tf.matmul(query, key, transpose_b=True))
        if self.query_positions is not None:
            rows = tf.cast(self._rows(self.query_positions, length), query.dtype)
            terms.append(skew(tf.matmul(query, rows, transpose_b=True), length))
        if self.key_positions is not None:
            # As a function of the query the row falls: reverse, skew, swap the axes.
            rows = tf.cast(self._rows(self.key_positions, length), key.dtype)[::-1]
            skewed = skew(tf.matmul(key, rows, transpose_b=True), length)
            terms.append(tf.transpose(skewed, (0, 1, 3, 2)))
        return terms

    def _retrieve(self, weights: Any, value: Any, length: int) -> list[Any]:
        terms = []
        if self.options.retrieve_value_content:
            terms.append(tf.matmul(weights, value))
        if self.value_positions is not None:
            rows = tf.cast(self._rows(self.value_positions, length), value.dtype)
            by_distance = unskew(weights, length)[..., : 2 * length - 1]
            terms.append(tf.matmul(by_distance, rows))
        return terms

    def _rows(self, table: Any, length: int) -> Any:
        return table.rows(length, self.trained_length)

    def _to_sequences(self, x: Any) -> Any:
        """Turns `[B, H, W, h d]` into `[N, h, L, d]`."""
        height, width, channels = x.shape[1:]
        heads = self.options.num_heads
        depth = channels // heads
        # Heads travel with the other axis, so one transposition of rank 4 is enough.
        if self.axis == "height":
            shape, length = (-1, height, width * heads, depth), height
        else:
            shape, length = (-1, width, heads, depth), width
        x = tf.transpose(tf.reshape(x, shape), (0, 2, 1, 3))
        return tf.reshape(x, (-1, heads, length, depth))

    def _from_sequences(self, x: Any, size: tuple[int, int]) -> Any:
        heads, length, depth = x.shape[1:]
        height, width = size
        columns = width * heads if self.axis == "height" else heads
        x = tf.transpose(tf.reshape(x, (-1, columns, length, depth)), (0, 2, 1, 3))
        if self.axis == "height":
            return tf.reshape(x, (-1, length, width, heads * depth))
        return tf.reshape(x, (-1, height, length, heads * depth))
