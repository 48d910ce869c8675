"""Rewrites a network so that every layer is one op of an integer device.

Activations that are made of several ops, and those that hide inside a convolution,
become layers of their own. Order and names of the inputs of every layer stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.convert.qat.layers import FrozenBatchNormalization, Scale, Shift
from deeplab2_edge.errors import UsageError
from deeplab2_edge.layers.activations import HardSigmoid, HardSwish
from deeplab2_edge.layers.conv import AtrousConv2D
from deeplab2_edge.layers.dropout import DropPath, ReplayableDropout
from deeplab2_edge.layers.resize import ResizeBilinear
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")
tf_keras: Any = require("tf_keras", extra="qat")

Range = tuple[float, float]

PIXEL_RANGE = (0.0, 255.0)
# Of relu6, and of the heatmap behind it.
_GATE_RANGE = (0.0, 6.0)
_HEATMAP_RANGE = (0.0, 1.0)
# TFLite's LOGISTIC gives steps of 1/256 and nothing else.
_SIGMOID_RANGE = (0.0, 255 / 256)
# The rounded constant of `HardSigmoid`.
_HARD_SIGMOID_SLOPE = 0.16667

CONVOLUTIONS = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D)
# They give values that they were given, or means of them: scales pass through.
PASSING = (
    ResizeBilinear,
    DropPath,
    ReplayableDropout,
    tf_keras.layers.AveragePooling2D,
    tf_keras.layers.MaxPooling2D,
    tf_keras.layers.ZeroPadding2D,
)


@dataclass(frozen=True, eq=False)
class Expanded:
    """Is a float network of simple layers.

    Attributes:
        model: Gives the heads of the original, the center heatmap bounded to 0..1 as
            in every file with integer heads.
        fixed: Ranges known without images, by name of the layer.
    """

    model: Any
    fixed: Mapping[str, Range]


def expand(model: Any) -> Expanded:
    """Rewrites a network of `build_model`; weights are copied.

    Raises:
        UsageError: If it has a layer that this package cannot quantize.
    """
    return _Expansion(model).run()


@dataclass
class _Expansion:
    """Goes through a network from its input to its heads."""

    model: Any
    tensors: dict[int, Any] = field(default_factory=dict)
    fixed: dict[str, Range] = field(default_factory=dict)

    def run(self) -> Expanded:
        inputs = None
        # Keras lists the layers of a functional model by depth.
        for layer in self.model.layers:
            if isinstance(layer, tf_keras.layers.InputLayer):
                inputs = self._input(layer)
                continue
            try:
                before, after = layer.input, layer.output
            except AttributeError:
                raise _refusal(layer) from None
            x = tf.nest.map_structure(self._new, before)
            self.tensors[id(after)] = self._layer(layer, x)
        outputs = {name: self._new(out) for name, out in self.model.output.items()}
        if keys.CENTER_HEATMAP in outputs:
            heatmap = outputs[keys.CENTER_HEATMAP]
            outputs[keys.CENTER_HEATMAP] = self._bound(heatmap)
        network = tf_keras.Model(inputs, outputs, name=self.model.name)
        return Expanded(network, self.fixed)

    def _new(self, tensor: Any) -> Any:
        return self.tensors[id(tensor)]

    def _input(self, layer: Any) -> Any:
        tensor = tf_keras.Input(
            layer.output.shape[1:], batch_size=layer.output.shape[0], name=layer.name
        )
        name = f"{layer.name}/pixels"
        self.fixed[name] = PIXEL_RANGE
        pixels = tf_keras.layers.Activation("linear", name=name)(tensor)
        self.tensors[id(layer.output)] = pixels
        return tensor

    def _layer(self, layer: Any, x: Any) -> Any:
        for kind, make in self._makers().items():
            if type(layer) is kind:
                return make(layer, x)
        raise _refusal(layer)

    def _makers(self) -> dict[type, Callable[[Any, Any], Any]]:
        keras = tf_keras.layers
        copied = (
            *PASSING,
            keras.Add,
            keras.Concatenate,
            keras.GlobalAveragePooling2D,
            keras.Multiply,
            keras.ReLU,
        )
        return {kind: _copy for kind in copied} | {
            AtrousConv2D: self._convolution,
            HardSigmoid: self._hard_sigmoid,
            HardSwish: self._hard_swish,
            keras.BatchNormalization: _batch_norm,
            keras.Conv2D: self._convolution,
            keras.DepthwiseConv2D: self._convolution,
            keras.Rescaling: self._rescaling,
        }

    def _convolution(self, layer: Any, x: Any) -> Any:
        config = layer.get_config()
        activation = config["activation"]
        x = _copy(layer, x, activation="linear")
        name = f"{layer.name}/activation"
        if activation == "linear":
            return x
        if activation == "relu":
            return tf_keras.layers.ReLU(name=name)(x)
        if activation == "sigmoid":
            self.fixed[name] = _SIGMOID_RANGE
            return tf_keras.layers.Activation("sigmoid", name=name)(x)
        raise _refusal(layer)

    def _rescaling(self, layer: Any, x: Any) -> Any:
        """Takes pixels from 0..255 to about -1..1."""
        scale, name = f"{layer.name}/scale", layer.name
        low, high = (side * layer.scale for side in PIXEL_RANGE)
        self.fixed[scale] = (low, high)
        self.fixed[name] = (low + layer.offset, high + layer.offset)
        x = Scale(layer.scale, name=scale)(x)
        return Shift(layer.offset, name=name)(x)

    def _hard_swish(self, layer: Any, x: Any) -> Any:
        sixth = Scale(1 / 6, name=f"{layer.name}/sixth")(x)
        gate = self._gate(x, layer.name)
        return tf_keras.layers.Multiply(name=layer.name)([sixth, gate])

    def _hard_sigmoid(self, layer: Any, x: Any) -> Any:
        self.fixed[layer.name] = (0.0, 6 * _HARD_SIGMOID_SLOPE)
        return Scale(_HARD_SIGMOID_SLOPE, name=layer.name)(self._gate(x, layer.name))

    def _gate(self, x: Any, name: str) -> Any:
        x = Shift(3.0, name=f"{name}/shift")(x)
        return self._relu6(x, f"{name}/gate")

    def _relu6(self, x: Any, name: str) -> Any:
        self.fixed[name] = _GATE_RANGE
        return tf_keras.layers.ReLU(6.0, name=name)(x)

    def _bound(self, heatmap: Any) -> Any:
        """Clips to 0..1 in the ops of `export`, for the reasons given there."""
        name = keys.CENTER_HEATMAP
        x = Scale(6.0, name=f"{name}/scale")(heatmap)
        x = self._relu6(x, f"{name}/gate")
        self.fixed[name] = _HEATMAP_RANGE
        return Scale(1 / 6, name=name)(x)


def _copy(layer: Any, x: Any, **changes: Any) -> Any:
    """Calls a copy of a layer with the same weights."""
    copy = type(layer).from_config(layer.get_config() | changes)
    result = copy(x)
    copy.set_weights(layer.get_weights())
    return result


def _batch_norm(layer: Any, x: Any) -> Any:
    copy = FrozenBatchNormalization.from_config(layer.get_config())
    result = copy(x)
    copy.set_weights(layer.get_weights())
    return result


def _refusal(layer: Any) -> UsageError:
    return UsageError(
        f"--qat cannot quantize {layer.name} ({type(layer).__name__}); it supports "
        "semantic and panoptic models of convolutions (MobileNetV3, ResNet, "
        "Wide-ResNet); the nearest for this model is --quantize int8-mixed without "
        "--qat"
    )
