"""Output files appear whole or not at all."""

from pathlib import Path

import pytest

from deeplab2_edge.errors import OutputError
from deeplab2_edge.files import atomic_write, ensure_output_dir, ensure_output_file


def test_a_written_file_appears_under_its_name_alone(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.json") as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("{}")
        assert not (tmp_path / "a.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_unfinished_file_can_hide_from_patterns(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.tfrecord", keeps_suffix=False) as temporary:
        temporary.write_bytes(b"half")
        assert not list(tmp_path.glob("*.tfrecord"))
    assert (tmp_path / "a.tfrecord").read_bytes() == b"half"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with (
        pytest.raises(ValueError, match="stop"),
        atomic_write(target) as temporary,
    ):
        temporary.write_text("half")
        raise ValueError("stop")
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"nowhere/a\.txt: cannot be written"),
        atomic_write(tmp_path / "nowhere" / "a.txt") as temporary,
    ):
        temporary.write_text("")


def test_a_file_is_promised_before_it_is_written(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    assert ensure_output_file(target) == target
    assert list(target.parent.iterdir()) == []
    with pytest.raises(OutputError, match="new: a folder; give the name of a file"):
        ensure_output_file(target.parent)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken: cannot be made a folder"):
        ensure_output_dir(tmp_path / "taken")
