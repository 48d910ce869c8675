"""The data check finds what would spoil a training, names the file and the cure."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.datasets.check import check_folder, format_report
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import write_jpeg, write_png

SIZE = (8, 10)
DESCRIPTION = {
    "name": "toy",
    "classes": [
        {"name": "road", "thing": False},
        {"name": "car", "thing": True},
        {"name": "tree", "thing": False},
    ],
}


def rgb(semantic: int, instance: int) -> NDArray[np.uint8]:
    label = np.zeros((*SIZE, 3), np.uint8)
    label[:4] = semantic, instance // 256, instance % 256
    return label


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean folder: two images, half road, half the cars 1 and 2."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for index, name in enumerate(("a", "b"), start=1):
        write_jpeg(tmp_path / f"images/{name}.jpg", np.zeros((*SIZE, 3), np.uint8))
        write_png(tmp_path / f"labels/{name}.png", rgb(1, index))
    (tmp_path / "dataset.json").write_text(json.dumps(DESCRIPTION))
    return tmp_path


def only_problem(root: Path) -> tuple[str, str]:
    (problem,) = check_folder(root, quiet=True).problems
    return str(Path(problem.file).relative_to(root)), problem.message


def test_clean_folder_is_counted(root: Path) -> None:
    report = check_folder(root, quiet=True)
    assert report.is_clean
    assert (report.num_images, report.num_labels) == (2, 2)
    document = json.loads(json.dumps(report.to_json()))
    assert [c["share"] for c in document["classes"]] == [0.5, 0.5, 0.0]
    assert [c["instances"] for c in document["classes"]] == [0, 2, 0]
    assert [c["images"] for c in document["classes"]] == [2, 2, 0]
    assert report.notes == ["classes without a pixel: tree"]


def test_semantic_labels_of_things_get_a_note(root: Path) -> None:
    for name in ("a", "b"):
        write_png(root / f"labels/{name}.png", np.ones(SIZE, np.uint8))
    report = check_folder(root, quiet=True)
    assert report.is_clean
    assert "things without instances" in report.notes[1]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (rgb(7, 0), "hold class 7"),
        (rgb(0, 4), "instance ids on the stuff class road"),
        (rgb(1, 1000), "instance id 1000 .* label divisor 1000"),
        (np.zeros((8, 11), np.uint8), "is 8x11, but a.jpg is 8x10"),
    ],
)
def test_wrong_labels_are_named(
    label: NDArray[np.uint8], message: str, root: Path
) -> None:
    write_png(root / "labels/a.png", label)
    file, text = only_problem(root)
    assert file == "labels/a.png"
    assert re.search(message, text)


def test_several_problems_of_one_label_are_all_told(root: Path) -> None:
    label = rgb(7, 0)
    label[5] = 0, 0, 3
    write_png(root / "labels/a.png", label)
    assert len(check_folder(root, quiet=True).problems) == 2


def test_missing_label_and_stray_label_are_told(root: Path) -> None:
    (root / "labels/a.png").rename(root / "labels/c.png")
    problems = check_folder(root, quiet=True).problems
    files = [Path(problem.file).name for problem in problems]
    assert files == ["a.jpg", "c.png"]
    assert "has no label" in problems[0].message
    assert "label of no image" in problems[1].message


def test_damaged_files_are_told_and_the_rest_is_counted(root: Path) -> None:
    image = root / "images/a.jpg"
    image.write_bytes(image.read_bytes()[:-40])
    report = check_folder(root, quiet=True)
    assert (report.num_images, report.num_labels) == (1, 2)
    assert only_problem(root)[0] == "images/a.jpg"


def test_label_of_wrong_mode_is_told(root: Path) -> None:
    shutil.copy(root / "images/a.jpg", root / "labels/a.png")
    file, message = only_problem(root)
    assert file == "labels/a.png"
    assert message.startswith("labels must be PNG files")


def test_empty_folder_is_a_problem_and_a_missing_one_an_error(tmp_path: Path) -> None:
    report = check_folder(tmp_path, quiet=True)
    assert "holds no images" in report.problems[0].message
    with pytest.raises(DataError, match="no such file"):
        check_folder(tmp_path / "none")


def test_coco_segments_are_compared_with_their_pixels(tmp_path: Path) -> None:
    for folder in ("images", "panoptic"):
        (tmp_path / folder).mkdir()
    write_jpeg(tmp_path / "images/a.jpg", np.zeros((*SIZE, 3), np.uint8))
    write_jpeg(tmp_path / "images/b.jpg", np.zeros((*SIZE, 3), np.uint8))
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[:2, :, 0], ids[4:, :, 0] = 1, 2
    write_png(tmp_path / "panoptic/a.png", ids)
    segments = [
        {"id": 1, "category_id": 1, "area": 21},
        {"id": 3, "category_id": 1, "area": 5},
    ]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": 1, "file_name": "a.png", "segments_info": segments}
        ],
        "categories": [{"id": 1, "name": "road", "isthing": 0}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    messages = [p.message for p in check_folder(tmp_path, quiet=True).problems]
    assert messages[0].startswith("segment 1 has 20 pixels, its `area` says 21")
    assert messages[1].startswith("segment 3 has no pixels")
    assert messages[2].startswith("40 pixels belong to segments that segments_info")
    assert messages[3].startswith("is not in the annotations")


def test_report_reads_as_a_table(root: Path) -> None:
    text = format_report(check_folder(root, quiet=True))
    assert "2 images, 2 labels, 8x10" in text
    assert "car       50.00%        2          2" in text
    assert text.endswith("no problems found")


def test_report_shows_the_first_problems_only(root: Path) -> None:
    for index in range(30):
        write_png(root / f"labels/stray{index}.png", np.zeros(SIZE, np.uint8))
    text = format_report(check_folder(root, quiet=True))
    assert "30 problems:" in text
    assert "... and 10 more" in text


def test_described_images_without_any_label_are_a_problem(root: Path) -> None:
    (root / "labels").rename(root / "masks")
    name, message = only_problem(root)
    assert name == "."
    assert "2 images and no label at all" in message and "labels/*.png" in message
