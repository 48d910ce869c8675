"""Axial attention as devices run it: few ops, rank 4, constants folded.

It computes what `axial_attention.AxisAttention` computes at inference, from the same
variables. What differs:

* One convolution gives queries, keys and values of a head side by side, so that one
  transposition makes sequences of all three. What follows a 1x1 convolution linearly
  is folded into it: the normalization of the projection, that of the retrieved values
  and, because the weights of a query add up to 1, every shift of the result.
* A shift of the logits that all keys of a query share changes no softmax: dropped.
* Terms of relative positions are products with the table of all distances, a fully
  connected layer, whose rows are then shifted into place ("skewed"): a row longer or
  shorter by `stride` moves by `stride` when the same numbers are cut into rows anew.
* Queries that a stride drops are never computed.

Queries and keys enter several terms, each with a scale of its own. Those scales stay
products with constants: a projection that is wider for them costs more.

With sigmoid weights neither shift can be dropped or folded; they are added instead.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab2_edge.layers.folding import Linear, joined, normalized
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

# Of logits of keys that are not seen. Within float16, and its exponential is 0.
_UNSEEN = -3e4


class FoldedAttention:
    """Applies an `AxisAttention` whose weights no longer change.

    Args:
        layer: The layer, which owns the variables.
        windows: Which queries meet which keys.
    """

    def __init__(self, layer: Any, windows: Any) -> None:
        self._layer = layer
        self._options = layer.options
        self._windows = windows
        self._heads = layer.options.num_heads
        # A distance is `m - stride * i - reach` for key m and query i of a window.
        self._stride = layer.stride
        self._drift = self._stride * (windows.rows - 1)
        self._is_softmax = layer.options.self_attention_activation == "softmax"

    # There is nothing to convert, and looking for it takes longer than the trace.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        """Returns `[B, H', W', value depth]` of a map `[B, H, W, C]`."""
        query, key, value = self._sequences(x)
        weights = self._weights(query, key)
        return self._merge(self._retrieve(weights, value), x)

    def _sequences(self, x: Any) -> tuple[Any, Any, Any]:
        """Returns queries, keys and values `[N, heads, length, depth]`.

        Those that nobody reads are None.
        """
        options, windows = self._options, self._windows
        parts = self._parts()
        if not (options.use_content_similarity or options.use_query_rpe_similarity):
            del parts["query"]
        if not (options.use_content_similarity or options.use_key_rpe_similarity):
            del parts["key"]
        if not options.retrieve_value_content:
            del parts["value"]
        if windows.num_blocks == 1 and self._stride == 1:
            groups = [(tuple(parts), 1, self._layer.query_blocks)]
        else:
            groups = [
                (("query",), self._stride, self._layer.query_blocks),
                (("key", "value"), 1, self._layer.key_windows),
            ]
        found: dict[str, Any] = {}
        for names, stride, cut in groups:
            names = tuple(name for name in names if name in parts)
            chosen = [parts[name] for name in names]
            if chosen:
                tensors = self._project(x, chosen, stride, cut)
                found |= dict(zip(names, tensors, strict=True))
        return found.get("query"), found.get("key"), found.get("value")

    def _parts(self) -> dict[str, Linear]:
        """Returns queries, keys and values as maps of pixels to `[heads, depth]`."""
        layer = self._layer
        sizes = [layer.key_depth, layer.key_depth, layer.value_depth]
        query, key, value = (
            part.in_heads(self._heads)
            for part in normalized(layer.qkv_kernel, layer.qkv_norm).split(sizes)
        )
        if self._options.retrieve_value_content:
            scales, shifts = layer.output_norm.moving_affine()
            value = value.scaled(scales[0])
            if self._is_softmax:
                value = value.shifted(tf.reduce_sum(shifts, 0))
        return {"query": query, "key": key, "value": value}

    def _project(
        self, x: Any, parts: Sequence[Linear], stride: int, cut: Callable[..., Any]
    ) -> list[Any]:
        depths = [int(part.bias.shape[-1]) for part in parts]
        width = self._heads * sum(depths)
        both = joined(parts)
        kernel = tf.cast(tf.reshape(both.kernel, (1, 1, -1, width)), x.dtype)
        bias = tf.cast(tf.reshape(both.bias, (width,)), x.dtype)
        strides = (stride, 1) if self._layer.axis == "height" else (1, stride)
        y = cut(tf.nn.conv2d(x, kernel, strides, "VALID") + bias, self._windows)
        y = tf.transpose(y, (0, 2, 1, 3))
        y = tf.reshape(y, (-1, self._heads, *y.shape[2:]))
        return [y] if len(depths) == 1 else tf.split(y, depths, axis=-1)

    def _weights(self, query: Any, key: Any) -> Any:
        """Returns `[N, heads, rows, width]`."""
        options, windows, layer = self._options, self._windows, self._layer
        scales, shifts = layer.similarity_norm.moving_affine()
        scales = iter(tf.unstack(scales))  # in the order of the terms
        terms = []
        if options.use_content_similarity:
            terms.append(
                tf.matmul(self._scaled(query, next(scales)), key, transpose_b=True)
            )
        if options.use_query_rpe_similarity:
            table = self._table(layer.query_positions, windows.width, self._stride)
            rows = _linear(self._scaled(query, next(scales)), table, transpose=True)
            terms.append(_skew(rows, self._stride, windows.width))
        if options.use_key_rpe_similarity:
            terms.append(self._key_term(self._scaled(key, next(scales))))
        logits = functools.reduce(operator.add, terms)
        if not self._is_softmax:
            shift = tf.reduce_sum(shifts, axis=0)[None, :, None]
            return self._seen(
                tf.sigmoid(logits + tf.cast(shift, logits.dtype)), tf.multiply, 0.0
            )
        return tf.nn.softmax(self._seen(logits, tf.add, _UNSEEN))

    def _key_term(self, key: Any) -> Any:
        # Keys are the rows here and queries the columns, for the time being also those
        # that the stride drops; distances fall along a row.
        columns = self._drift + 1
        table = self._table(self._layer.key_positions, columns, 1, is_reversed=True)
        term = _skew(_linear(key, table, transpose=True), 1, columns)
        if self._stride > 1:
            term = term[..., :: self._stride]
        return tf.transpose(term, (0, 1, 3, 2))

    def _retrieve(self, weights: Any, value: Any) -> Any:
        """Returns `[N, heads, rows, depth]`."""
        scales, shifts = self._layer.output_norm.moving_affine()
        terms = []
        if self._options.retrieve_value_content:
            terms.append(tf.matmul(weights, value))
        if self._options.retrieve_value_rpe:
            width = self._windows.width
            table = self._table(self._layer.value_positions, width, self._stride)
            weights = _unskew(weights, self._stride, int(table.shape[0]))
            term = _linear(weights, table)
            terms.append(term * tf.cast(scales[-1][:, None], term.dtype))
        out = functools.reduce(operator.add, terms)
        if self._is_softmax and self._options.retrieve_value_content:
            return out
        return out + tf.cast(tf.reduce_sum(shifts, 0)[:, None], out.dtype)

    def _merge(self, out: Any, x: Any) -> Any:
        """Turns `[N, heads, rows, depth]` into a map."""
        windows, layer = self._windows, self._layer
        rows, depth = out.shape[2:]
        fellows = layer.num_fellows
        out = tf.transpose(tf.reshape(out, (-1, fellows, rows, depth)), (0, 2, 1, 3))
        if windows.num_blocks > 1:
            out = tf.reshape(out, (-1, windows.num_blocks * rows, fellows, depth))
            out = out[:, : windows.num_queries]
        height, width = x.shape[1:3]
        if layer.axis == "height":
            height = windows.num_queries
        else:
            width = windows.num_queries
        return tf.reshape(out, (-1, height, width, layer.value_depth))

    def _table(
        self, positions: Any, columns: int, stride: int, *, is_reversed: bool = False
    ) -> Any:
        """Returns the vectors of all distances, `[period, depth]`, in skewed order.

        Rows beyond the last distance are zeros, see `_skew`.
        """
        windows = self._windows
        count = windows.width + self._drift
        distances = np.arange(count) - self._drift - windows.reach
        if is_reversed:
            distances = distances[::-1]
        scale = 1.0
        if self._layer.trained_length is not None and windows.length > 1:
            scale = (self._layer.trained_length - 1) / (windows.length - 1)
        table = positions.vectors(distances, scale)
        missing = columns + stride - count
        return tf.pad(table, ((0, missing), (0, 0))) if missing > 0 else table

    def _scaled(self, x: Any, scale: Any) -> Any:
        """Multiplies `[N, heads, L, depth]` with a number per head."""
        # One number per channel: XNNPACK (LiteRT 2.3) has a fast kernel for it.
        return x * tf.cast(tf.repeat(scale, x.shape[-1], axis=-1)[:, None], x.dtype)

    def _seen(self, x: Any, combine: Any, unseen: float) -> Any:
        """Combines `[N, heads, rows, width]` with what stands for unseen pairs."""
        windows = self._windows
        if windows.seen is None:
            return x
        pairs = windows.rows * windows.width
        seen = windows.seen.astype(np.float32).reshape(-1, 1, pairs)
        mask = tf.constant(seen if unseen == 0.0 else (1.0 - seen) * unseen, x.dtype)
        blocks = (-1, windows.num_blocks, self._layer.num_fellows, pairs)
        combined = combine(tf.reshape(x, blocks), mask)
        return tf.reshape(combined, (-1, self._heads, windows.rows, windows.width))


def _linear(x: Any, table: Any, *, transpose: bool = False) -> Any:
    """Multiplies the last axis of `[N, h, L, d]` with a table, a constant matrix."""
    return tf.matmul(x, tf.cast(table, x.dtype), transpose_b=transpose)


def _skew(x: Any, stride: int, width: int) -> Any:
    """Shifts every row of `[N, h, rows, period]` by `stride` against the one above.

    Returns:
        `y[..., i, m] = x[..., i, m + stride * (rows - 1 - i)]`, `[N, h, rows, width]`;
        `period` must be at least `width + stride` and `width + stride * (rows - 1)`.
    """
    heads, rows, period = x.shape[1:]
    first, shorter = stride * (rows - 1), period - stride
    # At least rank 3 throughout: GPU delegates slice and pad nothing flatter.
    x = tf.reshape(x, (-1, heads, rows * period))
    x = tf.slice(x, (0, 0, first), (-1, -1, rows * shorter))
    x = tf.reshape(x, (-1, heads, rows, shorter))
    return tf.slice(x, (0, 0, 0, 0), (-1, -1, -1, width))


def _unskew(x: Any, stride: int, period: int) -> Any:
    """Is the transpose of `_skew`: `[N, h, rows, width]` to `[N, h, rows, period]`.

    What has no source is zero.
    """
    heads, rows, width = x.shape[1:]
    shorter = period - stride
    x = tf.pad(x, ((0, 0), (0, 0), (0, 0), (0, shorter - width)))
    x = tf.reshape(x, (-1, heads, rows * shorter))
    x = tf.pad(x, ((0, 0), (0, 0), (stride * (rows - 1), stride)))
    return tf.reshape(x, (-1, heads, rows, period))
