"""Axial attention: self-attention along the height, then along the width.

The terms with relative positions are batched matrix products with the query (or key)
position as the batch: `[L, X, d] x [L, d, L]`. The alternative is the skewing trick:
multiply with the table of all `2 L - 1` distances, then shift every row by padding and
reshaping. It needs twice the multiplications and unaligned copies, and on a CPU it was
slower in every pairing that `benchmarks/attention.py` measures, most in training. GPUs
and TPUs, not measured, get the same form. Its price: a converted model may store the
looked-up vectors, `L * L * d` numbers for each table, where skewing stores
`(2 L - 1) * d`. For devices there is the other form, too: see `axial_inference`.

References:
    Wang et al., Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic
    Segmentation, ECCV 2020, arXiv:2003.07853.
"""

import dataclasses
import functools
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.layers.attention import (
    AttentionOptions,
    RelativePositions,
    TermNormalization,
)
from deeplab2_edge.layers.axial_inference import FoldedAttention
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.normalization import batch_norm
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

__all__ = ["AttentionOptions", "AxisAttention", "axial_attention"]

_AXES = ("height", "width")
# Fewest queries of a block of local attention: smaller matrix products waste time.
_MIN_BLOCK = 32


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
        trained_size: Height and width of the map the weights were trained at, to
            stretch relative positions to the map at hand. `None`: distances keep their
            meaning in pixels. See `AxisAttention`.

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
class AxisAttention(tf_keras.layers.Layer):  # type: ignore[misc]
    """Lets every pixel look along one axis of a map.

    With queries q, keys k, values v of one head and tables E of relative positions,
    query l and key m:

        logit[l, m] = N(q_l . k_m) + N(q_l . Eq[m - l]) + N(k_m . Ek[m - l])
        out[l]      = N(sum_m a[l, m] v_m) + N(sum_m a[l, m] Ev[m - l])

    where a is the softmax over m and every N is a batch normalization of its own. At
    inference the normalizations are folded into the projection and into q and k.

    Any length works with any checkpoint. By default relative positions keep their
    meaning in pixels: for L <= 255 rows `254 - (L - 1) .. 254 + (L - 1)` of the tables
    are used, and on longer axes distances beyond 254 share the last row. With
    `trained_length` they keep their meaning as parts of the axis: distance d reads,
    linearly interpolated, row `254 + d * (trained_length - 1) / (L - 1)`.

    With `options.span` s, keys farther than s are not seen. Queries then go in blocks
    of b = max(s, 32), each with its window of b + 2 s keys: time and memory grow with
    `L * (b + 2 s)` and not with the square of L, and the largest tensor holds that
    many logits per head and sequence. On an axis shorter than two windows nothing is
    gained, and the whole axis is one block.

    Batch statistics are those of all queries and, with a span, of the pairs that see
    each other. They and the softmax are float32 whatever the precision of the rest.

    Args:
        axis: `"height"` or `"width"`.
        key_depth: Channels of queries, and of keys, of all heads together.
        value_depth: Likewise of values.
        options: Terms, heads and activation.
        defaults: Batch normalization.
        stride: Every `stride`-th query is kept. Inference computes no others; training
            does, because they belong to the batch statistics.
        trained_length: Length of the axis the weights were trained at.

    Raises:
        ValueError: If `axis` is unknown or a depth is not a multiple of the heads.
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
        if axis not in _AXES:
            raise ValueError(f"axis is {axis!r}; must be one of {', '.join(_AXES)}")
        heads = options.num_heads
        if key_depth % heads or value_depth % heads:
            raise ValueError(
                f"{self.name}: {key_depth} key and {value_depth} value channels "
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
        # What shares a place on the axis: the heads and, for the height, the columns.
        columns = int(input_shape[2]) if self.axis == "height" else 1
        self.num_fellows = columns * heads
        width = 2 * self.key_depth + self.value_depth
        self.qkv_kernel = self.add_weight(
            name="qkv_kernel",
            shape=(channels, width),
            dtype=tf.float32,
            initializer=tf_keras.initializers.TruncatedNormal(stddev=channels**-0.5),
            experimental_autocast=False,
        )
        self.qkv_norm = batch_norm(f"{self.name}/_batch_norm_qkv", self.defaults)
        self.qkv_norm.build((None, None, width))
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
        key_std = options.initialization_std_for_query_key_rpe
        value_std = options.initialization_std_for_value_rpe
        for name, is_used, depth, std in (
            ("query", options.use_query_rpe_similarity, self.key_depth, key_std),
            ("key", options.use_key_rpe_similarity, self.key_depth, key_std),
            ("value", options.retrieve_value_rpe, self.value_depth, value_std),
        ):
            table = None
            if is_used:
                path = f"{self.name}/_{name}_rpe"
                table = RelativePositions(depth // heads, std, name=path)
                table.build(None)
            setattr(self, f"{name}_positions", table)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        training = bool(training)
        axis = 1 + _AXES.index(self.axis)
        length = int(inputs.shape[axis])
        # The statistics of a batch include the queries that are dropped.
        stride = 1 if training else self.stride
        windows = _windows(length, self.options.span, stride)
        if not training and self.defaults.axial == "builtin":
            return FoldedAttention(self, windows)(inputs)
        projected = self._project(inputs, training)
        query, key, value = tf.split(
            projected, [self.key_depth, self.key_depth, self.value_depth], axis=-1
        )
        query = _every(query, stride, axis)
        weights, zero = self._weights(query, key, windows, training)
        terms = self._retrieve(tf.cast(weights, value.dtype), value, windows)
        size = [-1, *inputs.shape[1:3], self.value_depth]
        size[axis] = windows.num_queries
        out = self._combine([tf.reshape(term, size) for term in terms], zero, training)
        return _every(out, self.stride // stride, axis)

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

    def _project(self, x: Any, training: bool) -> Any:
        """Returns `[B, H, W, Dk + Dk + Dv]`: normalized queries, keys, values."""
        norm = self.qkv_norm
        if training and norm.trainable:
            z = _conv1x1(x, self.qkv_kernel)
            # Rank 3, as the published networks were trained: Keras' fused kernel for
            # rank 4 keeps another (Bessel's) moving variance.
            flat = tf.reshape(z, (-1, z.shape[1] * z.shape[2], z.shape[3]))
            flat = tf.cast(norm(flat, training=True), z.dtype)
            return tf.reshape(flat, (-1, *z.shape[1:]))
        scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
        shift = norm.beta - norm.moving_mean * scale
        if self._is_output_norm_folded(training):
            # The weights of a query add up to 1, so what is added to values is added
            # to the result.
            output_scale, output_shift = self.output_norm.moving_affine()
            value_scale = tf.reshape(output_scale[0], (self.value_depth,))
            value_shift = tf.reshape(tf.reduce_sum(output_shift, 0), value_scale.shape)
            ones = tf.ones(2 * self.key_depth)
            value_scale = tf.concat([ones, value_scale], axis=0)
            scale *= value_scale
            shift = shift * value_scale + tf.concat([0.0 * ones, value_shift], axis=0)
        return _conv1x1(x, self.qkv_kernel * scale) + tf.cast(shift, x.dtype)

    def _is_output_norm_folded(self, training: bool) -> bool:
        return (
            not training
            and self.options.retrieve_value_content
            and self.options.self_attention_activation == "softmax"
        )

    def _weights(
        self, query: Any, key: Any, windows: "_Windows", training: bool
    ) -> tuple[Any, Any]:
        """Returns float32 `[X, rows, width]`, and a zero for the shifts' gradient."""
        norm = self.similarity_norm
        if training and norm.trainable:
            terms = self._logits(query, key, None, windows)
            terms = [tf.cast(term, tf.float32) for term in terms]
            scale, shift = norm.batch_affine(*self._moments(terms, windows))
            terms = [
                self._by_head(term) * scale[s][..., None]
                for s, term in enumerate(terms)
            ]
        else:
            scale, shift = norm.moving_affine()
            terms = self._logits(query, key, scale, windows)
            terms = [tf.cast(term, tf.float32) for term in terms]
        logits = tf.reshape(_sum(terms), (-1, windows.rows, windows.width))
        if self.options.self_attention_activation == "sigmoid":
            logits = self._by_head(logits) + tf.reduce_sum(shift, axis=0)[..., None]
            logits = tf.reshape(logits, (-1, windows.rows, windows.width))
            if windows.seen is None:
                return tf.sigmoid(logits), 0.0
            return self._over_windows(tf.sigmoid(logits), windows, tf.multiply), 0.0
        if windows.seen is not None:
            logits = self._over_windows(
                logits, windows, lambda x, seen: x - 1e9 * (1.0 - seen)
            )
        # A shift that all keys share changes no softmax. Its gradient is 0, not
        # missing.
        return tf.nn.softmax(logits), 0.0 * tf.reduce_sum(shift)

    def _logits(
        self, query: Any, key: Any, scale: Any, windows: "_Windows"
    ) -> list[Any]:
        """Returns the terms `[X, rows, width]`, scaled per head unless that is None."""
        terms: list[Any] = []

        def scaled(x: Any) -> Any:
            if scale is None:
                return x
            # From one factor per head to one per channel.
            depth = self.key_depth // self.options.num_heads
            channels = tf.reshape(tf.tile(scale[len(terms)], (1, depth)), (-1,))
            return x * tf.cast(channels, x.dtype)

        if self.options.use_content_similarity:
            rows = _by_sequence(self.query_blocks(scaled(query), windows))
            columns = _by_sequence(self.key_windows(key, windows))
            terms.append(tf.matmul(rows, columns, transpose_b=True))
        if self.query_positions is not None:
            vectors = self._vectors(self.query_positions, windows, query.dtype)
            rows = _by_position(self.query_blocks(scaled(query), windows))
            term = tf.matmul(rows, vectors, transpose_b=True)
            terms.append(tf.transpose(term, (1, 0, 2)))
        if self.key_positions is not None:
            vectors = self._vectors(self.key_positions, windows, key.dtype)
            columns = _by_position(self.key_windows(scaled(key), windows))
            term = tf.matmul(columns, vectors, transpose_b=True)
            terms.append(tf.transpose(term, (1, 2, 0)))
        return terms

    def _retrieve(self, weights: Any, value: Any, windows: "_Windows") -> list[Any]:
        """Returns the terms `[P, queries, K, d]`; see `_along_axis`."""
        terms = []
        fellows = self.num_fellows
        depth = self.value_depth // self.options.num_heads
        if self.options.retrieve_value_content:
            columns = _by_sequence(self.key_windows(value, windows))
            term = tf.matmul(weights, columns)
            term = tf.reshape(term, (-1, fellows, windows.rows, depth))
            terms.append(tf.transpose(term, (0, 2, 1, 3)))
        if self.value_positions is not None:
            vectors = self._vectors(self.value_positions, windows, value.dtype)
            term = tf.matmul(tf.transpose(weights, (1, 0, 2)), vectors)
            term = tf.reshape(term, (windows.rows, -1, fellows, depth))
            terms.append(tf.transpose(term, (1, 0, 2, 3)))
        if windows.num_blocks > 1:
            padded = windows.num_blocks * windows.rows
            terms = [tf.reshape(t, (-1, padded, fellows, depth)) for t in terms]
            terms = [term[:, : windows.num_queries] for term in terms]
        return terms

    def _combine(self, terms: list[Any], zero: Any, training: bool) -> Any:
        """Normalizes and adds what was retrieved, `[B, H, W, Dv]` each."""
        norm = self.output_norm
        dtype = terms[0].dtype
        shape = (norm.num_terms, self.value_depth)
        if not (training and norm.trainable):
            scale, shift = (tf.reshape(t, shape) for t in norm.moving_affine())
            scaled = [t * tf.cast(scale[s], dtype) for s, t in enumerate(terms)]
            if not self._is_output_norm_folded(training):
                return _sum(scaled) + tf.cast(tf.reduce_sum(shift, 0), dtype)
            return _sum([terms[0], *scaled[1:]])
        terms = [tf.cast(term, tf.float32) for term in terms]
        moments = [tf.nn.moments(term, (0, 1, 2)) for term in terms]
        size = (norm.num_heads, norm.depth)
        means, variances = (
            [tf.reshape(moment, size) for moment in group]
            for group in zip(*moments, strict=True)
        )
        count = tf.cast(tf.size(terms[0]) // self.value_depth, tf.float32)
        affine = norm.batch_affine(means, variances, count)
        scale, shift = (tf.reshape(t, shape) for t in affine)
        out = _sum([term * scale[s] for s, term in enumerate(terms)])
        return tf.cast(out + (tf.reduce_sum(shift, 0) + zero), dtype)

    def _moments(
        self, terms: list[Any], windows: "_Windows"
    ) -> tuple[list[Any], list[Any], Any]:
        """Returns means, variances and count of the pairs that see each other."""
        heads = self.options.num_heads
        pairs = windows.rows * windows.width
        if windows.seen is None:
            count = tf.cast(tf.size(terms[0]) // heads, tf.float32)
        else:
            groups = tf.shape(terms[0])[0] // (windows.num_blocks * heads)
            count = tf.cast(groups, tf.float32) * float(windows.seen.sum())

        def mean_of(x: Any) -> Any:
            if windows.seen is not None:
                x = self._over_windows(x, windows, tf.multiply)
            # In two steps: one reduction over both axes adds up to 100 times the
            # rounding error.
            total = tf.reduce_sum(tf.reshape(x, (-1, heads, pairs)), axis=2)
            total = tf.reduce_sum(total, axis=0)[:, None]
            return tf.math.divide_no_nan(total, count)

        means = [mean_of(term) for term in terms]
        variances = [
            mean_of(
                tf.reshape(
                    # As in tf.nn.moments: this way to the mean has gradient 0.
                    tf.math.squared_difference(
                        self._by_head(term), tf.stop_gradient(mean)[..., None]
                    ),
                    tf.shape(term),
                )
            )
            for term, mean in zip(terms, means, strict=True)
        ]
        return means, variances, count

    def _vectors(self, table: Any, windows: "_Windows", dtype: Any) -> Any:
        scale = 1.0
        if self.trained_length is not None and windows.length > 1:
            scale = (self.trained_length - 1) / (windows.length - 1)
        distances = windows.distances
        if table is self.key_positions:
            distances = distances.T
        return tf.cast(table.vectors(distances, scale), dtype)

    def _along_axis(self, x: Any) -> Any:
        """Views a map `[B, H, W, h d]` as `[P, L, K, d]`, without moving anything.

        K is heads, or columns and heads; P is rows, or images. With the heads in K, one
        transposition of rank 4 makes sequences.
        """
        length = x.shape[1 + _AXES.index(self.axis)]
        depth = x.shape[3] // self.options.num_heads
        return tf.reshape(x, (-1, length, self.num_fellows, depth))

    def query_blocks(self, x: Any, windows: "_Windows") -> Any:
        """Cuts a map into `[P blocks, rows, K, d]`."""
        x = self._along_axis(x)
        if windows.num_blocks == 1:
            return x
        missing = windows.num_blocks * windows.rows - windows.num_queries
        x = tf.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0)))
        return tf.reshape(x, (-1, windows.rows, *x.shape[2:]))

    def key_windows(self, x: Any, windows: "_Windows") -> Any:
        """Cuts a map into overlapping `[P blocks, width, K, d]`."""
        x = self._along_axis(x)
        if windows.num_blocks == 1:
            return x
        fellows, depth = x.shape[2:]
        blocks, block = windows.num_blocks, windows.block
        # A window is a block and the two after it, cut, in coordinates that start
        # `reach` pixels before the axis.
        missing = (blocks + 2) * block - windows.length - windows.reach
        x = tf.pad(x, ((0, 0), (windows.reach, missing), (0, 0), (0, 0)))
        x = tf.reshape(x, (-1, blocks + 2, block, fellows * depth))
        first = 2 * windows.reach
        parts = [x[:, :-2], x[:, 1:-1, :first], x[:, 2:, : max(0, first - block)]]
        return tf.reshape(tf.concat(parts, 2), (-1, windows.width, fellows, depth))

    def _by_head(self, x: Any) -> Any:
        """Views `[X, rows, width]` as `[N, heads, rows, width]`."""
        return tf.reshape(x, (-1, self.options.num_heads, *x.shape[1:]))

    def _over_windows(self, x: Any, windows: "_Windows", combine: Any) -> Any:
        """Combines `[X, rows, width]` with the mask of seen pairs."""
        assert windows.seen is not None
        pairs = windows.rows * windows.width
        fellows = self.num_fellows
        blocks = tf.reshape(x, (-1, windows.num_blocks, fellows, pairs))
        seen = tf.constant(windows.seen.reshape(-1, 1, pairs), tf.float32)
        return tf.reshape(combine(blocks, seen), (-1, *x.shape[1:]))


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Says which queries meet which keys.

    Attributes:
        length: Pixels of the axis.
        num_queries: Of the whole axis.
        num_blocks: Groups of queries with a window of keys each.
        block: Pixels from one group to the next.
        rows: Queries of a group.
        width: Keys of a window.
        reach: Pixels that a window begins before its group.
        distances: `[rows, width]`, key position minus query position.
        seen: `[num_blocks, rows, width]`, whether a query sees a key; `None`: all do.
    """

    length: int
    num_queries: int
    num_blocks: int
    block: int
    rows: int
    width: int
    reach: int
    distances: NDArray[np.int64]
    seen: NDArray[np.bool_] | None


def _windows(length: int, span: int | None, stride: int) -> _Windows:
    num_queries = -(-length // stride)
    if span is None or span >= length - 1:
        span = length
    block = -(-max(span, _MIN_BLOCK) // stride) * stride
    if length < 2 * (block + 2 * span):
        # One block, and all of the axis is its window.
        rows, width, reach, num_blocks = num_queries, length, 0, 1
    else:
        rows, width, reach = block // stride, block + 2 * span, span
        num_blocks = -(-length // block)
    queries = stride * np.arange(rows)[:, None]
    keys = np.arange(width) - reach
    distances = keys - queries
    start = block * np.arange(num_blocks)[:, None, None]
    seen = (
        (np.abs(distances) <= span)
        & (start + keys >= 0)
        & (start + keys < length)
        & (start + queries < length)
    )
    return _Windows(
        length=length,
        num_queries=num_queries,
        num_blocks=num_blocks,
        block=block,
        rows=rows,
        width=width,
        reach=reach,
        distances=distances,
        seen=None if seen.all() else seen,
    )


def _by_sequence(x: Any) -> Any:
    """Turns `[P, L, K, d]` into `[P K, L, d]`."""
    return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, x.shape[1], x.shape[3]))


def _by_position(x: Any) -> Any:
    """Turns `[P, L, K, d]` into `[L, P K, d]`."""
    return tf.reshape(tf.transpose(x, (1, 0, 2, 3)), (x.shape[1], -1, x.shape[3]))


def _conv1x1(x: Any, kernel: Any) -> Any:
    return tf.nn.conv2d(x, tf.cast(kernel, x.dtype)[None, None], 1, "VALID")


def _every(x: Any, stride: int, axis: int) -> Any:
    if stride == 1:
        return x
    return x[:, ::stride] if axis == 1 else x[:, :, ::stride]


def _sum(terms: list[Any]) -> Any:
    # Not tf.add_n: XNNPACK (LiteRT 2.3) has no ADD_N and would leave the graph here.
    return functools.reduce(operator.add, terms)
