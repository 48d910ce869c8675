"""The dual-path transformer as devices run it: few ops, constants folded.

It has the variables of `dual_path.dual_path_transformer`, under the same names, and
gives the same values. The normalization of logits scales queries, and its shift, which
all keys of a query share, changes no softmax; the normalization of what is retrieved
scales and shifts values, because the weights of a query add up to 1. All four are
folded into projections. Memory values, which both attentions read, come in two
versions, since each attention normalizes what it retrieves by itself.

With sigmoid weights shifts are added instead.
"""

import dataclasses
from typing import Any

from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.dual_path_options import DualPathOptions
from deeplab2_edge.layers.folding import Linear, affine, joined, normalized
from deeplab2_edge.layers.normalization import batch_norm
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")


class FoldedDualPath(tf_keras.layers.Layer):  # type: ignore[misc]
    """Lets memory look at pixels and memory, and pixels at the memory of before.

    Inputs are pixels `[B, H, W, Cp]` and memory `[B, N, Cm]`; so are the outputs.

    Args:
        channels: Base width, see `dual_path_transformer`.
        options: Widths, heads and which attentions there are.
        defaults: What all layers share.
    """

    def __init__(
        self,
        channels: int,
        options: DualPathOptions,
        defaults: LayerDefaults,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.options = options
        self.defaults = defaults
        self.key_depth = round(channels * options.key_expansion)
        self.value_depth = round(channels * options.value_expansion)

    def build(self, input_shape: Any) -> None:
        options = self.options
        pixel_channels, memory_channels = (int(shape[-1]) for shape in input_shape)
        bottleneck = round(self.channels * options.bottleneck_expansion)
        inner = options.feed_forward_network_channels
        feedback = options.use_pixel2memory_feedback_attention
        sizes = {"q": self.key_depth, "k": self.key_depth, "v": self.value_depth}
        memory_parts = "qkv" if feedback or options.use_memory_self_attention else "q"
        self._parts = {"memory": memory_parts, "pixel": "qkv" if feedback else "kv"}
        widths = {
            kind: sum(sizes[part] for part in parts)
            for kind, parts in self._parts.items()
        }
        shapes = {
            "_memory_conv1_bn_act": (memory_channels, bottleneck),
            "_memory_qkv_conv_bn": (bottleneck, widths["memory"]),
            "_pixel_conv1_bn_act": (pixel_channels, bottleneck),
            "_pixel_qkv_conv_bn": (bottleneck, widths["pixel"]),
            "_memory_conv3_bn": (self.value_depth, memory_channels),
            "_memory_ffn_conv1_bn_act": (memory_channels, inner),
            "_memory_ffn_conv2_bn": (inner, memory_channels),
        }
        if feedback:
            shapes["_pixel_conv3_bn"] = (self.value_depth, pixel_channels)
        self._convs = {
            edge: self._conv_and_norm(edge, *shape) for edge, shape in shapes.items()
        }
        kinds = ("memory", "pixel") if feedback else ("memory",)
        self._attention_norms = {kind: self._norms_of(kind) for kind in kinds}
        super().build(input_shape)

    # There is nothing to convert, and looking for it takes longer than the trace.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training:
            raise ValueError(
                f"{self.name} is folded, for inference only; build the model with "
                "axial='einsum' to train it"
            )
        pixels, memory = inputs
        height, width, _ = pixels.shape[1:]
        slots = memory.shape[1]
        feedback = self.options.use_pixel2memory_feedback_attention
        of_memory = self._project(memory, "memory", slots)
        of_pixels = self._project(tf.nn.relu(pixels), "pixel", height * width)
        keys, values = of_pixels["k"], of_pixels["v"]
        if self.options.use_memory_self_attention:
            # One softmax over pixels and memory together; pixels come first.
            keys = tf.concat([keys, of_memory["k"]], axis=2)
            values = tf.concat([values, of_memory["v"]], axis=2)
        retrieved = self._attend("memory", of_memory["q"], keys, values)
        new_memory = self._update_memory(memory, retrieved)
        if not feedback:
            return pixels, new_memory
        retrieved = self._attend(
            "pixel", of_pixels["q"], of_memory["k"], of_memory["v_for_pixels"]
        )
        update = _apply(self._linear("_pixel_conv3_bn"), retrieved)
        return pixels + tf.reshape(update, (-1, *pixels.shape[1:])), new_memory

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channels": self.channels,
            "options": dataclasses.asdict(self.options),
            "defaults": dataclasses.asdict(self.defaults),
        }

    def _conv_and_norm(self, edge: str, inputs: int, outputs: int) -> tuple[Any, Any]:
        path = f"{self.name}/{edge}"
        conv = tf_keras.layers.Conv1D(outputs, 1, use_bias=False, name=f"{path}/_conv")
        conv.build((None, None, inputs))
        norm = batch_norm(f"{path}/_batch_norm", self.defaults)
        norm.build((None, None, outputs))
        return conv, norm

    def _norms_of(self, kind: str) -> tuple[Any, Any]:
        path, heads = f"{self.name}/_{kind}_attention", self.options.num_heads
        similarity = batch_norm(f"{path}/_batch_norm_similarity", self.defaults, axis=1)
        similarity.build((None, heads, None))
        retrieved = batch_norm(
            f"{path}/_batch_norm_retrieved_value", self.defaults, axis=(1, 3)
        )
        retrieved.build((None, heads, None, self.value_depth // heads))
        return similarity, retrieved

    def _linear(self, edge: str) -> Linear:
        conv, norm = self._convs[edge]
        return normalized(conv.kernel[0], norm)

    def _project(self, x: Any, kind: str, length: int) -> dict[str, Any]:
        """Returns `[B, heads, L, depth]` by `"q"`, `"k"`, `"v"`, `"v_for_pixels"`."""
        heads, names = self.options.num_heads, self._parts[kind]
        depths = {"q": self.key_depth, "k": self.key_depth, "v": self.value_depth}
        pieces = self._linear(f"_{kind}_qkv_conv_bn").split([depths[n] for n in names])
        parts = dict(
            zip(names, (piece.in_heads(heads) for piece in pieces), strict=True)
        )
        if "q" in parts:
            similarity, _ = self._attention_norms[kind]
            parts["q"] = parts["q"].scaled(affine(similarity)[0][:, None])
        if kind == "memory" and "pixel" in self._attention_norms:
            parts["v_for_pixels"] = self._retrievable("pixel", parts["v"])
        if "v" in parts:
            parts["v"] = self._retrievable("memory", parts["v"])
        if kind == "memory" and not self.options.use_memory_self_attention:
            parts.pop("v", None)
        x = tf.nn.relu(_apply(self._linear(f"_{kind}_conv1_bn_act"), x))
        sizes = [int(part.bias.shape[-1]) for part in parts.values()]
        x = _apply(joined(list(parts.values())), x)
        x = tf.transpose(tf.reshape(x, (-1, length, heads, sum(sizes))), (0, 2, 1, 3))
        return dict(zip(parts, tf.split(x, sizes, axis=-1), strict=True))

    def _retrievable(self, kind: str, value: Linear) -> Linear:
        """Normalizes values for an attention before it retrieves them."""
        scale, shift = self._retrieved_affine(kind)
        value = value.scaled(scale)
        return value.shifted(shift) if self._is_softmax else value

    def _retrieved_affine(self, kind: str) -> tuple[Any, Any]:
        scale, shift = affine(self._attention_norms[kind][1])
        return scale[0, :, 0], shift[0, :, 0]

    @property
    def _is_softmax(self) -> bool:
        return bool(self.options.transformer_activation == "softmax")

    def _attend(self, kind: str, queries: Any, keys: Any, values: Any) -> Any:
        """Gives each query the mean of values, activated: `[B L, value depth]`."""
        logits = tf.matmul(queries, keys, transpose_b=True)
        if self._is_softmax:
            x = tf.matmul(tf.nn.softmax(logits), values)
        else:
            _, shift = affine(self._attention_norms[kind][0])
            x = tf.matmul(tf.sigmoid(logits + shift[:, None, None]), values)
            x += self._retrieved_affine(kind)[1][:, None]
        x = tf.transpose(tf.nn.relu(x), (0, 2, 1, 3))
        return tf.reshape(x, (-1, self.value_depth))

    def _update_memory(self, memory: Any, retrieved: Any) -> Any:
        x = _apply(self._linear("_memory_conv3_bn"), retrieved)
        attended = tf.nn.relu(memory + tf.reshape(x, (-1, *memory.shape[1:])))
        x = tf.nn.relu(_apply(self._linear("_memory_ffn_conv1_bn_act"), attended))
        x = _apply(self._linear("_memory_ffn_conv2_bn"), x)
        return tf.nn.relu(attended + tf.reshape(x, (-1, *memory.shape[1:])))


def _apply(linear: Linear, x: Any) -> Any:
    """Maps every vector on the last axis of `x`, `[..., C]` to `[all, outputs]`."""
    channels = linear.kernel.shape[0]
    kernel = tf.reshape(linear.kernel, (channels, -1))
    flat = tf.reshape(x, (-1, channels))
    return tf.matmul(flat, kernel) + tf.reshape(linear.bias, (-1,))
