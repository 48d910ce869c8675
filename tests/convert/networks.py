"""Networks of every family, small enough to convert in seconds.

They have every kind of part of the published ones, once or twice each, and weights
from a formula.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.backbones import max_deeplab, resnet
from deeplab2_edge.config import ExperimentOptions, parse_config
from deeplab2_edge.convert.export import ExportedGraph, export_graph
from deeplab2_edge.convert.forms import Forms
from deeplab2_edge.layers.dual_path_options import DualPathOptions
from deeplab2_edge.models import build_model
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.optional import require
from tests.convert.tiny import fill, tiny_backbone
from tests.models.synthetic_weights import image

tf: Any = require("tensorflow", extra="convert")

SIZE = (33, 65)
Array = NDArray[Any]

_BACKBONES = {
    "mobilenet": 'name: "mobilenet_v3_small" use_squeeze_and_excite: true',
    "resnet": 'name: "resnet50_beta"',
    "sac": 'name: "swidernet" use_sac_beyond_stride: 32',
    "wide_axial": 'name: "axial_swidernet"',
    "axial": 'name: "axial_resnet_s"',
    "max": 'name: "max_deeplab_s"',
}
_MODEL = """
model_options {{
  backbone {{
    {backbone} output_stride: 16
    stem_width_multiplier: 0.125 backbone_width_multiplier: 0.125
  }}
  decoder {{
    feature_key: "{feature}" decoder_channels: 8 aspp_channels: 8
    atrous_rates: 1 atrous_rates: 2 atrous_rates: 3
  }}
  {head}
}}
train_dataset_options {{
  dataset: "synthetic_street" crop_size: 33 crop_size: {crop_width}
}}
eval_dataset_options {{
  dataset: "synthetic_street" crop_size: 33 crop_size: 65
}}
"""
_LOW_LEVELS = """
low_level { feature_key: "res3" channels_project: 4 }
low_level { feature_key: "res2" channels_project: 4 }
"""
_PANOPTIC = (
    _LOW_LEVELS
    + """
semantic_head { output_channels: 11 head_channels: 8 }
instance {
  center_head { output_channels: 1 head_channels: 4 }
  regression_head { output_channels: 2 head_channels: 4 }
  %s
}
"""
)
_NEXT = "next_regression_head { output_channels: 2 head_channels: 4 }"
_DEPTH = """
depth_head {
  output_channels: 1 head_channels: 4
  min_value_after_activation: 0 max_value_after_activation: 80
}
"""
_HEADS = {
    "deeplab_v3": "deeplab_v3 { num_classes: 11 }",
    "deeplab_v3_plus": (
        'deeplab_v3_plus { low_level { feature_key: "res2" channels_project: 4 } '
        "num_classes: 11 }"
    ),
    "panoptic_deeplab": f"panoptic_deeplab {{ {_PANOPTIC % ''} }}",
    "motion_deeplab": (
        "motion_deeplab { motion_head { output_channels: 2 head_channels: 4 } "
        f"{_PANOPTIC % ''} }}"
    ),
    "vip_deeplab": f"vip_deeplab {{ {_DEPTH} {_PANOPTIC % _NEXT} }}",
    "max_deeplab": """
      max_deeplab {
        pixel_space_head { output_channels: 16 head_channels: 8 }
        auxiliary_low_level { feature_key: "res3" channels_project: 4 }
        auxiliary_low_level { feature_key: "res2" channels_project: 4 }
        auxiliary_semantic_head { output_channels: 11 head_channels: 8 }
      }
    """,
}


def experiment(
    architecture: str, backbone: str = "mobilenet", *, crop_width: int = 65
) -> ExperimentOptions:
    """Returns a small experiment.

    Args:
        architecture: Name of the meta-architecture.
        backbone: `mobilenet`, `resnet`, `sac`, `wide_axial`, `axial` or `max`.
        crop_width: Of the training crop; less than 65 makes the ASPP pool a window.
    """
    text = _MODEL.format(
        backbone=_BACKBONES[backbone],
        feature="feature_semantic" if backbone == "max" else "res5",
        head=_HEADS[architecture],
        crop_width=crop_width,
    )
    return parse_config(text, source="test")


@contextlib.contextmanager
def small_backbones() -> Iterator[None]:
    """Gives all backbones one or two blocks per stage for a while."""
    deep = {
        name: dataclasses.replace(
            preset,
            num_blocks=(1, 1, 1, 1),
            # Attention in stages 4, where it strides, and 5.
            use_axial_beyond_stride=min(preset.use_axial_beyond_stride, 1) * 8,
        )
        for name, preset in resnet.PRESETS.items()
    }
    preset = max_deeplab.PRESETS["max_deeplab_s"]
    group = dataclasses.replace(
        preset.backbone.group,
        transformer=DualPathOptions(feed_forward_network_channels=32),
    )
    small_max = dataclasses.replace(
        preset,
        backbone=dataclasses.replace(
            preset.backbone, num_blocks=(1, 1, 1, 1), group=group
        ),
        memory_slots=16,
        memory_channels=32,
        feature_channels=32,
    )
    with tiny_backbone(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "PRESETS", deep)
        patch.setattr(
            max_deeplab, "PRESETS", {**max_deeplab.PRESETS, "max_deeplab_s": small_max}
        )
        # Groups behind the backbone have their published width in every network.
        patch.setattr(max_deeplab, "compile_blocks", _narrow_blocks)
        yield


def _narrow_blocks(
    preset: Any, options: Any, filters: int, *args: Any, **kwargs: Any
) -> Any:
    return resnet.compile_blocks(preset, options, filters // 8, *args, **kwargs)


def build(config: ExperimentOptions, forms: Forms | None = None) -> Any:
    """Builds a model with its weights, by default in the form that is trained."""
    options = (forms or Forms()).build_options()
    with small_backbones():
        model = build_model(config, input_size=SIZE, batch_size=1, **options)
    fill(model)
    return model


def inputs_of(network: InferenceNetwork) -> dict[str, Array]:
    """Draws inputs of a network, with their batch of one."""
    generator = np.random.default_rng(5)
    inputs: dict[str, Array] = {}
    for name, spec in network.inputs.items():
        shape = tuple(spec.shape)
        if spec.dtype == tf.uint8:
            pixels = image(shape).astype(np.uint8)
            inputs[name] = pixels if name == keys.IMAGE else pixels[:, ::-1]
        else:
            inputs[name] = generator.random(shape, np.float32)
    return inputs


def expected_heads(config: ExperimentOptions) -> tuple[Any, dict[str, Array]]:
    """Returns inputs, and the heads of the model as it was trained."""
    network = InferenceNetwork(build(config), config)
    inputs = inputs_of(network)
    return inputs, {name: x.numpy() for name, x in network(inputs).items()}


def to_tflite(exported: ExportedGraph) -> bytes:
    """Converts a float graph with builtin ops alone."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [exported.function], exported.module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return bytes(converter.convert())


def converted(config: ExperimentOptions, forms: Forms) -> bytes:
    """Builds, exports and converts in certain forms."""
    model = build(config, forms)
    return to_tflite(export_graph(model, config, for_integers=False, forms=forms))


def run(graph: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a file in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=graph, num_threads=1).get_signature_runner()
    return {name: np.array(value) for name, value in runner(**inputs).items()}


def assert_close(
    found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float = 1e-4
) -> None:
    """Compares heads; the largest error counts in standard deviations of the head."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        error = np.abs(found[name] - value).max() / value.std()
        assert error <= tolerance, f"{name}: {error:.2g}"
