"""Checkpoints of every family segment images and videos."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import save_weights
from deeplab2_edge.cli import main
from deeplab2_edge.config import ExperimentOptions, format_config
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.families import abilities_of
from deeplab2_edge.images import write_png
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import load_engine
from deeplab2_edge.panoptic import PanopticMaps
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from deeplab2_edge.synth import render_video
from tests.convert.tiny import fill
from tests.train.small_run import SIZE, experiment
from tests.train.test_architectures import PANOPTIC, VIDEO_MODELS, mask_transformer

pytestmark = pytest.mark.tf

SEMANTIC: dict[str, object] = {
    PANOPTIC: None,
    "model_options.deeplab_v3.num_classes": 11,
}


@pytest.fixture(scope="module")
def frames() -> list[NDArray[np.uint8]]:
    return [scene.image for scene in render_video(1, num_frames=3, size=SIZE)]


def saved(folder: Path, changes: dict[str, object]) -> tuple[ExperimentOptions, Path]:
    """Makes a checkpoint with its configuration."""
    config = experiment("records", changes)
    model = build_model(config, input_size=SIZE, batch_size=1)
    fill(model)
    save_weights(model, folder / "ckpt")
    (folder / "config.textproto").write_text(format_config(config))
    return config, folder


def test_abilities_of_each_family() -> None:
    def given(changes: dict[str, object]) -> tuple[bool, bool, bool]:
        found = abilities_of(experiment("records", changes))
        return found.has_instances, found.has_depth, found.keeps_ids

    assert given({}) == (True, False, False)
    assert given({f"{PANOPTIC}.instance.enable": False}) == (False, False, False)
    assert given(SEMANTIC) == (False, False, False)
    assert given(mask_transformer()) == (True, False, False)
    assert given(VIDEO_MODELS["motion_deeplab"]) == (True, False, True)
    assert given(VIDEO_MODELS["vip_deeplab"]) == (True, True, True)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_options.vip_deeplab.instance.enable": False}, "instance.enable"),
        (
            {"model_options.vip_deeplab.instance.next_regression_head": None},
            "next_regression_head",
        ),
    ],
)
def test_models_that_cannot_follow_a_video_are_refused(
    changes: dict[str, object], field: str
) -> None:
    wanted = {
        name: value
        for name, value in VIDEO_MODELS["vip_deeplab"].items()
        if not any(name.startswith(f"{other}.") for other in changes)
    }
    with pytest.raises(ConfigError, match=field):
        abilities_of(experiment("records", {**wanted, **changes}))


def test_a_semantic_model_gives_classes_alone(
    tmp_path: Path, frames: list[NDArray[np.uint8]]
) -> None:
    config, folder = saved(tmp_path, SEMANTIC)
    segmenter = PanopticSegmenter(load_engine(config, folder))
    results = list(segmenter.segment_video(frames))
    assert len(results) == len(frames)
    for image, result in zip(frames, results, strict=True):
        assert result.image is image
        assert not any(segment.is_thing for segment in result.segments)
        np.testing.assert_array_equal(result.panoptic // 1000, result.semantic)


@pytest.mark.parametrize(
    "architecture",
    ["motion_deeplab", pytest.param("vip_deeplab", marks=pytest.mark.slow)],
)
def test_video_models_give_a_result_for_each_frame(
    architecture: str, tmp_path: Path, frames: list[NDArray[np.uint8]]
) -> None:
    config, folder = saved(tmp_path, VIDEO_MODELS[architecture])
    segmenter = PanopticSegmenter(load_engine(config, folder))
    assert segmenter.keeps_ids
    results = list(segmenter.segment_video(frames))
    assert [r.image for r in results] == frames
    for result in results:
        assert result.metadata.label_divisor == 10_000
        assert result.panoptic.shape == SIZE
        assert (result.depth is not None) == (architecture == "vip_deeplab")
    # A second video begins anew: the same frames give the same ids.
    for again, result in zip(segmenter.segment_video(frames), results, strict=True):
        np.testing.assert_array_equal(again.panoptic, result.panoptic)


def test_instances_keep_their_ids_if_the_network_finds_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def merged(*_: Any, **__: Any) -> PanopticMaps:
        """Gives two cars that move right and swap their numbers in every frame."""
        shift, swap = 2 * len(calls), len(calls) % 2
        calls.append(1)
        panoptic = np.full(SIZE, 3000, np.int32)
        panoptic[10:20, 5 + shift : 20 + shift] = 8001 + swap
        panoptic[10:20, 35 + shift : 50 + shift] = 8002 - swap
        scores, none = np.zeros(SIZE, np.float32), np.zeros((0, 2), np.int32)
        return PanopticMaps(
            panoptic, panoptic // 1000, panoptic % 1000, scores, none, scores[0, :0]
        )

    monkeypatch.setattr("deeplab2_edge.runtime.predictors.maps.merge_heads", merged)
    monkeypatch.setattr("deeplab2_edge.runtime.native.is_available", lambda: False)
    config, folder = saved(tmp_path, VIDEO_MODELS["motion_deeplab"])
    images = [np.full((*SIZE, 3), 10 * n, np.uint8) for n in range(4)]
    results = list(PanopticSegmenter(load_engine(config, folder)).segment_video(images))
    for result in results:
        left, right = sorted(
            (s for s in result.segments if s.is_thing), key=lambda s: s.box_xyxy
        )
        assert (left.id % 10_000, right.id % 10_000) == (1, 2)


@pytest.mark.slow
def test_the_command_runs_a_folder_of_frames(
    tmp_path: Path, frames: list[NDArray[np.uint8]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = saved(tmp_path, VIDEO_MODELS["vip_deeplab"])
    images = tmp_path / "frames"
    images.mkdir()
    for number, image in enumerate(frames):
        write_png(images / f"{number + 8}.png", image)
    words = ["run", str(folder), str(images), "--output", str(tmp_path / "out")]
    assert main([*words, "--save", "all", "--quiet"]) == 0
    assert "3 images in" in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        f"{number}{rest}"
        for number in (8, 9, 10)
        for rest in (
            ".json",
            "_depth.png",
            "_depth_color.png",
            "_instances.png",
            "_overlay.png",
            "_panel.png",
            "_panoptic.png",
            "_points.ply",
            "_points.png",
            "_semantic.png",
        )
    }
    assert main([*words, "--threads", "2"]) == 2
    assert main([*words, "--track"]) == 2
    errors = capsys.readouterr().err
    assert "--threads belongs to converted files" in errors
    assert "follows instances by itself" in errors
