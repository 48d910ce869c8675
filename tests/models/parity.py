"""Compares a model with the stored outputs of the published system."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.backbones import build_backbone, max_deeplab, resnet
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import BackboneOptions, ExperimentOptions, parse_config
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.registry import dataset_names, register_dataset
from deeplab2_edge.layers.axial_attention import AttentionOptions
from deeplab2_edge.layers.dual_path_options import DualPathOptions
from deeplab2_edge.layers.resize import strided_side
from deeplab2_edge.models import build, resize_outputs
from deeplab2_edge.optional import require
from tests.models import synthetic_weights

tf = require("tensorflow", extra="train")
tf_keras = require("tf_keras", extra="train")

OUTPUT_TOLERANCE = 1e-4  # max abs error over the tensor's standard deviation
LAYER_TOLERANCE = 2e-4


def config_from_facts(facts: dict[str, Any]) -> ExperimentOptions:
    """Builds the experiment a golden file describes."""
    norm = facts["batch_norm"]
    return parse_config(
        _as_text(
            {
                "model_options": facts["model_options"],
                "trainer_options": {
                    "solver_options": {
                        "batchnorm_momentum": norm["momentum"],
                        "batchnorm_epsilon": norm["epsilon"],
                    }
                },
                "train_dataset_options": {
                    "dataset": facts["dataset"]["name"],
                    "crop_size": facts["config_crop_size"]["train"],
                },
            }
        ),
        source=facts["variant"],
    )


def load_facts(path: Path) -> dict[str, Any]:
    """Reads a golden file's facts."""
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def compare_case(path: Path, case: str) -> dict[str, float]:
    """Runs one case of a golden file.

    Returns:
        Error of each stored tensor: max abs difference over its standard deviation.
    """
    facts = load_facts(path)
    spec = facts["cases"][case]
    wanted = spec["tensors"]
    network = build_from_facts(
        facts,
        input_size=spec["input_shape"][1:3],
        pool_size=_pool_size(facts, spec),
    )
    for name, variable in variable_paths(network.model).items():
        variable.assign(synthetic_weights.weight(name, variable.shape))
    found = network.run(_input(facts, spec["input_shape"]), wanted)
    golden = np.load(path.with_suffix(".npz"), allow_pickle=False)
    errors = {}
    for name, facts_of_tensor in wanted.items():
        mine = found[name]
        assert list(mine.shape) == facts_of_tensor["shape"], name
        part = mine[tuple(slice(None, None, s) for s in facts_of_tensor["stride"])]
        difference = np.abs(part - golden[f"{case}/{name}"]).max()
        errors[name] = float(difference / facts_of_tensor["std"])
    return errors


