"""Results: segments that are true at the image's size, COCO export, saved files."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, OutputError, UsageError
from deeplab2_edge.images import read_image
from deeplab2_edge.panoptic import MergeSettings, PanopticMaps, resize_nearest
from deeplab2_edge.runtime.preprocess import Placement
from deeplab2_edge.runtime.results import PanopticResult, build_result
from tests.runtime.tiny_model import tiny_metadata

VOID = 255_000
# Sky above road, one car of two pixels, one void pixel.
SMALL = np.array([[0, 0, 0, 0], [1000, 2001, 2001, 1000], [1000] * 3 + [VOID]])


def test_segments_of_a_small_map_by_hand() -> None:
    result = _result(SMALL)
    sky, road, car = result.segments
    assert (sky.id, sky.area_px, sky.box_xyxy) == (0, 4, (0, 0, 4, 1))
    assert (road.id, road.area_px, road.box_xyxy) == (1000, 5, (0, 1, 4, 3))
    assert (car.id, car.area_px, car.box_xyxy) == (2001, 2, (1, 1, 3, 2))
    assert car.score == pytest.approx(0.5)
    np.testing.assert_array_equal(car.mask, SMALL == 2001)
    np.testing.assert_array_equal(
        result.segment_map, [[1, 1, 1, 1], [2, 3, 3, 2], [2, 2, 2, 0]]
    )


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    canvas=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    image=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    divisor=st.sampled_from([1000, 1 << 22]),
)
def test_areas_and_boxes_are_those_of_the_map_at_image_size(
    seed: int, canvas: tuple[int, int], image: tuple[int, int], divisor: int
) -> None:
    rng = np.random.default_rng(seed)
    choices = np.array([0, divisor, 2 * divisor + 1, 2 * divisor + 2, 255 * divisor])
    panoptic = rng.choice(choices, (canvas[0] + 3, canvas[1] + 2)).astype(np.int32)
    result = _result(panoptic, image=image, resized=canvas, divisor=divisor)

    expected = resize_nearest(panoptic[: canvas[0], : canvas[1]], image)
    np.testing.assert_array_equal(result.panoptic, expected)
    ids = [segment.id for segment in result.segments]
    assert ids == sorted(set(np.unique(expected).tolist()) - {255 * divisor})
    for number, segment in enumerate(result.segments, start=1):
        rows, columns = np.nonzero(segment.mask)
        assert segment.area_px == len(rows)
        assert segment.box_xyxy == (
            columns.min(),
            rows.min(),
            columns.max() + 1,
            rows.max() + 1,
        )
        np.testing.assert_array_equal(result.segment_map == number, segment.mask)


def test_image_of_void_alone_has_no_segments_and_still_draws() -> None:
    for divisor in (1000, 1 << 22):
        result = _result(np.full((3, 5), 255 * divisor), divisor=divisor)
        assert result.segments == ()
        assert not result.segment_map.any()
        np.testing.assert_array_equal(result.overlay(), result.image)
        assert result.to_coco(1)[0]["segments_info"] == []


def test_scores_are_kept_within_0_and_1() -> None:
    for score, expected in ((1.7, 1.0), (-0.2, 0.0)):
        assert _result(SMALL, score=score).segments[2].score == expected


def test_result_is_frozen() -> None:
    result = _result(SMALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.panoptic = result.semantic  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        result.panoptic[0, 0] = 1
    with pytest.raises(DataError, match="semantic has shape"):
        dataclasses.replace(result, semantic=np.zeros((1, 1), np.int32))


def test_coco_annotation_and_png() -> None:
    annotation, png = _result(SMALL).to_coco(7, category_ids=[10, 20, 30])
    assert annotation["image_id"] == 7
    assert annotation["file_name"] == "7.png"
    assert annotation["segments_info"][2] == {
        "id": 3,
        "category_id": 30,
        "area": 2,
        "bbox": [1, 1, 2, 1],
        "iscrowd": 0,
        "score": pytest.approx(0.5),
    }
    assert "score" not in annotation["segments_info"][0]
    np.testing.assert_array_equal(
        png[..., 0], [[1, 1, 1, 1], [2, 3, 3, 2], [2, 2, 2, 0]]
    )
    assert not png[..., 1:].any()


def test_coco_ids_beyond_a_byte_use_the_second_channel() -> None:
    panoptic = 2000 + np.arange(1, 301).reshape(10, 30)
    annotation, png = _result(panoptic).to_coco(1)
    red, green, _ = np.moveaxis(png.astype(np.int32), 2, 0)
    np.testing.assert_array_equal(red + 256 * green, np.arange(1, 301).reshape(10, 30))
    assert [s["category_id"] for s in annotation["segments_info"]] == [3] * 300


def test_coco_needs_a_category_for_each_class() -> None:
    with pytest.raises(UsageError, match="the model has 3"):
        _result(SMALL).to_coco(1, category_ids=[1])


def test_save_writes_three_files(tmp_path: Path) -> None:
    result = _result(SMALL)
    paths = result.save(tmp_path / "new", "scene")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "scene.json",
        "scene_overlay.png",
        "scene_panoptic.png",
    ]
    document = json.loads(paths["json"].read_text())
    assert document["image_size"] == [3, 4]
    assert document["segments"][2]["class_name"] == "car"
    assert document["coco"]["file_name"] == "scene_panoptic.png"
    np.testing.assert_array_equal(
        read_image(paths["panoptic"])[..., 0], result.segment_map
    )
    assert "overlay" not in result.save(tmp_path, "plain", overlay=False)


def test_save_where_nothing_can_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        _result(SMALL).save(tmp_path / "file", "scene")
    with pytest.raises(OutputError, match="x_overlay.png"):
        _result(SMALL).save(tmp_path, "missing/x")


def test_overlay_keeps_void_and_blends_the_rest() -> None:
    result = _result(np.repeat(np.repeat(SMALL, 40, axis=0), 40, axis=1))
    image = result.overlay(alpha=1.0, labels=False)
    assert tuple(image[0, 0]) == (70, 130, 180)
    assert tuple(image[-1, -1]) == (100, 100, 100)
    half = result.overlay(alpha=0.5, labels=False)
    assert tuple(half[0, 0]) == (85, 115, 140)
    assert (result.image == 100).all()
    with pytest.raises(UsageError, match="alpha"):
        result.overlay(alpha=2.0)


def test_overlay_gives_things_of_one_class_different_colors() -> None:
    panoptic = np.full((120, 120), 2001)
    panoptic[:, 60:] = 2002
    image = _result(panoptic).overlay(alpha=1.0, labels=False)
    assert tuple(image[60, 10]) != tuple(image[60, 110])
    assert tuple(image[60, 59]) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(1, 1), (2, 200), (96, 96), (97, 150), (300, 100)])
def test_overlay_works_on_any_size(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    panoptic = rng.choice([0, 1000, 2001, 2002], shape)
    result = _result(panoptic)
    assert result.overlay(labels=False).shape == (*shape, 3)
    height, width, _ = result.overlay().shape
    assert height == shape[0]
    assert width == shape[1] if min(shape) < 96 else width > shape[1]


def test_legend_of_a_small_image_stands_beside_it() -> None:
    panoptic = np.zeros((120, 160), np.int32)
    panoptic[60:] = 1000  # stuff alone, so that no names are written
    plain = _result(panoptic).overlay(labels=False)
    overlay = _result(panoptic).overlay()
    np.testing.assert_array_equal(overlay[:, :160], plain)
    panel = overlay[:, 160:]
    for row, color in ((0, (70, 130, 180)), (1, (128, 64, 128))):
        assert (panel == color).all(axis=2).any(), row
    assert (panel > 200).all(axis=2).any()  # the text
    # The frames of a video have one size, whatever they show.
    assert _result(np.full((120, 160), VOID)).overlay().shape == overlay.shape


def test_labels_and_legend_are_drawn_where_there_is_room() -> None:
    result = _result(np.repeat(np.repeat(SMALL, 200, axis=0), 200, axis=1))
    difference = cv2.absdiff(result.overlay(), result.overlay(labels=False))
    car = next(s for s in result.segments if s.is_thing)
    left, top, _, _ = car.box_xyxy
    assert difference[top - 10 : top, left : left + 20].any()
    assert difference[-20:, :20].any()


def _result(
    panoptic: NDArray[np.generic],
    *,
    image: tuple[int, int] | None = None,
    resized: tuple[int, int] | None = None,
    divisor: int = 1000,
    score: float = 0.5,
) -> PanopticResult:
    panoptic = panoptic.astype(np.int32)
    shape = (panoptic.shape[0], panoptic.shape[1])
    image, resized = image or shape, resized or shape
    maps = PanopticMaps(
        panoptic=panoptic,
        semantic=np.minimum(panoptic // divisor, 2),
        instance=np.zeros_like(panoptic),
        instance_scores=np.full(shape, score, np.float32),
        centers_yx=np.zeros((0, 2), np.int32),
        center_scores=np.zeros(0, np.float32),
    )
    merge = MergeSettings(thing_ids=(2,), label_divisor=divisor, ignore_label=255)
    return build_result(
        np.full((*image, 3), 100, np.uint8),
        maps,
        Placement(image, resized),
        tiny_metadata(merge=merge, label_divisor=divisor),
    )
