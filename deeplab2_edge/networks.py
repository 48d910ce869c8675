"""The networks of the shipped recipes, and what each costs.

Recipes that differ in steps or splits alone have one network. Its cost was computed,
and measured where that was feasible, by `benchmarks/models.py`. The results travel with
the package: building all networks takes minutes, and measuring them longer.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.experiments import find_recipe, recipe_names

if TYPE_CHECKING:
    from deeplab2_edge.models.cost import ModelCost

# Panoptic-DeepLab with ResNet-50: forward times are relative to its own.
BASELINE = "cityscapes_panoptic_resnet50_os32"

ARCHITECTURES = (
    "deeplab_v3",
    "deeplab_v3_plus",
    "panoptic_deeplab",
    "axial_deeplab",
    "max_deeplab",
    "motion_deeplab",
    "vip_deeplab",
)


@dataclass(frozen=True)
class Network:
    """Is one network at its published canvas.

    Attributes:
        recipes: Names of the recipes that train it.
        config: The experiment of the first one.
        canvas: (height, width) of its evaluation, or of its training if it has none.
    """

    recipes: tuple[str, ...]
    config: ExperimentOptions
    canvas: tuple[int, int]

    @property
    def name(self) -> str:
        """Is the name of the first recipe."""
        return self.recipes[0]


def shipped_networks() -> list[Network]:
    """Returns every network of the shipped recipes once, by name."""
    recipes: dict[Any, list[str]] = {}
    configs = {name: load_config(find_recipe(name)) for name in recipe_names()}
    for name, config in configs.items():
        # The crop of training sets the window of a pooling layer.
        crop = config.train_dataset_options.crop_size
        key = (config.model_options, _canvas_of(config), crop)
        recipes.setdefault(key, []).append(name)
    return [
        Network(tuple(names), configs[names[0]], canvas)
        for (_, canvas, _), names in recipes.items()
    ]


def find_network(name_or_path: str, canvas: tuple[int, int] | None = None) -> Network:
    """Returns the network of a shipped recipe or of a configuration file.

    Args:
        name_or_path: See `experiments.find_recipe`.
        canvas: (height, width); None: the one of the experiment.

    Raises:
        ConfigError: If there is no such experiment, or no canvas.
    """
    config = load_config(find_recipe(name_or_path))
    return Network((str(name_or_path),), config, canvas or _canvas_of(config))


def _canvas_of(config: ExperimentOptions) -> tuple[int, int]:
    evaluation, train = config.eval_dataset_options, config.train_dataset_options
    canvas = evaluation.crop_size or train.crop_size
    if len(canvas) != 2:
        raise ConfigError(
            f"eval_dataset_options.crop_size is {list(canvas)}; expected height and "
            "width of the canvas, or give a size (--input-size HxW)"
        )
    return canvas[0], canvas[1]


def architecture_of(config: ExperimentOptions) -> str:
    """Returns the architecture in the words of its paper, one of `ARCHITECTURES`.

    Axial-DeepLab is configured as a Panoptic-DeepLab with an axial encoder.
    """
    options = config.model_options
    name = options.backbone.name.lower()
    is_axial = name.startswith("axial_") or name.endswith("_backbone")
    if options.meta_architecture == "panoptic_deeplab" and is_axial:
        return "axial_deeplab"
    return str(options.meta_architecture)


def describe_network(
    config: ExperimentOptions,
    canvas: tuple[int, int],
    cost: "ModelCost",
    baseline: "ModelCost",
) -> dict[str, Any]:
    """Describes a network and its cost, ready for JSON.

    Args:
        config: The experiment.
        canvas: (height, width).
        cost: What `models.cost` counts at this canvas.
        baseline: The same of `BASELINE`, at the same canvas.
    """
    options = config.model_options
    return {
        "architecture": architecture_of(config),
        "meta_architecture": options.meta_architecture,
        "backbone": options.backbone.name,
        "output_stride": options.backbone.output_stride,
        "dataset": config.train_dataset_options.dataset,
        "input_size": list(canvas),
        "parameters": cost.parameters,
        "trainable_parameters": cost.trainable_parameters,
        "multiply_adds": cost.multiply_adds,
        "relative_multiply_adds": cost.multiply_adds / baseline.multiply_adds,
        "activation_bytes": cost.activation_bytes,
        "computed_memory_bytes": cost.memory_bytes,
        "measured": None,
    }


def costs_path() -> Path:
    """Returns the file of costs that travels with the package."""
    return Path(str(files("deeplab2_edge.assets") / "models.json"))


def shipped_costs() -> dict[str, Any]:
    """Reads the costs of all shipped networks at their published canvases.

    Returns:
        What `benchmarks/models.py` wrote: `machine` and `tensorflow` of the
        measurements, and `rows`, one per network: `recipes`, the fields of
        `describe_network`, and `measured`, which is None or an object with `rounds`
        (0: only a first pass, which also prepares the graph), `seconds` and
        `cpu_seconds` of a forward pass, the same of the baseline,
        `relative_time` in processor time, `memory_bytes` and `load_average`.
    """
    document: dict[str, Any] = json.loads(costs_path().read_text(encoding="utf-8"))
    return document
