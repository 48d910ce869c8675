"""The configuration of a checkpoint is found beside it."""

from pathlib import Path

import pytest

from deeplab2_edge import assets
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.experiments import find_config


def test_the_shipped_checkpoint_has_its_configuration() -> None:
    assert find_config("demo") == assets.demo_config_path()
    assert assets.demo_config_path().is_file()


def test_a_run_and_its_checkpoints_share_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.textproto").write_text("")
    (tmp_path / "ckpt-5.index").write_text("")
    assert find_config(tmp_path) == tmp_path / "config.textproto"
    assert find_config(tmp_path / "ckpt-5") == tmp_path / "config.textproto"
    assert find_config(tmp_path, "other.textproto") == Path("other.textproto")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nope: no such checkpoint"):
        find_config(tmp_path / "nope")
    with pytest.raises(ConfigError, match=r"config\.textproto is not there"):
        find_config(tmp_path)
