"""A network as its users see it: named inputs, and the heads that results are made of.

For training a network takes one tensor. In use, what it needs of the past are inputs
of their own: Motion-DeepLab takes the previous frame and a drawing of its centers, and
ViP-DeepLab takes the features of the previous frame, which it gave together with that
frame's heads. So every frame of a video goes through the encoder once, and every model
is one function from arrays to arrays: `engine` runs it, `convert` exports it.
"""

from collections.abc import Mapping
from typing import Any

from deeplab2_edge import families, keys
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.families import family_of
from deeplab2_edge.models.vip_deeplab import ENCODER, TwoFrameInference
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

_RGB = 3


class InferenceNetwork:
    """Is the part of a model that inference needs, for one image at a time.

    Args:
        model: A model of `build_model` with `batch_size=1`.
        config: Its experiment.

    Attributes:
        family: One of `families.FAMILIES`.
        model: As given.
        inputs: `tf.TensorSpec` of each input by name, with the batch of one: `image`,
            uint8 RGB. Of Motion-DeepLab also `previous_image`, the same, and
            `previous_heatmap`, float32 `[1, H, W, 1]` in 0..1. Of ViP-DeepLab also
            `previous_features_*`, float32: the `features_*` that it gave for the
            previous frame; zeros for the first frame of a video.
        outputs: Shape of each head by name, without batch.

    Raises:
        ConfigError: As `families.abilities_of`.
    """

    def __init__(self, model: Any, config: ExperimentOptions) -> None:
        self.model = model
        self.family = family_of(config)
        self._pair: TwoFrameInference | None = None
        shape = (1, *model.input_shape[1:3])
        self.inputs = {keys.IMAGE: _pixels(keys.IMAGE, shape)}
        if self.family == families.MOTION:
            self.inputs |= {
                keys.PREVIOUS_IMAGE: _pixels(keys.PREVIOUS_IMAGE, shape),
                keys.PREVIOUS_HEATMAP: tf.TensorSpec(
                    (*shape, 1), tf.float32, keys.PREVIOUS_HEATMAP
                ),
            }
        elif self.family == families.TWO_FRAMES:
            self._pair = TwoFrameInference(model, config)
            endpoints = model.get_layer(ENCODER).get_output_at(0)
            for name in self._pair.carried:
                key = keys.PREVIOUS_FEATURES + name
                sides = (1, *endpoints[name].shape[1:])
                self.inputs[key] = tf.TensorSpec(sides, tf.float32, key)

        self.outputs = self._output_shapes()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the network; traceable.

        Args:
            inputs: Tensors as `inputs` describes them; pixels may be float32 as well.

        Returns:
            Raw heads `[1, h, w, C]` by the names in `keys`: those of `families.HEADS`
            and, of ViP-DeepLab, `features_*` and perhaps `depth_pred`. Its
            `next_offset_map` leads from pixels of this frame to the previous one.
        """
        image = tf.cast(inputs[keys.IMAGE], tf.float32)
        if self._pair is not None:
            return self._with_features(self._pair, image, inputs)
        if self.family == families.MOTION:
            previous = tf.cast(inputs[keys.PREVIOUS_IMAGE], tf.float32)
            image = tf.concat([image, previous, inputs[keys.PREVIOUS_HEATMAP]], -1)
        outputs = self.model(image, training=False)
        return {name: outputs[name] for name in families.HEADS[self.family]}

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        names: tuple[str, ...] = families.HEADS[self.family]
        if keys.DEPTH_PRED in self.model.output:
            names += (keys.DEPTH_PRED,)
        shapes = {n: tuple(map(int, self.model.output[n].shape[1:])) for n in names}
        for name, spec in self.inputs.items():
            if name.startswith(keys.PREVIOUS_FEATURES):
                endpoint = name.removeprefix(keys.PREVIOUS_FEATURES)
                shapes[keys.FEATURES + endpoint] = tuple(map(int, spec.shape[1:]))
        return shapes

    @staticmethod
    def _with_features(
        pair: TwoFrameInference, image: Any, inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        features = pair.encode(image)
        previous = {n: inputs[keys.PREVIOUS_FEATURES + n] for n in pair.carried}
        return {
            **pair.own_heads(features),
            **pair.next_heads(previous, features),
            **{keys.FEATURES + name: features[name] for name in pair.carried},
        }


def _pixels(name: str, shape: tuple[int, int, int]) -> Any:
    return tf.TensorSpec((*shape, _RGB), tf.uint8, name)
