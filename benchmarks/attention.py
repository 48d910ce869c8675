"""Is axial attention as fast as it could be?

Runs one 2-D axial attention layer in three forms, in turn (A B C A B C ...) so that a
drifting machine hits all alike:

* `layer`: what the models use, `deeplab2_edge.layers.axial_attention`;
* `skew`: the same, but with the terms of relative positions from a product with all
  `2 L - 1` distances, shifted row by row through padding and reshaping;
* `einsum`: the plain formulation: stack the terms, normalize the stack, add.

Measures inference and one training step (outputs, gradients, moving statistics), checks
that all forms agree, and writes one JSON. Ratios are medians of the ratios of a round.

    python -m benchmarks.attention [--rounds 7] [--output FILE.json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.files import atomic_write
from deeplab2_edge.layers import axial_attention as layer
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.machine import describe_machine

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

# Feature maps of 513x1025 and 1025x2049 images at output stride 16.
SIZES = ((33, 65), (65, 129))
# MaX-DeepLab-S: input channels and filters.
WIDTHS = {"stage4": (512, 256), "stage5": (1024, 512)}
_PATH = "attention"
_OPTIONS = layer.AttentionOptions()
_DEFAULTS = LayerDefaults()
_TOLERANCE = 1e-3
_DEFAULT_OUTPUT = Path(__file__).parent / "results" / "attention.json"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT)
    args = parser.parse_args()
    rows = []
    for size in SIZES:
        for name, (channels, filters) in WIDTHS.items():
            for row in _measure(size, channels, filters, args.rounds):
                rows.append({"map": f"{size[0]}x{size[1]}", "width": name, **row})
                print(json.dumps(rows[-1]), flush=True)
    document = {
        "command": "python -m benchmarks.attention",
        "rounds": args.rounds,
        "batch": 1,
        "tensorflow": tf.__version__,
        "machine": describe_machine(),
        "rows": rows,
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{args.output} written")


class EinsumAttention(layer.AxisAttention):
    """Is the equations, written down: rank 5, every pair looked up, nothing folded."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.similarity_norm = _stacked_norm(self.similarity_norm, [0, 2])
        self.output_norm = _stacked_norm(self.output_norm, [0, 2, 4])

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = tf.transpose(inputs, (0, 2, 1, 3)) if self.axis == "height" else inputs
        others, length, channels = x.shape[1:]
        heads = self.options.num_heads
        x = tf.reshape(x, (-1, length, channels))
        x = self.qkv_norm(tf.matmul(x, self.qkv_kernel), training=training)
        query, key, value = (
            tf.transpose(
                tf.reshape(t, (-1, length, heads, t.shape[-1] // heads)), (0, 2, 1, 3)
            )
            for t in tf.split(x, [self.key_depth, self.key_depth, self.value_depth], -1)
        )
        place = np.arange(length)
        index = place[None, :] - place[:, None] + 254
        query_rows, key_rows, value_rows = (
            tf.gather(table.embeddings, index)
            for table in (
                self.query_positions,
                self.key_positions,
                self.value_positions,
            )
        )
        logits = tf.stack(
            [
                tf.einsum("nhld,nhmd->nhlm", query, key),
                tf.einsum("nhld,lmd->nhlm", query, query_rows),
                tf.einsum("nhmd,lmd->nhlm", key, key_rows),
            ]
        )
        logits = self.similarity_norm(logits, training=training)
        weights = tf.nn.softmax(tf.reduce_sum(logits, axis=0))
        out = tf.stack(
            [
                tf.einsum("nhlm,nhmd->nhld", weights, value),
                tf.einsum("nhlm,lmd->nhld", weights, value_rows),
            ]
        )
        out = tf.reduce_sum(self.output_norm(out, training=training), axis=0)
        out = tf.transpose(out, (0, 2, 1, 3))
        out = tf.reshape(out, (-1, others, length, self.value_depth))
        if self.axis == "height":
            out = tf.transpose(out, (0, 2, 1, 3))
            return out[:, :: self.stride]
        return out[:, :, :: self.stride]


def _stacked_norm(norm: Any, axis: list[int]) -> Any:
    """Makes Keras' own normalization of a stack, to take the place of `norm`."""
    stacked = tf_keras.layers.BatchNormalization(
        axis=axis, momentum=norm.momentum, epsilon=norm.epsilon, name=norm.name
    )
    stacked.build((norm.num_terms, None, norm.num_heads, None, norm.depth))
    return stacked


class SkewAttention(layer.AxisAttention):
    """Takes relative terms from a product with all distances, shifted row by row."""

    def _logits(self, query: Any, key: Any, scale: Any, windows: Any) -> list[Any]:
        length, heads = windows.length, self.options.num_heads
        content, by_query, by_key = (None,) * 3 if scale is None else tf.unstack(scale)

        def scaled(x: Any, factor: Any) -> Any:
            x = tf.reshape(
                _sequences(self, x), (-1, heads, length, x.shape[-1] // heads)
            )
            x = x if scale is None else x * factor[:, None]
            return tf.reshape(x, (-1, length, x.shape[-1]))

        def term(x: Any, rows: Any) -> Any:
            flat = tf.reshape(x, (-1, x.shape[-1]))
            flat = tf.matmul(flat, rows, transpose_b=True)
            return skew(tf.reshape(flat, (-1, length, 2 * length)), length)

        return [
            tf.matmul(scaled(query, content), _sequences(self, key), transpose_b=True),
            term(scaled(query, by_query), _rows(self.query_positions, length)),
            tf.transpose(
                term(scaled(key, by_key), _rows(self.key_positions, length, -1)),
                (0, 2, 1),
            ),
        ]

    def _retrieve(self, weights: Any, value: Any, windows: Any) -> list[Any]:
        length = windows.length
        by_distance = tf.reshape(unskew(weights, length), (-1, 2 * length))
        rows = _rows(self.value_positions, length)
        shape = (-1, self._num_fellows, length, rows.shape[-1])
        return [
            tf.transpose(tf.reshape(term, shape), (0, 2, 1, 3))
            for term in (
                tf.matmul(weights, _sequences(self, value)),
                tf.matmul(by_distance, rows),
            )
        ]


def skew(x: Any, length: int) -> Any:
    """Turns columns that count distances into columns that count keys.

    Args:
        x: `[X, L, 2 L]`, the last column unused.
        length: `L`.

    Returns:
        `[X, L, L]`: `y[..., l, m] = x[..., l, m - l + L - 1]`. Read with rows one
        shorter, every row of `x` starts one later.
    """
    x = tf.reshape(x, (-1, 2 * length * length))
    x = x[:, length - 1 : length - 1 + length * (2 * length - 1)]
    return tf.reshape(x, (-1, length, 2 * length - 1))[..., :length]


def unskew(x: Any, length: int) -> Any:
    """Is the transpose of `skew`, `[X, L, L]` to `[X, L, 2 L]`."""
    x = tf.pad(x, ((0, 0), (0, 0), (0, length - 1)))
    x = tf.reshape(x, (-1, length * (2 * length - 1)))
    x = tf.pad(x, ((0, 0), (length - 1, 1)))
    return tf.reshape(x, (-1, length, 2 * length))


def _sequences(attention: Any, x: Any) -> Any:
    return layer._by_sequence(attention._along_axis(x))


def _rows(table: Any, length: int, step: int = 1) -> Any:
    rows = table.embeddings[254 - length + 1 : 254 + length]
    return tf.pad(rows[::step], ((0, 1), (0, 0)))


FORMS = {
    "layer": layer.AxisAttention,
    "skew": SkewAttention,
    "einsum": EinsumAttention,
}


def build(form: str, size: tuple[int, int], channels: int, filters: int) -> Any:
    """Builds a model of one 2-D layer with weights that are the same in all forms."""
    image = x = tf_keras.Input((*size, channels), batch_size=1)
    for axis in ("height", "width"):
        x = FORMS[form](
            axis,
            filters,
            2 * filters,
            options=_OPTIONS,
            defaults=_DEFAULTS,
            name=f"{_PATH}/_{axis}_axis",
        )(x)
    model = tf_keras.Model(image, x)
    rng = np.random.default_rng(0)
    for path, variable in sorted(variable_paths(model).items()):
        value = 0.1 * rng.standard_normal(variable.shape)
        if path.endswith(("gamma", "variance")):
            value = 1 + np.abs(value)
        elif path.endswith("kernel"):
            value *= 10 * channels**-0.5
        variable.assign(value)
    return model


def _measure(
    size: tuple[int, int], channels: int, filters: int, rounds: int
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    x = tf.constant(rng.standard_normal((1, *size, channels)), tf.float32)
    target = tf.constant(rng.standard_normal((1, *size, 2 * filters)), tf.float32)
    models = {form: build(form, size, channels, filters) for form in FORMS}
    rows = []
    for task, make in (("inference", _inference), ("training step", _training_step)):
        calls = {form: make(model, x, target) for form, model in models.items()}
        results = {
            form: [np.asarray(t) for t in call()] for form, call in calls.items()
        }
        plain = results["einsum"]
        # Some gradients are 0 but for rounding, for example those of shifts that a
        # later normalization removes.
        floor = 0.01 * max(tensor.std() for tensor in plain)
        difference = max(
            float(np.abs(mine - other).max() / max(other.std(), floor))
            for form in ("layer", "skew")
            for mine, other in zip(results[form], plain, strict=True)
        )
        if difference > _TOLERANCE:
            raise SystemExit(f"{task} at {size}: the forms differ by {difference:.1e}")
        seconds = _interleave(calls, rounds)
        rows.append(
            {
                "task": task,
                "median_ms": {
                    form: round(1e3 * statistics.median(times), 2)
                    for form, times in seconds.items()
                },
                "ratio_to_einsum": {
                    form: round(
                        statistics.median(
                            mine / plain
                            for mine, plain in zip(
                                times, seconds["einsum"], strict=True
                            )
                        ),
                        3,
                    )
                    for form, times in seconds.items()
                },
                "max_difference": difference,
            }
        )
    return rows


def _inference(model: Any, x: Any, target: Any) -> Callable[[], list[Any]]:
    function = tf.function(lambda: model(x, training=False))
    return lambda: [function()]


def _training_step(model: Any, x: Any, target: Any) -> Callable[[], list[Any]]:
    paths = sorted(variable_paths(model).items())
    variables = [variable for _, variable in paths if variable.trainable]

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = model(x, training=True)
            loss = tf.reduce_sum(out * target)
        gradients = tape.gradient(loss, [x, *variables])
        return [out, *(tf.convert_to_tensor(gradient) for gradient in gradients)]

    return step  # type: ignore[no-any-return]


def _interleave(
    calls: dict[str, Callable[[], list[Any]]], rounds: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {form: [] for form in calls}
    for _ in range(rounds):
        for form, call in calls.items():
            start = time.perf_counter()
            np.asarray(call()[0])
            seconds[form].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
