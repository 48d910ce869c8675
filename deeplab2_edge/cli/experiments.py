"""What the commands share about experiments: a configuration and its changes."""

from collections.abc import Sequence

from deeplab2_edge.config import ExperimentOptions, load_config, parse_override
from deeplab2_edge.experiments import find_recipe


def load_experiment(name_or_path: str, assignments: Sequence[str]) -> ExperimentOptions:
    """Loads a configuration file or a shipped recipe and applies `--set` values.

    Args:
        name_or_path: A path, or a name of `experiments.recipe_names`.
        assignments: Texts `field=value`.

    Raises:
        ConfigError: If there is no such file or recipe, or a value does not fit.
    """
    overrides = dict(parse_override(ExperimentOptions, text) for text in assignments)
    return load_config(find_recipe(name_or_path), overrides=overrides)
