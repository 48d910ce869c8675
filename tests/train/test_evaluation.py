"""Evaluation of checkpoints: the network, then the NumPy rules, then the metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import save_weights
from deeplab2_edge.cli import main
from deeplab2_edge.config import ExperimentOptions, format_config
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import ConfigError, DataError, UsageError
from deeplab2_edge.images import write_png
from deeplab2_edge.metrics import (
    DepthError,
    MeanIou,
    MetricReport,
    PanopticQuality,
    TrackingQuality,
    VideoPanopticQuality,
)
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import dataset_of, merge_settings
from deeplab2_edge.panoptic import (
    Heads,
    MaskSettings,
    MotionSettings,
    MotionTracker,
    decode_masks,
    merge_heads,
    merge_two_frames,
    resize_bilinear,
)
from deeplab2_edge.samples import SampleSet, open_samples, video_of
from deeplab2_edge.train.evaluation import evaluate_checkpoint
from deeplab2_edge.train.modes import train_and_evaluate
from deeplab2_edge.train.predictors import (
    CanvasNetwork,
    MaskPredictor,
    MotionPredictor,
    SemanticPredictor,
    TwoFramePredictor,
)
from tests.convert.tiny import fill
from tests.train.small_run import SIZE, experiment, write_scenes, write_video
from tests.train.test_architectures import (
    NO_INSTANCE_LOSS,
    PANOPTIC,
    VIDEO_MODELS,
    mask_transformer,
)

pytestmark = pytest.mark.tf

SEMANTIC: dict[str, dict[str, object]] = {
    "panoptic_deeplab": {f"{PANOPTIC}.instance.enable": False},
    "deeplab_v3": {PANOPTIC: None, "model_options.deeplab_v3.num_classes": 11},
    "deeplab_v3_plus": {
        PANOPTIC: None,
        "model_options.deeplab_v3_plus.num_classes": 11,
        "model_options.deeplab_v3_plus.low_level.feature_key": "res2",
        "model_options.deeplab_v3_plus.low_level.channels_project": 8,
    },
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 2)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_video(tmp_path_factory.mktemp("video"), 2)


def saved(folder: Path, config: ExperimentOptions) -> tuple[Any, Path]:
    """Makes a model with weights and its checkpoint."""
    model = build_model(config, input_size=SIZE, batch_size=1)
    fill(model)
    save_weights(model, folder / "ckpt")
    (folder / "config.textproto").write_text(format_config(config))
    return model, folder


def heads_of(model: Any, *frames: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    image = np.concatenate(frames, axis=-1)[np.newaxis].astype(np.float32)
    outputs = model(image)
    return {k: v[0].numpy() for k, v in outputs.items() if k != "auxiliary_outputs"}


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    # A traced network rounds in another way, which a few pixels may show.
    assert found.shape == expected.shape
    assert np.mean(found != expected) < 0.005


def measured(config: ExperimentOptions, folder: Path, data: SampleSet) -> MetricReport:
    report = evaluate_checkpoint(config, folder, data, quiet=True)
    assert isinstance(report, MetricReport)
    assert report.to_json()["num_images"] == len(data.samples)
    assert "mIoU" in report.format()
    return report


@pytest.mark.parametrize("architecture", SEMANTIC)
def test_semantic_models_have_mean_iou(
    scenes: str, tmp_path: Path, architecture: str
) -> None:
    config = experiment(scenes, SEMANTIC[architecture])
    model, folder = saved(tmp_path, config)
    data = open_samples(scenes, dataset_of(config))
    predict = SemanticPredictor(CanvasNetwork(config, folder))
    miou = MeanIou(11, 255)
    for sample in data.samples:
        found = predict(sample.load_image())
        logits = heads_of(model, sample.load_image())[keys.SEMANTIC_LOGITS]
        assert_same(found.semantic, resize_bilinear(logits, SIZE).argmax(axis=-1))
        assert np.array_equal(found.panoptic, found.semantic * 1000)
        label = sample.load_panoptic()
        assert label is not None
        miou.update(label // 1000, found.semantic)
    report = measured(config, folder, data)
    assert report.results == {"miou": miou.result()}


@pytest.mark.slow
def test_the_command_measures_a_semantic_model(
    scenes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = saved(tmp_path, experiment(scenes, SEMANTIC["deeplab_v3"]))
    words = ["evaluate", str(folder), "--data", scenes, "--quiet"]
    words += ["--dataset", "synthetic_street"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_images"] == 2
    assert "mean_iou" in report and "panoptic_quality" not in report
    assert main([*words, "--official", str(tmp_path / "out")]) == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["scene0.png", "scene1.png"]
    capsys.readouterr()
    assert main([*words, "--metrics", "ap"]) == 2
    assert "ap is not measured of deeplab_v3" in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_of_a_semantic_run_has_the_best_iou(
    scenes: str, tmp_path: Path
) -> None:
    changes = {**SEMANTIC["deeplab_v3"], **NO_INSTANCE_LOSS}
    config = experiment(scenes, changes)
    _, (one,) = train_and_evaluate(config, tmp_path, quiet=True)
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert best["metric"] == "IoU"
    assert best["value"] == one.report.to_json()["mean_iou"]["miou"]


def test_mask_transformers_have_panoptic_quality(scenes: str, tmp_path: Path) -> None:
    thresholds = {
        "evaluator_options.transformer_class_confidence_threshold": 0.05,
        "evaluator_options.pixel_confidence_threshold": 0.0,
    }
    config = experiment(scenes, {**mask_transformer(), **thresholds})
    model, folder = saved(tmp_path, config)
    info = dataset_of(config)
    data = open_samples(scenes, info)
    predict = MaskPredictor(CanvasNetwork(config, folder))
    pq = PanopticQuality(11, 255, label_divisor=1000, thing_ids=info.thing_ids)
    for sample in data.samples:
        found = predict(sample.load_image())
        heads = heads_of(model, sample.load_image())
        maps = decode_masks(
            heads[keys.PIXEL_SPACE_MASK_LOGITS],
            heads[keys.TRANSFORMER_CLASS_LOGITS],
            canvas=SIZE,
            settings=MaskSettings.from_options(config.evaluator_options, info),
        )
        assert_same(found.panoptic, maps.panoptic)
        assert_same(found.semantic, maps.semantic)
        assert found.scores is not None
        assert {*np.unique(found.panoptic).tolist()} - {255000} == found.scores.keys()
        label = sample.load_panoptic()
        assert label is not None
        pq.update(label, found.panoptic)
    report = measured(config, folder, data)
    assert report.results["pq"] == pq.result()
    assert report.results.keys() == {"pq", "miou"}


def low_threshold(changes: dict[str, object]) -> dict[str, object]:
    return {
        **changes,
        "evaluator_options.center_score_threshold": -1e9,
        "evaluator_options.keep_k_centers": 8,
        "evaluator_options.stuff_area_limit": 0,
        "eval_dataset_options.dataset": "synthetic_street",
    }


@pytest.mark.slow
def test_motion_models_are_tracked(video: str, tmp_path: Path) -> None:
    config = experiment(video, low_threshold(VIDEO_MODELS["motion_deeplab"]))
    model, folder = saved(tmp_path, config)
    info = dataset_of(config)
    data = open_samples(video, info)
    predict = MotionPredictor(CanvasNetwork(config, folder))
    predict.begin_video()
    settings = merge_settings(config, info, SIZE)
    tracker = MotionTracker(MotionSettings(info.thing_ids, 1000))
    space = {"label_divisor": 1000, "thing_ids": info.thing_ids}
    pq, stq = PanopticQuality(11, 255, **space), TrackingQuality(11, 255, **space)
    heatmap, previous = np.zeros(SIZE, np.float32), None
    for sample in data.samples:
        image = sample.load_image()
        found = predict(image)
        before = image if previous is None else previous
        heads = heads_of(model, image, before, heatmap[..., np.newaxis])
        maps = merge_heads(*merge_inputs(heads), canvas=SIZE, settings=settings)
        tracked = tracker.update(maps.panoptic, heads[keys.FRAME_OFFSET_MAP])
        heatmap, previous = tracked.heatmap, image
        assert_same(found.panoptic, tracked.panoptic)
        label = sample.load_panoptic()
        assert label is not None
        pq.update(label, found.panoptic)
        stq.update(label, found.panoptic, sequence="0")
    assert heatmap.any()
    report = measured(config, folder, data)
    assert report.results["pq"] == pq.result()
    assert report.results["stq"] == stq.result()


def merge_inputs(heads: dict[str, NDArray[np.float32]]) -> tuple[Any, Any, Any]:
    return (
        heads[keys.SEMANTIC_LOGITS],
        heads[keys.CENTER_HEATMAP][..., 0],
        heads[keys.OFFSET_MAP],
    )


def test_vip_models_share_ids_in_pairs(video: str, tmp_path: Path) -> None:
    config = experiment(video, low_threshold(VIDEO_MODELS["vip_deeplab"]))
    model, folder = saved(tmp_path, config)
    info = dataset_of(config)
    data = open_samples(video, info)
    predict = TwoFramePredictor(CanvasNetwork(config, folder))
    space = {"label_divisor": 1000, "thing_ids": info.thing_ids}
    vpq = VideoPanopticQuality(11, 255, windows=(2,), **space)
    depth = DepthError()
    for number, sample in enumerate(data.samples):
        stored = sample.load_next()  # type: ignore[attr-defined]
        image = sample.load_image()
        found = predict(image, stored[0])
        heads = heads_of(model, image, stored[0])
        pair = merge_two_frames(
            Heads(*merge_inputs(heads)),
            heads[keys.NEXT_OFFSET_MAP],
            Heads(*merge_inputs(heads_of(model, stored[0], image))),
            canvas=SIZE,
            settings=merge_settings(config, info, SIZE),
        )
        assert found.pair is not None and found.frame.depth is not None
        assert_same(found.pair[0], pair.current.panoptic)
        assert_same(found.pair[1], pair.next_panoptic)
        expected = resize_bilinear(heads[keys.DEPTH_PRED][..., 0], SIZE)
        np.testing.assert_allclose(found.frame.depth, expected, rtol=1e-3)
        label = sample.load_panoptic()
        assert label is not None
        vpq.update(label, found.pair[0], sequence=number)
        vpq.update(stored[1], found.pair[1], sequence=number)
        depth.update(sample.load_depth(), found.frame.depth)  # type: ignore[attr-defined]
    report = measured(config, folder, data)
    assert report.results["vpq_2frames"] == vpq.result()
    assert report.results["depth"] == depth.result()
    # The last frame of a video has no next one.
    assert predict(image, None).pair is None
    assert predict.end_video() is None


def test_what_cannot_be_evaluated_is_refused(scenes: str, tmp_path: Path) -> None:
    config = experiment(scenes, low_threshold(VIDEO_MODELS["motion_deeplab"]))
    _, folder = saved(tmp_path, config)
    data = open_samples(scenes, dataset_of(config))
    with pytest.raises(DataError, match="is no frame of a video"):
        evaluate_checkpoint(config, folder, data, quiet=True)
    with pytest.raises(UsageError, match="depth is not measured of motion_deeplab"):
        evaluate_checkpoint(config, folder, data, metrics=["depth"], quiet=True)
    off = {"model_options.motion_deeplab.instance.enable": False}
    changed = experiment(scenes, {**VIDEO_MODELS["motion_deeplab"], **off})
    with pytest.raises(ConfigError, match=r"motion_deeplab.instance.enable is false"):
        evaluate_checkpoint(changed, folder, data, quiet=True)


def test_frames_of_a_video_come_together(tmp_path: Path) -> None:
    for name in ("a_1", "b_1", "b_2", "c_1"):
        for folder in ("images", "labels"):
            shape = (*SIZE, 3) if folder == "images" else SIZE
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            write_png(path, np.zeros(shape, np.uint8))
    samples = open_samples(tmp_path, get_dataset("synthetic_street")).samples
    assert [video_of(sample) for sample in samples] == ["a", "b", "b", "c"]
    first = open_samples(
        tmp_path, get_dataset("synthetic_street"), limit=2, from_start=True
    )
    assert [sample.name for sample in first.samples] == ["a_1", "b_1"]
    config = experiment("none", VIDEO_MODELS["motion_deeplab"])
    _, folder = saved(tmp_path, config)
    torn = SampleSet(first.info, [samples[n] for n in (1, 3, 2)])
    with pytest.raises(DataError, match="b_2: video b goes on after another one"):
        evaluate_checkpoint(config, folder, torn, quiet=True)
