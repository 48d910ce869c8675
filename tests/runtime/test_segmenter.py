"""From an image to a result, with a network whose answer is known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import DataError, ModelFileError
from deeplab2_edge.images import write_png
from deeplab2_edge.metrics import segment_scores
from deeplab2_edge.model_file import ModelMetadata
from deeplab2_edge.panoptic import merge_heads, resize_bilinear
from deeplab2_edge.runtime import PanopticSegmenter
from tests.runtime.tiny_model import (
    CANVAS,
    CAR_CLASS,
    FLOAT_MODEL,
    INT8_MODEL,
    ROAD_CLASS,
    SKY_CLASS,
    draw_scene,
    tiny_metadata,
)


@pytest.mark.parametrize("path", [FLOAT_MODEL, INT8_MODEL])
def test_two_cars_that_touch_are_told_apart(path: Path) -> None:
    result = PanopticSegmenter(path)(draw_scene())

    sky, road, left, right = result.segments
    assert (sky.id, road.id, left.id, right.id) == (0, 1000, 2001, 2002)
    assert [s.class_name for s in result.segments] == ["sky", "road", "car", "car"]
    assert [s.is_thing for s in result.segments] == [False, False, True, True]
    assert sky.score is None
    assert left.score == pytest.approx(0.65, abs=0.01)
    # The edges of the cars lie within one head pixel of where they are drawn.
    np.testing.assert_allclose(left.box_xyxy, (20, 36, 48, 52), atol=3)
    np.testing.assert_allclose(right.box_xyxy, (48, 36, 80, 52), atol=3)
    assert left.box_xyxy[2] == right.box_xyxy[0] == 48
    assert result.panoptic[0, 0] == SKY_CLASS * 1000
    assert result.panoptic[64, 0] == ROAD_CLASS * 1000
    assert result.semantic[44, 30] == CAR_CLASS


@pytest.mark.parametrize("path", [FLOAT_MODEL, INT8_MODEL])
@pytest.mark.parametrize("factor", [1, 2])
def test_scores_can_hold_the_probability_of_the_class(path: Path, factor: int) -> None:
    image = np.repeat(np.repeat(draw_scene(), factor, axis=0), factor, axis=1)
    plain = PanopticSegmenter(path)
    found = PanopticSegmenter(path, with_class_scores=True)(image)
    heads = plain.engine.run({keys.IMAGE: draw_scene()})
    settings = plain.metadata.merge
    assert settings is not None
    maps = merge_heads(
        heads[keys.SEMANTIC_LOGITS],
        heads[keys.CENTER_HEATMAP][..., 0],
        heads[keys.OFFSET_MAP],
        canvas=CANVAS,
        settings=settings,
    )
    powers = np.exp(resize_bilinear(heads[keys.SEMANTIC_LOGITS], CANVAS))
    scores = segment_scores(
        maps.panoptic,
        powers / powers.sum(axis=-1, keepdims=True),
        maps.instance_scores,
        ignore_label=255,
        label_divisor=1000,
    )
    things = [s for s in found.segments if s.is_thing]
    assert [s.id for s in things] == [2001, 2002]
    for segment in things:
        assert segment.score == pytest.approx(scores[segment.id], rel=2e-2 * factor)
        if factor == 1:
            assert segment.score == pytest.approx(scores[segment.id], rel=1e-4)
    assert all(s.score is None for s in found.segments if not s.is_thing)


def test_result_has_the_size_of_the_image() -> None:
    large = np.repeat(np.repeat(draw_scene(), 4, axis=0), 4, axis=1)
    small = PanopticSegmenter(FLOAT_MODEL)(draw_scene())
    result = PanopticSegmenter(FLOAT_MODEL)(large)
    assert result.panoptic.shape == result.semantic.shape == large.shape[:2]
    assert [s.id for s in result.segments] == [s.id for s in small.segments]
    for one, other in zip(result.segments, small.segments, strict=True):
        assert one.area_px == pytest.approx(16 * other.area_px, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 5), (66, 130)])
def test_any_image_size_works(shape: tuple[int, int]) -> None:
    result = PanopticSegmenter(FLOAT_MODEL)(np.zeros((*shape, 3), np.uint8))
    assert result.panoptic.shape == shape
    assert result.panoptic[0, 0] == 0
    assert result.segments[0].box_xyxy[:2] == (0, 0)


def test_path_and_array_give_the_same(tmp_path: Path) -> None:
    write_png(tmp_path / "scene.png", draw_scene())
    segmenter = PanopticSegmenter(str(INT8_MODEL))
    from_path = segmenter(tmp_path / "scene.png")
    from_array = segmenter(draw_scene())
    np.testing.assert_array_equal(from_path.panoptic, from_array.panoptic)
    assert list(from_path.timings_ms) == ["decode", "preprocess", "network", "merge"]
    assert "decode" not in from_array.timings_ms


def test_own_engine_may_be_used() -> None:
    class Sky:
        metadata: ModelMetadata = tiny_metadata()

        is_integer = False

        def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            zeros = np.zeros((17, 33, 3), np.float32)
            return {
                keys.SEMANTIC_LOGITS: zeros,
                keys.CENTER_HEATMAP: zeros[..., :1],
                keys.OFFSET_MAP: zeros[..., :2],
            }

    result = PanopticSegmenter(Sky())(draw_scene())
    assert [s.class_name for s in result.segments] == ["sky"]


def test_looking_and_finishing_give_the_result() -> None:
    segmenter = PanopticSegmenter(INT8_MODEL)
    assert segmenter.has_stages
    first, second = draw_scene(), draw_scene()[:, ::-1].copy()
    seen = [segmenter.look(image) for image in (first, second)]
    for image, one in zip((first, second), seen, strict=True):
        whole, result = segmenter(image), segmenter.finish(one)
        np.testing.assert_array_equal(result.panoptic, whole.panoptic)
        assert [s.to_dict() for s in result.segments] == [
            s.to_dict() for s in whole.segments
        ]
        assert list(result.timings_ms) == ["preprocess", "network", "merge"]


def test_wrong_inputs_are_refused(tmp_path: Path) -> None:
    segmenter = PanopticSegmenter(FLOAT_MODEL)
    with pytest.raises(DataError, match="nowhere.png"):
        segmenter(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match="must be uint8"):
        segmenter(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="give a path"):
        segmenter(None)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="no such file"):
        PanopticSegmenter(tmp_path / "nowhere.tflite")