@dataclass(frozen=True)
class Network:
    """Is a model with its endpoints.

    Attributes:
        model: See `build_model`.
        encoder_input: What the endpoints are a function of: the image of the model,
            or, where two frames share an encoder, one frame.
        endpoints: Features of the encoder by name.
    """

    model: Any
    encoder_input: Any
    endpoints: dict[str, Any]

    def run(self, image: Any, names: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Computes the tensors a golden file names."""
        names = list(names)
        frames = {name.split("@")[1] for name in names if "@" in name}
        found: dict[str, Any] = {}
        for frame in sorted(frames):
            part = image[..., 3 * int(frame) : 3 * int(frame) + 3]
            probes = {n: self._probe(n) for n in names if n.endswith(f"@{frame}")}
            # The encoder alone is not told how pixels are scaled.
            found |= tf_keras.Model(self.encoder_input, probes)(part / 127.5 - 1.0)
        probes = {
            n: self._probe(n)
            for n in names
            if n.startswith(("layer/", "endpoint/")) and "@" not in n
        }
        outputs = tf_keras.Model(
            self.model.input, {"raw": self.model.output, "probes": probes}
        )(image, training=False)
        found |= outputs["probes"]
        raw = outputs["raw"]
        found |= {f"raw/{key}": value for key, value in raw.items()}
        resized = resize_outputs(raw, image.shape[1:3])
        found |= {f"out/{key}": value for key, value in resized.items()}
        return {name: np.asarray(found[name]) for name in names}

    def _probe(self, name: str) -> Any:
        name = name.split("@")[0]
        if name.startswith("endpoint/"):
            return self.endpoints[name.removeprefix("endpoint/")]
        path, _, second = name.removeprefix("layer/").partition(":")
        if path.endswith("_transformer"):
            path += "/_memory_output" if second else "/_pixel_output"
        elif second:  # a MobileNet block's depthwise feature
            path += "/_conv2_bn_act"
        return _last(
            [
                layer
                for layer in self._layers
                if layer.name == path or layer.name.startswith(path + "/")
            ]
        ).output

    @functools.cached_property
    def _layers(self) -> list[Any]:
        """All layers of the graph, also those no output reads."""
        encoder = tf_keras.Model(self.encoder_input, self.endpoints)
        parts = {id(part): part for part in (*self.model.submodules, *encoder.layers)}
        return [
            part
            for part in parts.values()
            if isinstance(part, tf_keras.layers.Layer) and part.inbound_nodes
        ]


def build_from_facts(
    facts: dict[str, Any],
    *,
    input_size: Sequence[int],
    pool_size: Sequence[int] | None = None,
) -> Network:
    """Builds the network a golden file describes."""
    captured: dict[str, Any] = {}
    _know_dataset(facts)

    def build_and_capture(image: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        endpoints = _build_backbone(facts, image, *args, **kwargs)
        captured.update(image=image, endpoints=endpoints)
        return endpoints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_backbone", build_and_capture)
        model = build.build_model(
            config_from_facts(facts), input_size=input_size, pool_size=pool_size
        )
    # Two frames share an encoder with an input of its own.
    is_shared = facts["meta_architecture"] == "vip_deeplab"
    encoder_input = captured["image"] if is_shared else model.input
    return Network(model, encoder_input, captured["endpoints"])


def _pool_size(facts: dict[str, Any], spec: dict[str, Any]) -> Sequence[int]:
    """Returns the window of ASPP pooling; where none is given, the whole map."""
    window = spec.get("aspp_pool_size")
    if window and None not in window:
        return window
    stride = facts["output_stride"]
    return [strided_side(side, stride) for side in spec["input_shape"][1:3]]


def _know_dataset(facts: dict[str, Any]) -> None:
    """Registers a data set that a golden file names and we do not know."""
    dataset = facts["dataset"]
    if dataset["name"] in dataset_names():
        return
    classes = range(dataset["num_classes"])
    register_dataset(
        DatasetInfo(
            name=dataset["name"],
            num_classes=dataset["num_classes"],
            ignore_label=dataset["ignore_label"],
            label_divisor=dataset["label_divisor"],
            thing_ids=tuple(dataset["thing_ids"]),
            class_names=tuple(f"class {index}" for index in classes),
            colors=tuple((index % 256, 0, 0) for index in classes),
            split_sizes={},
        )
    )


def _as_text(message: dict[str, Any]) -> str:
    """Writes nested facts in the text format of configurations."""
    lines = []
    for name, value in message.items():
        for item in value if isinstance(value, list) else [value]:
            body = f"{{ {_as_text(item)} }}" if isinstance(item, dict) else None
            lines.append(f"{name} {body}" if body else f"{name}: {json.dumps(item)}")
    return "\n".join(lines)


def _input(facts: dict[str, Any], shape: Sequence[int]) -> np.ndarray[Any, Any]:
    image = synthetic_weights.image(shape)
    if facts["meta_architecture"] == "motion_deeplab":
        image[..., 6] /= 255.0  # a heat map of centers
    return image


def _last(layers: Sequence[Any]) -> Any:
    """Finds the layer that none of the others reads."""
    read = {
        id(tensor)
        for layer in layers
        for node in layer.inbound_nodes
        for tensor in tf.nest.flatten(node.input_tensors)
    }
    (last,) = [layer for layer in layers if id(layer.output) not in read]
    return last


def _build_backbone(
    facts: dict[str, Any], image: Any, options: BackboneOptions, **kwargs: Any
) -> dict[str, Any]:
    """Builds a published encoder, or one whose constants differ from it."""
    if "backbone_constants" not in facts:
        return build_backbone(image, options, **kwargs)
    preset = _preset(facts["backbone_constants"])
    if options.name in resnet.PRESETS:
        if preset.backbone == resnet.PRESETS[options.name]:
            return build_backbone(image, options, **kwargs)
        return resnet.build_resnet(image, preset.backbone, options, **kwargs)
    if preset == max_deeplab.PRESETS[options.name]:
        return build_backbone(image, options, **kwargs)
    return max_deeplab.build_max_deeplab(image, preset, options, **kwargs)


def _preset(constants: dict[str, Any]) -> max_deeplab.MaXPreset:
    group = constants["block_group_config"]
    attention = group["axial_layer_config"]
    transformer = group["dual_path_transformer_layer_config"]
    return max_deeplab.MaXPreset(
        resnet.Preset(
            constants["backbone_type"],
            tuple(constants["num_blocks"]),
            constants["use_axial_beyond_stride"],
            group=resnet.BlockGroupOptions(
                group["attention_bottleneck_expansion"],
                group["drop_path_beyond_stride"],
                group["use_global_beyond_stride"],
                AttentionOptions(**_known(AttentionOptions, attention)),
                DualPathOptions(**_known(DualPathOptions, transformer)),
            ),
            use_transformer_beyond_stride=constants[
                "backbone_use_transformer_beyond_stride"
            ],
            base_transformer_expansion=constants["base_transformer_expansion"],
        ),
        has_transformer_path=not constants["classification_mode"],
        decoder_stacks=constants["backbone_decoder_num_stacks"],
        decoder_blocks=constants["backbone_decoder_blocks_per_stage"],
        extra_stacks=constants["extra_decoder_num_stacks"],
        extra_blocks=constants["extra_decoder_blocks_per_stage"],
        extra_transformer_beyond_stride=constants[
            "extra_decoder_use_transformer_beyond_stride"
        ],
        memory_slots=constants["num_mask_slots"],
        memory_channels=constants["memory_channels"],
        feature_channels=constants["global_feed_forward_network_channels"],
    )


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}
