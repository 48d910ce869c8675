"""Files that travel inside the package: the demo checkpoint and its configuration."""

from importlib.resources import files
from pathlib import Path

# Users write this name wherever a command takes a checkpoint.
DEMO_CHECKPOINT = "demo"
# It was trained on rendered scenes alone, and is part of this package.
DEMO_LICENSE = "Apache-2.0"


def demo_config_path() -> Path:
    """Returns the configuration of the shipped checkpoint."""
    return Path(str(files("deeplab2_edge.assets") / "demo" / "config.textproto"))


def demo_checkpoint_prefix() -> str:
    """Returns the checkpoint prefix (without `.index`) of the shipped model."""
    return str(files("deeplab2_edge.assets") / "demo" / "ckpt")
