"""ViP-DeepLab: panoptic segmentation, depth and association of two frames.

The network takes the current and the next frame, 6 channels. One encoder looks at
both; everything but the next-frame branch depends on the current frame alone. A video
needs each frame's encoder, and each frame's own heads, once: see `TwoFrameInference`.

References:
    Qiao et al., ViP-DeepLab, CVPR 2021, arXiv:2012.05258.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import (
    ExperimentOptions,
    HeadOptions,
)
from deeplab2_edge.decoders.context import feature_of
from deeplab2_edge.decoders.panoptic import build_head
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.replay import current_draws, draws_of
from deeplab2_edge.layers.resize import ResizeBilinear
from deeplab2_edge.models.panoptic_deeplab import (
    instance_branch,
    instance_decoder,
    semantic_branch,
)
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")
tf_keras: Any = require("tf_keras", extra="train")

ENCODER = "encoder"
NORMALIZE = "normalize"


class FrameEncoder(tf_keras.Model):  # type: ignore[misc]
    """Encodes frames of a pair, each with random masks of its own."""

    def call(
        self, inputs: Any, training: Any = None, mask: Any = None, frame: int = 0
    ) -> Any:
        """Encodes frame number `frame` of the pair."""
        with draws_of((*current_draws(), frame)):
            return super().call(inputs, training=training, mask=mask)


def build_heads(
    features: Mapping[str, Any],
    next_features: Mapping[str, Any],
    config: ExperimentOptions,
    *,
    pool_size: Sequence[int] | None,
    defaults: LayerDefaults,
) -> dict[str, Any]:
    """Builds everything that follows the encoder.

    Args:
        features: Encoder endpoints of the current frame.
        next_features: Those of the next frame.
        config: The experiment.
        pool_size: Window of the ASPP pooling branch, see `decoders.context`.
        defaults: What all layers share.

    Returns:
        Raw heads: those of Panoptic-DeepLab for the current frame and, if configured,
        `depth_pred` `[B, 2h-1, 2w-1, 1]` in meters, and `next_offset_map`
        `[B, h, w, 2]`, (dy, dx) from a pixel of the next frame to the center of its
        instance in the current one.

    Raises:
        ConfigError: If a head is missing or the decoders cannot be built.
    """
    options = config.model_options.vip_deeplab
    assert options is not None
    decoder = config.model_options.decoder
    semantic_features, outputs = semantic_branch(
        features,
        decoder,
        options.low_level,
        options.semantic_head,
        pool_size=pool_size,
        defaults=defaults,
    )
    if options.depth_head is not None:
        outputs[keys.DEPTH_PRED] = _depth(
            semantic_features, options.depth_head, defaults
        )
    instance = options.instance
    if not instance.enable:
        return outputs
    _, instance_outputs = instance_branch(
        features,
        decoder,
        options.low_level,
        instance,
        pool_size=pool_size,
        defaults=defaults,
    )
    outputs |= instance_outputs
    if instance.next_regression_head is None:
        return outputs
    path = "next_instance_decoder"
    high_level = instance.instance_decoder_override or decoder
    frames = [feature_of(f, path, high_level) for f in (features, next_features)]
    next_instance_features = instance_decoder(
        {
            # Skips come from the next frame, what they refine from both.
            **next_features,
            high_level.feature_key: tf_keras.layers.Concatenate(
                name=f"{path}/_concat_frames"
            )(frames),
        },
        path,
        decoder,
        options.low_level,
        instance,
        pool_size=pool_size,
        defaults=defaults,
    )
    outputs[keys.NEXT_OFFSET_MAP] = build_head(
        next_instance_features,
        "next_instance_regression_head_without_last_layer",
        instance.next_regression_head,
        last_path="next_instance_regression_head_last_layer",
        defaults=defaults,
    )
    return outputs


class TwoFrameInference:
    """Runs a ViP-DeepLab on frame pairs without doing anything twice.

    The network on (current, next) and on (next, current) shares both encoder runs; on
    a video, the next pair also shares a frame with this one:

        inference = TwoFrameInference(model, config)
        features = inference.encode(first_frame)
        heads = inference.own_heads(features)
        for frame in other_frames:
            next_features = inference.encode(frame)
            heads_of_next = inference.own_heads(next_features)
            offsets = inference.next_heads(features, next_features)
            ...  # join the two frames
            features, heads = next_features, heads_of_next

    Args:
        model: A ViP-DeepLab of `build_model`.
        config: Its experiment.

    Attributes:
        carried: The endpoints of a frame that the heads of the next one read.
    """

    def __init__(self, model: Any, config: ExperimentOptions) -> None:
        encoder, normalize = model.get_layer(ENCODER), model.get_layer(NORMALIZE)
        # Endpoints of the first call are the current frame's, see `build_model`.
        current, following = (encoder.get_output_at(call) for call in (0, 1))
        own, from_current, from_next = _endpoints_read(config)
        self._read = own | from_current | from_next
        self.carried = tuple(sorted(from_current))
        heads = dict(model.output)
        offsets = heads.pop(keys.NEXT_OFFSET_MAP, None)
        self._encode = tf.function(
            lambda frame: _only(encoder(normalize(frame), training=False), self._read)
        )
        self._own_heads = _OfFeatures([(current, own)], heads)
        self._next_heads = None
        if offsets is not None:
            self._next_heads = _OfFeatures(
                [(current, from_current), (following, from_next)],
                {keys.NEXT_OFFSET_MAP: offsets},
            )

    def encode(self, frame: Any) -> dict[str, Any]:
        """Runs the encoder on float32 `[B, H, W, 3]`, RGB in 0..255.

        Returns:
            The endpoints that the decoders read.
        """
        endpoints: dict[str, Any] = self._encode(frame)
        return endpoints

    def own_heads(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the raw heads of a frame: all but `next_offset_map`."""
        return self._own_heads(features)

    def next_heads(
        self, features: Mapping[str, Any], next_features: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns `next_offset_map` of a frame pair, nothing if the model has none."""
        if self._next_heads is None:
            return {}
        return self._next_heads(features, next_features)

    def __call__(
        self, frame: Any, next_frame: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Runs the network on a pair in both orders.

        Args:
            frame: float32 `[B, H, W, 3]`, RGB in 0..255.
            next_frame: Likewise.

        Returns:
            The raw heads of (frame, next_frame) and those of (next_frame, frame).
        """
        one, two = self.encode(frame), self.encode(next_frame)
        return (
            {**self.own_heads(one), **self.next_heads(one, two)},
            {**self.own_heads(two), **self.next_heads(two, one)},
        )


class _OfFeatures:
    """Is the part of a network between encoder endpoints and some heads.

    Keras wants exactly the endpoints that the heads depend on.
    """

    def __init__(
        self, frames: Sequence[tuple[Mapping[str, Any], set[str]]], heads: Any
    ) -> None:
        self._names = [names for _, names in frames]
        network = tf_keras.Model([_only(x, names) for x, names in frames], heads)
        self._network = tf.function(lambda x: network(x, training=False))

    def __call__(self, *frames: Mapping[str, Any]) -> dict[str, Any]:
        features = zip(frames, self._names, strict=True)
        heads: dict[str, Any] = self._network([_only(x, n) for x, n in features])
        return heads


def _only(features: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: features[name] for name in sorted(names)}


def _endpoints_read(config: ExperimentOptions) -> tuple[set[str], set[str], set[str]]:
    """Names the endpoints a frame's own heads read, and of a pair the next branch."""
    options, shared = config.model_options.vip_deeplab, config.model_options.decoder
    assert options is not None
    own = {shared.feature_key} | {low.feature_key for low in options.low_level}
    if not options.instance.enable:
        return own, set(), set()
    high = (options.instance.instance_decoder_override or shared).feature_key
    low_levels = options.instance.low_level_override or options.low_level
    of_next = {high} | {low.feature_key for low in low_levels}
    return own | of_next, {high}, of_next


def _depth(x: Any, options: HeadOptions, defaults: LayerDefaults) -> Any:
    """Predicts depth in meters at twice the resolution of the decoder."""
    size = [2 * side - 1 for side in x.shape[1:3]]
    logits = build_head(
        ResizeBilinear(size, defaults.resize, name="depth_head/_resize")(x),
        "depth_head_without_last_layer",
        options,
        last_path="depth_head_last_layer",
        defaults=defaults,
    )
    low, high = options.min_value_after_activation, options.max_value_after_activation
    # Half precision cannot tell 80 m from 80.05 m.
    share = tf_keras.layers.Activation(
        "sigmoid", dtype="float32", name="depth_head/_sigmoid"
    )(logits)
    return tf_keras.layers.Rescaling(
        high - low, offset=low, dtype="float32", name="depth_head/_range"
    )(share)
