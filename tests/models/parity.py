"""Compares a model with the stored outputs of the published system."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from deeplab2_edge.backbones import mobilenet_v3
from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions, parse_config
from deeplab2_edge.models import build_model, resize_outputs
from deeplab2_edge.optional import require
from tests.models import synthetic_weights

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
                    "crop_size": facts["config_crop_size"]["train"]
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
    model = build_model(
        config_from_facts(facts),
        input_size=spec["input_shape"][1:3],
        pool_size=spec["aspp_pool_size"],
    )
    for name, variable in variable_paths(model).items():
        variable.assign(synthetic_weights.weight(name, variable.shape))
    wanted = spec["tensors"]
    probes = {
        name: _layer_output(model, name) for name in wanted if name.startswith("layer/")
    }
    endpoints = {n: _endpoint(model, n) for n in wanted if n.startswith("endpoint/")}
    run = tf_keras.Model(
        model.input, {"raw": model.output, "probes": {**probes, **endpoints}}
    )
    found = run(synthetic_weights.image(spec["input_shape"]), training=False)
    tensors = dict(found["probes"])
    for key, value in found["raw"].items():
        tensors[f"raw/{key}"] = value
    for key, value in resize_outputs(found["raw"], spec["input_shape"][1:3]).items():
        tensors[f"out/{key}"] = value
    golden = np.load(path.with_suffix(".npz"), allow_pickle=False)
    errors = {}
    for name, facts_of_tensor in wanted.items():
        mine = np.asarray(tensors[name])
        assert list(mine.shape) == facts_of_tensor["shape"], name
        part = mine[tuple(slice(None, None, s) for s in facts_of_tensor["stride"])]
        difference = np.abs(part - golden[f"{case}/{name}"]).max()
        errors[name] = float(difference / facts_of_tensor["std"])
    return errors


def _as_text(message: dict[str, Any]) -> str:
    """Writes nested facts in the text format of configurations."""
    lines = []
    for name, value in message.items():
        for item in value if isinstance(value, list) else [value]:
            body = f"{{ {_as_text(item)} }}" if isinstance(item, dict) else None
            lines.append(f"{name} {body}" if body else f"{name}: {json.dumps(item)}")
    return "\n".join(lines)


def _layer_output(model: Any, name: str) -> Any:
    """Finds the tensor a checkpoint path gives: its last layer in the graph."""
    path, _, second = name.removeprefix("layer/").partition(":")
    if second:  # a MobileNet block's depthwise feature
        path = f"{path}/_conv2_bn_act"
    names = [layer.name for layer in model.layers]
    last = [n for n in names if n == path or n.startswith(path + "/")][-1]
    return model.get_layer(last).output


def _endpoint(model: Any, name: str) -> Any:
    """Finds a MobileNet endpoint by the architecture table."""
    wanted = name.removeprefix("endpoint/")
    for index, block in enumerate(mobilenet_v3.VARIANTS[model.name]):
        if block.endpoint == wanted:
            depthwise = "/_conv2_bn_act" if block.expand_ratio else ""
            path = f"encoder/_blocks/{index}{depthwise}/_activation"
            return model.get_layer(path).output
    raise ValueError(name)
