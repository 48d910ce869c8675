"""Where the configuration of a checkpoint is found."""

from pathlib import Path

from deeplab2_edge import assets
from deeplab2_edge.errors import ConfigError

# Training leaves the experiment under this name beside its checkpoints.
CONFIG_NAME = "config.textproto"


def find_config(checkpoint: str | Path, config: str | Path | None = None) -> Path:
    """Returns the configuration file a checkpoint belongs to.

    Args:
        checkpoint: A folder, a prefix, or `demo`.
        config: A path that settles it; None looks beside the checkpoint.

    Raises:
        ConfigError: If there is none.
    """
    if config is not None:
        return Path(config)
    if str(checkpoint) == assets.DEMO_CHECKPOINT:
        return assets.demo_config_path()
    path = Path(checkpoint)
    if not path.is_dir() and not Path(f"{path}.index").is_file() and not path.is_file():
        raise ConfigError(
            f"{checkpoint}: no such checkpoint; expected a folder of training, or a "
            "prefix such as runs/street/ckpt-1000"
        )
    beside = (path if path.is_dir() else path.parent) / CONFIG_NAME
    if not beside.is_file():
        raise ConfigError(
            f"{beside} is not there; give the experiment of the checkpoint with "
            "--config"
        )
    return beside
