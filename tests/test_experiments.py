"""The configuration of a checkpoint is found beside it, in its archive, by name."""

import tarfile
from pathlib import Path

import pytest

from deeplab2_edge import assets
from deeplab2_edge.errors import CheckpointError, ConfigError
from deeplab2_edge.experiments import find_config, similar_recipes


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPLAB2_EDGE_CACHE", str(tmp_path / "cache"))


def archive(path: Path, *names: str) -> Path:
    """Writes an archive of empty files."""
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return path


def test_the_shipped_checkpoint_has_its_configuration() -> None:
    assert find_config("demo") == assets.demo_config_path()
    assert assets.demo_config_path().is_file()


def test_a_run_and_its_checkpoints_share_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.textproto").write_text("")
    (tmp_path / "other.textproto").write_text("")
    (tmp_path / "ckpt-5.index").write_text("")
    assert find_config(tmp_path) == tmp_path / "config.textproto"
    assert find_config(tmp_path / "ckpt-5") == tmp_path / "config.textproto"


def test_a_run_has_its_configuration_before_its_first_checkpoint(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.textproto").write_text("")
    assert find_config(tmp_path) == tmp_path / "config.textproto"


def test_a_single_configuration_of_another_name_will_do(tmp_path: Path) -> None:
    (tmp_path / "ckpt-5.index").write_text("")
    (tmp_path / "street.textproto").write_text("")
    assert find_config(tmp_path) == tmp_path / "street.textproto"
    (tmp_path / "second.textproto").write_text("")
    with pytest.raises(ConfigError, match=r"no config\.textproto beside"):
        find_config(tmp_path)


def test_what_the_user_names_settles_it(tmp_path: Path) -> None:
    other = tmp_path / "other.textproto"
    other.write_text("")
    assert find_config(tmp_path, other) == other
    recipe = find_config(tmp_path, "camvid_mobilenet_v3_small")
    assert recipe.name == "camvid_mobilenet_v3_small.textproto"
    assert recipe.is_file()
    with pytest.raises(ConfigError, match="no shipped recipe.*camvid_mobilenet_v3_sm"):
        find_config(tmp_path, "camvid_mobilenet_v3_smal")


@pytest.mark.parametrize("place", ["run/config.textproto", "config.textproto"])
def test_a_configuration_inside_the_archive_is_found(
    place: str, tmp_path: Path
) -> None:
    path = archive(tmp_path / "x.tar.gz", "run/ckpt-1.index", place)
    found = find_config(path)
    assert found.name == "config.textproto"
    assert tmp_path / "cache" in found.parents
    assert find_config(f"{path}/run/ckpt-1") == found


def test_recipes_that_look_like_an_archive_are_named(tmp_path: Path) -> None:
    name = "mobilenet_v3_small_os16_panoptic_deeplab_cityscapes_dwo.tar.gz"
    path = archive(tmp_path / name, "ckpt-1.index")
    with pytest.raises(
        ConfigError, match=r"--config.* cityscapes_panoptic_mobilenet_v3_small_os16$"
    ):
        find_config(path)


def test_recipes_are_not_guessed_from_nothing(tmp_path: Path) -> None:
    assert similar_recipes("ckpt-60000") == []
    assert similar_recipes("mobilenet_v3_small_os32_panoptic_deeplab_cityscapes") == [
        "cityscapes_panoptic_mobilenet_v3_small_os32"
    ]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nope: no checkpoint here"):
        find_config(tmp_path / "nope")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find_config(tmp_path)
