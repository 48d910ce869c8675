"""Where configurations are found: beside a checkpoint, or among the shipped recipes."""

import re
from importlib.resources import files
from pathlib import Path

from deeplab2_edge import assets
from deeplab2_edge.checkpoint_files.archives import split_archive
from deeplab2_edge.checkpoint_files.location import find_checkpoint
from deeplab2_edge.config import load_config
from deeplab2_edge.config.textformat import nearest
from deeplab2_edge.errors import CheckpointError, ConfigError

# Training leaves the experiment under this name beside its checkpoints.
CONFIG_NAME = "config.textproto"
_RECIPES = "deeplab2_edge.train.recipes"
# A recipe looks like a checkpoint if they share at least so many words.
_SHARED_WORDS = 2
_SHOWN = 3


def find_config(checkpoint: str | Path, config: str | Path | None = None) -> Path:
    """Returns the configuration file a checkpoint belongs to.

    Args:
        checkpoint: See `checkpoint_files.find_checkpoint`.
        config: A file or the name of a shipped recipe, which settles it; None looks
            beside the checkpoint and in the folder or archive it is in, for
            `config.textproto` or else the only `*.textproto`.

    Raises:
        ConfigError: If there is none.
        CheckpointError: If there is no such checkpoint.
    """
    if config is not None:
        return find_recipe(config)
    if str(checkpoint) == assets.DEMO_CHECKPOINT:
        return assets.demo_config_path()
    if (Path(checkpoint) / CONFIG_NAME).is_file():  # also before the first checkpoint
        return Path(checkpoint) / CONFIG_NAME
    folders = find_checkpoint(checkpoint).folders
    for folder in folders:
        beside = folder / CONFIG_NAME
        others = sorted(folder.glob("*.textproto"))
        if beside.is_file():
            return beside
        if len(others) == 1:
            return others[0]
    where = split_archive(checkpoint)
    place = where[0] if where else folders[0]
    similar = recipes_like(checkpoint)
    like = (
        f"; by its name {' or '.join(similar)}"
        if similar
        else " (`deeplab2-edge recipes` lists them)"
    )
    raise ConfigError(
        f"{place}: no {CONFIG_NAME} beside the checkpoint; give its experiment with "
        f"--config, a file or the name of a shipped recipe{like}"
    )


def backbone_beside(checkpoint: str | Path) -> str | None:
    """Returns the backbone by the configuration beside a checkpoint, None without."""
    try:
        config = load_config(find_config(checkpoint))
    except (ConfigError, CheckpointError):
        return None
    return config.model_options.backbone.name or None


def recipe_names() -> list[str]:
    """Returns the names of the shipped recipes."""
    folder = Path(str(files(_RECIPES)))
    return sorted(path.stem for path in folder.glob("*.textproto"))


def find_recipe(name_or_path: str | Path) -> Path:
    """Returns the file of a configuration: a path, or the name of a shipped recipe.

    Raises:
        ConfigError: If there is neither.
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    names = recipe_names()
    if str(path) in names:
        return Path(str(files(_RECIPES))) / f"{path}.textproto"
    hint = nearest(str(path), names) or ";"
    raise ConfigError(
        f"{name_or_path}: no such file and no shipped recipe{hint} "
        "`deeplab2-edge recipes` lists all"
    )


def similar_recipes(name: str) -> list[str]:
    """Returns shipped recipes whose names look like that of a checkpoint.

    Example:
        >>> similar_recipes("mobilenet_v3_small_os16_panoptic_deeplab_cityscapes_dwo")
        ['cityscapes_panoptic_mobilenet_v3_small_os16']
    """
    words = _words(name)
    scores = {}
    for recipe in recipe_names():
        own = _words(recipe)
        if len(own & words) >= _SHARED_WORDS:
            scores[recipe] = len(own & words) - len(own - words)
    best = max(scores.values(), default=0)
    return sorted(recipe for recipe, score in scores.items() if score == best)


def recipes_like(checkpoint: str | Path, network: str = "") -> list[str]:
    """Returns a few shipped recipes that look like a checkpoint.

    Args:
        checkpoint: As the user wrote it; its names are looked at first.
        network: Words for family and backbone, if the names say nothing.
    """
    path = Path(checkpoint)
    for name in (path.name, path.parent.name, network):
        similar = similar_recipes(name)
        if similar:
            return similar[:_SHOWN]
    return []


def _words(name: str) -> set[str]:
    # Some published names write this backbone together, recipes never.
    text = name.lower().replace("resnet50beta", "resnet50_beta")
    return set(re.split(r"[^a-z0-9]+", text)) - {"", "deeplab", "tar", "gz", "tgz"}
