"""Folders of images open as data sets, whatever layout they have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.datasets.folders import open_folder
from deeplab2_edge.datasets.labels import IGNORE_16BIT
from deeplab2_edge.datasets.registry import DatasetInfo, get_dataset
from deeplab2_edge.errors import ConfigError, DataError
from deeplab2_edge.images import write_jpeg, write_png

DATA = Path(__file__).parents[2] / "../shared/data"
SIZE = (4, 6)
DESCRIPTION = {
    "name": "toy",
    "classes": [
        {"name": "road", "thing": False},
        {"name": "car", "thing": True},
        {"name": "person", "thing": True},
    ],
}
# Upper row void, then two cars and road below; person crowd in the corner.
SEGMENT_IDS = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [70000, 70000, 9, 9, 9, 300],
        [70000, 70000, 9, 9, 9, 300],
        [5, 5, 5, 5, 5, 5],
    ],
    np.int32,
)
SEGMENTS = [
    {"id": 9, "category_id": 20, "area": 6, "iscrowd": 0},
    {"id": 5, "category_id": 10, "area": 6, "iscrowd": 0},
    {"id": 70000, "category_id": 20, "area": 4, "iscrowd": 0},
    {"id": 300, "category_id": 30, "area": 2, "iscrowd": 1},
]
CATEGORIES = [
    {"id": 30, "name": "person", "isthing": 1},
    {"id": 10, "name": "road", "isthing": 0, "color": [1, 2, 3]},
    {"id": 20, "name": "car", "isthing": 1},
]
VOID = 255_000


def write_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jpeg(path, np.full((*size, 3), 100, np.uint8))


def write_label(path: Path, label: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, label)


def write_coco(root: Path, **changes: Any) -> dict[str, Any]:
    """Writes one image in COCO panoptic layout; `changes` replace parts of it."""
    write_image(root / "images/a.jpg")
    ids = SEGMENT_IDS
    write_label(
        root / "panoptic/a.png",
        np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8),
    )
    document: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [
            {"image_id": 1, "file_name": "a.png", "segments_info": SEGMENTS}
        ],
        "categories": CATEGORIES,
    } | changes
    (root / "panoptic.json").write_text(json.dumps(document))
    return document


def write_plain(root: Path, label: NDArray[Any]) -> None:
    """Writes one image with its label and the description of the toy data set."""
    write_image(root / "images/a.jpg")
    write_label(root / "labels/a.png", label)
    (root / "dataset.json").write_text(json.dumps(DESCRIPTION))


def only_panoptic(root: Path, **options: Any) -> NDArray[np.int32]:
    (sample,) = open_folder(root, **options).samples
    panoptic = sample.load_panoptic()
    assert panoptic is not None
    assert panoptic.dtype == np.int32
    return panoptic


def test_coco_segments_become_classes_and_instances(tmp_path: Path) -> None:
    write_coco(tmp_path)
    # Categories in the order of their ids: road 0, car 1, person 2. Cars are
    # numbered as listed, so the second one on the canvas is car 1.
    expected = [
        [VOID] * 6,
        [1002, 1002, 1001, 1001, 1001, VOID],
        [1002, 1002, 1001, 1001, 1001, VOID],
        [0] * 6,
    ]
    np.testing.assert_array_equal(only_panoptic(tmp_path), expected)


def test_coco_crowd_keeps_its_class_when_asked_to(tmp_path: Path) -> None:
    write_coco(tmp_path)
    panoptic = only_panoptic(tmp_path, crowd_is_ignored=False)
    assert panoptic[1, 5] == 2000


def test_coco_categories_become_a_data_set(tmp_path: Path) -> None:
    write_coco(tmp_path)
    info = open_folder(tmp_path).info
    assert info.class_names == ("road", "car", "person")
    assert info.thing_ids == (1, 2)
    assert info.category_ids == (10, 20, 30)
    assert info.colors[0] == (1, 2, 3)


def test_coco_pixels_of_unlisted_segments_are_ignored(tmp_path: Path) -> None:
    entry = {"image_id": 1, "file_name": "a.png", "segments_info": SEGMENTS[:1]}
    write_coco(tmp_path, annotations=[entry])
    panoptic = only_panoptic(tmp_path)
    assert set(np.unique(panoptic)) == {1001, VOID}


def test_coco_annotation_without_segments_is_all_void(tmp_path: Path) -> None:
    entry = {"image_id": 1, "file_name": "a.png", "segments_info": []}
    write_coco(tmp_path, annotations=[entry])
    assert (only_panoptic(tmp_path) == VOID).all()


def test_one_annotation_file_of_several_can_be_named(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        write_coco(tmp_path)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for name in ("panoptic", "panoptic.json"):
            suffix = Path(name).suffix
            target = tmp_path / f"annotations/panoptic_{split}{suffix}"
            (tmp_path / name).rename(target)
        (tmp_path / "images").rename(tmp_path / split)
    with pytest.raises(DataError, match="several annotation files"):
        open_folder(tmp_path)
    folder = open_folder(tmp_path / "annotations/panoptic_val2017.json")
    assert folder.samples[0].image_path == tmp_path / "val2017/a.jpg"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": []}, "no annotations"),
        ({"annotations": {}}, "`annotations` must be a list"),
        ({"categories": []}, "`categories` is missing or empty"),
        ({"categories": CATEGORIES[:2]}, "has category 20"),
        ({"images": [{"id": 1, "file_name": "../a.jpg"}]}, "inside the data set"),
        ({"images": [{"id": 1, "file_name": "/etc/passwd"}]}, "inside the data set"),
        ({"images": [{"id": 1, "file_name": None}]}, "inside the data set"),
    ],
)
def test_wrong_coco_documents_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_coco(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        open_folder(tmp_path)
    assert "panoptic.json" in str(caught.value)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ({"id": 9, "category_id": 20}, "listed twice"),
        ({"id": 0, "category_id": 20}, "black means unlabelled"),
        ({"id": 8, "category_id": 10, "iscrowd": 1}, "only things form crowds"),
        ({"id": 8.5, "category_id": 10}, "must be a whole number"),
        ({"id": 2**40, "category_id": 10}, "must be a whole number"),
        ({"id": True, "category_id": 10}, "must be a whole number"),
    ],
)
def test_wrong_segments_are_refused(
    segment: dict[str, Any], message: str, tmp_path: Path
) -> None:
    entry = {"image_id": 1, "file_name": "a.png", "segments_info": [SEGMENTS[0]]}
    entry["segments_info"] = [*SEGMENTS[:1], segment]
    write_coco(tmp_path, annotations=[entry])
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\0"])
def test_broken_json_is_refused(text: str, tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "panoptic.json").write_text(text)
    with pytest.raises(DataError, match="panoptic.json"):
        open_folder(tmp_path)


def test_grey_coco_png_is_refused_with_the_right_mode(tmp_path: Path) -> None:
    write_coco(tmp_path)
    write_label(tmp_path / "panoptic/a.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(DataError, match="must be 8-bit RGB"):
        only_panoptic(tmp_path)


def test_grey_label_holds_classes(tmp_path: Path) -> None:
    label = np.zeros(SIZE, np.uint8)
    label[1], label[2] = 1, 255
    write_plain(tmp_path, label)
    panoptic = only_panoptic(tmp_path)
    assert list(panoptic[:, 0]) == [0, 1000, VOID, 0]


def test_rgb_label_holds_class_and_instance(tmp_path: Path) -> None:
    label = np.zeros((*SIZE, 3), np.uint8)
    label[1], label[2], label[3] = (1, 3, 7), (255, 1, 1), (2, 0, 0)
    write_plain(tmp_path, label)
    panoptic = only_panoptic(tmp_path)
    assert list(panoptic[:, 0]) == [0, 1000 + 3 * 256 + 7, VOID, 2000]


def test_16_bit_label_holds_the_panoptic_value(tmp_path: Path) -> None:
    label = np.zeros(SIZE, np.uint16)
    label[1], label[2], label[3] = 1007, IGNORE_16BIT, 2000
    write_plain(tmp_path, label)
    assert list(only_panoptic(tmp_path)[:, 0]) == [0, 1007, VOID, 2000]


@pytest.mark.parametrize(
    ("color", "message"),
    [
        ((3, 0, 0), "24 pixels hold class 3 .first at y 0, x 0.; classes of 'toy'"),
        ((1, 3, 232), "instance id 1000 .* label divisor 1000"),
        ((0, 0, 5), "stuff class road"),
    ],
)
def test_labels_that_do_not_fit_are_refused_when_loaded(
    color: tuple[int, int, int], message: str, tmp_path: Path
) -> None:
    write_plain(tmp_path, np.full((*SIZE, 3), color, np.uint8))
    with pytest.raises(DataError, match=message) as caught:
        only_panoptic(tmp_path)
    assert "labels/a.png" in str(caught.value)


def test_image_without_label_has_none(tmp_path: Path) -> None:
    write_plain(tmp_path, np.zeros(SIZE, np.uint8))
    write_image(tmp_path / "images/deep/b.jpg")
    folder = open_folder(tmp_path)
    assert [sample.name for sample in folder.samples] == ["a", "deep/b"]
    assert folder.samples[1].load_panoptic() is None
    assert folder.is_labelled


def test_a_given_data_set_wins_over_the_description(tmp_path: Path) -> None:
    write_plain(tmp_path, np.full(SIZE, 10, np.uint8))
    assert (only_panoptic(tmp_path, dataset=get_dataset("camvid")) == 10_000).all()


@pytest.mark.parametrize("folder", ["", "images"])
def test_images_alone_are_a_data_set_without_labels(
    folder: str, tmp_path: Path
) -> None:
    write_image(tmp_path / folder / "b.jpg")
    write_label(tmp_path / folder / "a.png", np.zeros(SIZE, np.uint8))
    opened = open_folder(tmp_path)
    assert [sample.name for sample in opened.samples] == ["a", "b"]
    assert opened.samples[0].load_image().shape == (*SIZE, 3)
    assert not opened.is_labelled


def test_folders_that_cannot_be_understood_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        open_folder(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="found a file"):
        open_folder(tmp_path / "file")
    with pytest.raises(DataError, match="holds no images"):
        open_folder(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="no images/"):
        open_folder(tmp_path)
    write_image(tmp_path / "images/a.jpg")
    with pytest.raises(DataError, match="write dataset.json"):
        open_folder(tmp_path)
    with pytest.raises(DataError, match="must be a.png"):
        open_folder(tmp_path, get_dataset("camvid"))
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ConfigError):
        open_folder(tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("folder", "dataset", "count"),
    [
        ("camvid/train", "camvid", 367),
        ("camvid/val", "camvid", 101),
        ("coco_sample", "coco_panoptic", 2),
        ("coco_sample", None, 2),
    ],
)
def test_real_folders_open(folder: str, dataset: str | None, count: int) -> None:
    info: DatasetInfo | None = get_dataset(dataset) if dataset else None
    opened = open_folder(DATA / folder, info)
    assert len(opened.samples) == count
    sample = opened.samples[0]
    panoptic = sample.load_panoptic()
    assert panoptic is not None
    assert panoptic.shape == sample.load_image().shape[:2]
