"""Class and instance maps of STEP merge into panoptic maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.datasets.labels import PngLabel
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.datasets.step_maps import (
    encode_step_map,
    merge_step_maps,
    write_step_maps,
)
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import write_png


def row(*values: int) -> Any:
    return np.array([values], np.int32)


def test_pixels_of_the_class_near_an_instance_become_void() -> None:
    merged = merge_step_maps(
        row(13, 13, 13, 13, 0),
        row(1000, 0, 0, 0, 0),
        dataset="kitti_step",
        kernel_size=5,
    )
    np.testing.assert_array_equal(merged, row(13001, 255000, 255000, 13000, 0))


def test_instances_win_over_the_class_map_and_others_are_passed_over() -> None:
    merged = merge_step_maps(
        row(0, 11, 11), row(2007, 10000, 0), dataset="kitti_step", kernel_size=1
    )
    np.testing.assert_array_equal(merged, row(11008, 11000, 11000))


def test_motchallenge_keeps_seven_classes() -> None:
    semantic = row(0, 1, 2, 8, 9, 10, 11, 12, 18, 13, 255)
    merged = merge_step_maps(
        semantic, np.zeros_like(semantic), dataset="motchallenge_step"
    )
    classes = row(0, 0, 1, 2, 2, 3, 4, 5, 6, 255, 255)
    np.testing.assert_array_equal(merged, classes * 1000)


def test_maps_are_encoded_as_the_builders_read_them(tmp_path: Path) -> None:
    panoptic = row(13001, 11999, 255000, 5000)
    write_png(tmp_path / "a.png", encode_step_map(panoptic))
    label = PngLabel(tmp_path / "a.png", get_dataset("kitti_step"), modes=("rgb",))
    semantic, instance = label.read()
    np.testing.assert_array_equal(semantic * 1000 + instance, panoptic)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dataset": "coco"}, UsageError, "kitti_step or motchallenge_step"),
        ({"kernel_size": 4}, UsageError, "expected 1, 3, 5"),
        ({"instance": row(0, 0)}, DataError, "class map is 1x1, the instance map 1x2"),
        ({"instance": row(1999)}, DataError, "instance 999 of MOTS class 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    usual = {"semantic": row(0), "instance": row(0), "dataset": "kitti_step"}
    with pytest.raises(error, match=message):
        merge_step_maps(**(usual | arguments))


def write_maps(root: Path) -> tuple[Path, Path]:
    for frame in ("0000/000000", "0000/000001"):
        (root / "semantic" / frame).parent.mkdir(parents=True, exist_ok=True)
        (root / "instance" / frame).parent.mkdir(parents=True, exist_ok=True)
        write_png(root / f"semantic/{frame}.png", np.full((4, 6), 11, np.uint8))
        write_png(root / f"instance/{frame}.png", np.full((4, 6), 2003, np.uint16))
    return root / "semantic", root / "instance"


def merge(root: Path, output: Path, dataset: str = "kitti_step") -> int:
    return write_step_maps(
        root / "semantic", root / "instance", output, dataset=dataset, quiet=True
    )


def test_folders_are_merged(tmp_path: Path) -> None:
    write_maps(tmp_path)
    assert merge(tmp_path, tmp_path / "out") == 2
    label = PngLabel(tmp_path / "out/0000/000001.png", get_dataset("kitti_step"))
    semantic, instance = label.read()
    assert (semantic == 11).all()
    assert (instance == 4).all()


def test_maps_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    _, instances = write_maps(tmp_path)
    broken = instances / "0000/000001.png"
    write_png(broken, np.zeros((4, 6), np.uint8))
    with pytest.raises(DataError, match="000001.png: must be 16-bit gray"):
        merge(tmp_path, tmp_path / "out")
    write_png(broken, np.zeros((4, 7), np.uint16))
    with pytest.raises(DataError, match="000001.png: the class map is 4x6"):
        merge(tmp_path, tmp_path / "out")
    write_png(broken, np.full((4, 6), 1001, np.uint16))
    with pytest.raises(DataError, match="merged map is wrong: 24 pixels hold class 13"):
        merge(tmp_path, tmp_path / "out", "motchallenge_step")
    broken.unlink()
    with pytest.raises(DataError, match="instance/0000/000001.png: cannot be read"):
        merge(tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="semantic: no such folder"):
        merge(tmp_path / "none", tmp_path / "out")
