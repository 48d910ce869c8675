"""What the commands share about experiments: where a configuration comes from."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from deeplab2_edge.config import ExperimentOptions, load_config, parse_override
from deeplab2_edge.errors import ConfigError


def recipe_names() -> list[str]:
    """Returns the names of the shipped recipes."""
    folder = Path(str(files("deeplab2_edge.train.recipes")))
    return sorted(path.stem for path in folder.glob("*.textproto"))


def load_experiment(name_or_path: str, assignments: Sequence[str]) -> ExperimentOptions:
    """Loads a configuration file or a shipped recipe and applies `--set` values.

    Args:
        name_or_path: A path, or a name of `recipe_names`.
        assignments: Texts `field=value`.

    Raises:
        ConfigError: If there is no such file or recipe, or a value does not fit.
    """
    path = Path(name_or_path)
    if not path.exists():
        recipe = Path(str(files("deeplab2_edge.train.recipes"))) / f"{path}.textproto"
        if path.name != str(path) or not recipe.is_file():
            raise ConfigError(
                f"{name_or_path}: no such file and no shipped recipe; recipes are "
                f"{', '.join(recipe_names())}"
            )
        path = recipe
    overrides = dict(parse_override(ExperimentOptions, text) for text in assignments)
    return load_config(path, overrides=overrides)
