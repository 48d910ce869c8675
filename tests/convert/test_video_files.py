"""Files of models of videos: their results are those of the checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.cli import main
from deeplab2_edge.convert import ConversionOptions, DropLimit, convert_checkpoint
from deeplab2_edge.errors import UsageError
from deeplab2_edge.model_file import read_model_file
from deeplab2_edge.models.engine import load_engine
from deeplab2_edge.runtime import PanopticSegmenter
from deeplab2_edge.synth import render_video
from tests.train.small_run import SIZE, write_video
from tests.train.test_architectures import VIDEO_MODELS
from tests.train.test_segmenter import saved

pytestmark = pytest.mark.tf

# Weights from a formula put no center above the usual threshold.
LOW = {
    "evaluator_options.center_score_threshold": -1e9,
    "evaluator_options.keep_k_centers": 4,
    "evaluator_options.stuff_area_limit": 0,
}
FRAMES = {"motion_deeplab": "use_two_frames", "vip_deeplab": "use_next_frame"}


@pytest.mark.parametrize(
    ("architecture", "suffix"),
    [
        ("motion_deeplab", "tflite"),
        ("vip_deeplab", "tflite"),
        pytest.param("vip_deeplab", "onnx", marks=pytest.mark.slow),
    ],
)
def test_a_video_is_followed_as_by_the_checkpoint(
    architecture: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if suffix == "onnx":
        pytest.importorskip("tf2onnx", reason="install deeplab2-edge[onnx]")
        pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")
    read = {f"eval_dataset_options.{FRAMES[architecture]}": True}
    config, folder = saved(tmp_path, {**VIDEO_MODELS[architecture], **LOW, **read})
    records = write_video(tmp_path, 3)
    path = tmp_path / f"model.{suffix}"
    result = convert_checkpoint(
        ConversionOptions(
            checkpoint=str(folder),
            output=path,
            verification_data=records,
            verification_images=3,
        ),
        quiet=True,
    )
    assert not any("no frames of a video" in note for note in result.notes)
    report = result.verification
    assert max(head.relative_error for head in report.heads.values()) < 1e-4
    assert report.float_accuracy is not None and report.accuracy is not None
    assert report.accuracy.stq == pytest.approx(report.float_accuracy.stq)
    has_depth = architecture == "vip_deeplab"
    assert (report.accuracy.depth_error is not None) == has_depth

    frames = [scene.image for scene in render_video(1, num_frames=4, size=SIZE)]
    of_checkpoint = PanopticSegmenter(load_engine(config, folder))
    of_file = PanopticSegmenter(path)
    assert of_file.keeps_ids
    for expected, found in zip(
        of_checkpoint.segment_video(frames), of_file.segment_video(frames), strict=True
    ):
        assert np.mean(found.panoptic != expected.panoptic) < 0.01
        assert (found.depth is not None) == has_depth
    golden = read_model_file(path).golden
    assert golden is not None and len(golden.inputs) > 1

    options = ["--data", records, "--dataset", "synthetic_street", "--json", "--quiet"]
    assert main(["evaluate", str(path), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tracking_quality"]["stq"] == pytest.approx(report.accuracy.stq)


def test_images_that_are_no_video_are_said_to_measure_less(tmp_path: Path) -> None:
    read = {"eval_dataset_options.use_two_frames": True}
    _, folder = saved(tmp_path, {**VIDEO_MODELS["motion_deeplab"], **read})
    result = convert_checkpoint(
        ConversionOptions(
            checkpoint=str(folder),
            output=tmp_path / "model.tflite",
            verification_data="synthetic",
            verification_images=2,
            drop_limits=[DropLimit("miou", 1.0)],
            card=False,
        ),
        quiet=True,
    )
    assert any("no frames of a video" in note for note in result.notes)
    assert any("judged by 2 images" in note for note in result.notes)


def test_limits_are_of_metrics_that_the_model_has(tmp_path: Path) -> None:
    _, folder = saved(tmp_path, VIDEO_MODELS["motion_deeplab"])
    with pytest.raises(UsageError, match="no such metric; .* pq, miou, stq"):
        convert_checkpoint(
            ConversionOptions(
                checkpoint=str(folder), drop_limits=[DropLimit("depth", 1.0)]
            ),
            quiet=True,
        )
