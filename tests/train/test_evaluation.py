"""Evaluation of checkpoints: the network, then the NumPy rules, then the metrics."""

import json
from collections.abc import Callable
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
    AveragePrecision,
    DepthError,
    DepthTrackingQuality,
    DepthVideoPanopticQuality,
    MeanIou,
    MetricReport,
    PanopticQuality,
    TrackingQuality,
    VideoPanopticQuality,
)
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import dataset_of, load_engine, merge_settings
from deeplab2_edge.panoptic import (
    Heads,
    MaskMaps,
    MaskSettings,
    MotionSettings,
    MotionTracker,
    TwoFrameMaps,
    VideoStitcher,
    decode_masks,
    merge_heads,
    merge_two_frames,
    resize_bilinear,
)
from deeplab2_edge.runtime.predictors import (
    CanvasEngine,
    MaskPredictor,
    MotionPredictor,
    SemanticPredictor,
    TwoFramePredictor,
)
from deeplab2_edge.samples import RecordSample, SampleSet, open_samples, video_of
from deeplab2_edge.train.evaluation import evaluate_checkpoint
from deeplab2_edge.train.modes import train_and_evaluate
from tests.convert.tiny import fill
from tests.train.small_run import SIZE, experiment, write_scenes, write_video
from tests.train.test_architectures import (
    NO_INSTANCE_LOSS,
    PANOPTIC,
    VIDEO_MODELS,
    mask_transformer,
)

pytestmark = pytest.mark.tf

Back = Callable[[NDArray[Any]], NDArray[Any]]
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


# Larger than the canvas, smaller, and the one larger only along an axis.
SHAPES = ((45, 70), (21, 40), (20, 90))


def other_sizes() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    noise = [rng.uniform(0, 255, (5, 9, 3)) for _ in SHAPES]
    images = [resize_bilinear(n, s) for n, s in zip(noise, SHAPES, strict=True)]
    return [image.astype(np.uint8) for image in images]


def placed(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Back]:
    """Gives the canvas of an image, and what brings a map of the canvas back."""
    shape = image.shape[:2]
    ratio = np.float32(min(SIZE[0] / shape[0], SIZE[1] / shape[1], 1.0))
    height, width = (int(np.float32(side) * ratio) for side in shape)
    canvas = np.full((*SIZE, 3), 128, np.uint8)
    resized = np.floor(resize_bilinear(image, (height, width)) + 0.5)
    canvas[:height, :width] = resized

    def back(canvas_map: NDArray[Any]) -> NDArray[Any]:
        if canvas_map.dtype == np.float32:
            return resize_bilinear(canvas_map[:height, :width], shape)
        rows, columns = (
            np.floor(np.arange(n) * ((m - 1) / (n - 1)) + 0.5).astype(int)
            for n, m in zip(shape, (height, width), strict=True)
        )
        return canvas_map[rows][:, columns]

    return canvas, back


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
    predict = SemanticPredictor(CanvasEngine(load_engine(config, folder)))
    miou = MeanIou(11, 255)
    for sample in data.samples:
        found = predict(sample.load_image())
        logits = heads_of(model, sample.load_image())[keys.SEMANTIC_LOGITS]
        assert_same(found.semantic, resize_bilinear(logits, SIZE).argmax(axis=-1))
        assert np.array_equal(found.panoptic, found.semantic * 1000)
        label = sample.load_panoptic()
        assert label is not None
        miou.update(label // 1000, found.semantic)
    for image in other_sizes():
        canvas, back = placed(image)
        found = predict(image)
        logits = heads_of(model, canvas)[keys.SEMANTIC_LOGITS]
        expected = resize_bilinear(logits, SIZE).argmax(axis=-1)
        assert_same(found.semantic, back(expected))
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
    (tmp_path / "photos").mkdir()
    write_png(tmp_path / "photos" / "a.png", np.zeros((*SIZE, 3), np.uint8))
    bare = ["eval", str(folder), "--data", str(tmp_path / "photos"), "--quiet"]
    bare += ["--dataset", "synthetic_street", "--official", str(tmp_path / "bare")]
    assert main(bare) == 0
    assert "no labels, nothing to measure" in capsys.readouterr().out
    assert (tmp_path / "bare" / "a.png").is_file()
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
    predict = MaskPredictor(CanvasEngine(load_engine(config, folder)))

    def decoded(canvas: NDArray[np.uint8]) -> MaskMaps:
        heads = heads_of(model, canvas)
        return decode_masks(
            heads[keys.PIXEL_SPACE_MASK_LOGITS],
            heads[keys.TRANSFORMER_CLASS_LOGITS],
            canvas=SIZE,
            settings=MaskSettings.from_options(config.evaluator_options, info),
        )

    pq = PanopticQuality(11, 255, label_divisor=1000, thing_ids=info.thing_ids)
    for sample in data.samples:
        found = predict(sample.load_image())
        maps = decoded(sample.load_image())
        assert_same(found.panoptic, maps.panoptic)
        assert_same(found.semantic, maps.semantic)
        assert found.scores is not None
        assert {*np.unique(found.panoptic).tolist()} - {255000} == found.scores.keys()
        label = sample.load_panoptic()
        assert label is not None
        pq.update(label, found.panoptic)
    for image in other_sizes():
        canvas, back = placed(image)
        assert_same(predict(image).panoptic, back(decoded(canvas).panoptic))
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
    predict = MotionPredictor(CanvasEngine(load_engine(config, folder)))
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
    for image in other_sizes():
        canvas, back = placed(image)
        predict.begin_video()
        tracker.reset()
        heads = heads_of(model, canvas, canvas, np.zeros((*SIZE, 1), np.float32))
        maps = merge_heads(*merge_inputs(heads), canvas=SIZE, settings=settings)
        tracked = tracker.update(maps.panoptic, heads[keys.FRAME_OFFSET_MAP])
        assert_same(predict(image).panoptic, back(tracked.panoptic))
    report = measured(config, folder, data)
    assert report.results["pq"] == pq.result()
    assert report.results["stq"] == stq.result()


def merge_inputs(heads: dict[str, NDArray[np.float32]]) -> tuple[Any, Any, Any]:
    return (
        heads[keys.SEMANTIC_LOGITS],
        heads[keys.CENTER_HEATMAP][..., 0],
        heads[keys.OFFSET_MAP],
    )


@pytest.mark.slow
def test_vip_models_share_ids_in_pairs_and_videos(video: str, tmp_path: Path) -> None:
    config = experiment(video, low_threshold(VIDEO_MODELS["vip_deeplab"]))
    model, folder = saved(tmp_path, config)
    info = dataset_of(config)
    data = open_samples(video, info)
    predict = TwoFramePredictor(
        CanvasEngine(load_engine(config, folder)), with_scores=True
    )

    def joined(
        frame: NDArray[np.uint8], other: NDArray[np.uint8]
    ) -> tuple[TwoFrameMaps, NDArray[np.float32]]:
        heads = heads_of(model, frame, other)
        maps = merge_two_frames(
            Heads(*merge_inputs(heads)),
            heads[keys.NEXT_OFFSET_MAP],
            Heads(*merge_inputs(heads_of(model, other, frame))),
            canvas=SIZE,
            settings=merge_settings(config, info, SIZE),
        )
        return maps, resize_bilinear(heads[keys.DEPTH_PRED][..., 0], SIZE)

    space = {"label_divisor": 1000, "thing_ids": info.thing_ids}
    pairs = VideoPanopticQuality(11, 255, windows=(2,), **space)
    stq, vpq = TrackingQuality(11, 255, **space), VideoPanopticQuality(11, 255, **space)
    dvpq, dstq = (
        DepthVideoPanopticQuality(11, 255, **space),
        DepthTrackingQuality(11, 255, **space),
    )
    depth, ap = DepthError(), AveragePrecision(11, 255, **space)
    stitcher = VideoStitcher(1000)
    for sample in data.samples:
        assert isinstance(sample, RecordSample)
        stored, image = sample.load_next(), sample.load_image()
        assert stored is not None
        found = predict(image, stored[0])
        by_hand, meters = joined(image, stored[0])
        assert found.pair is not None and found.frame.depth is not None
        assert_same(found.pair[0], by_hand.current.panoptic)
        assert_same(found.pair[1], by_hand.next_panoptic)
        expected = stitcher.update(by_hand.current.panoptic, by_hand.concat_next)
        assert_same(found.frame.panoptic, expected)
        np.testing.assert_allclose(found.frame.depth, meters, rtol=1e-3)
        label, true_depth = sample.load_panoptic(), sample.load_depth()
        assert label is not None and true_depth is not None
        pairs.update_window((label, stored[1]), found.pair)
        stq.update(label, found.frame.panoptic, sequence="0")
        vpq.update(label, found.frame.panoptic, sequence="0")
        depths = true_depth, found.frame.depth
        dvpq.update(label, found.frame.panoptic, *depths, sequence="0")
        dstq.update(label, found.frame.panoptic, *depths, sequence="0")
        depth.update(*depths)
        assert found.frame.scores is not None
        ap.update(label, found.frame.panoptic, found.frame.scores)
    # The last frame is in the data as a next one only.
    ending = predict.end_video()
    assert ending is not None
    assert_same(ending, stitcher.update(by_hand.next_frame.panoptic))
    stq.update(stored[1], ending, sequence="0")
    vpq.update(stored[1], ending, sequence="0")
    report = measured(config, folder, data)
    results = {"stq": stq, "vpq": vpq, "vpq_2frames": pairs, "depth": depth}
    for name, metric in results.items():
        assert report.results[name] == metric.result(), name
    names = ["ap", "stq", "dvpq", "dstq"]
    report = evaluate_checkpoint(config, folder, data, metrics=names, quiet=True)
    assert isinstance(report, MetricReport)
    results = {"ap": ap, "stq": stq, "dvpq": dvpq, "dstq": dstq}
    for name, metric in results.items():
        assert report.results[name] == metric.result(), name
    assert list(report.results) == ["ap", "stq", "dvpq", "dstq", "vpq_2frames"]

    # The last frame of a video has no next one.
    assert predict(image, None).pair is None
    assert predict.end_video() is None
    for image in other_sizes():
        predict.begin_video()
        (frame, back), (other, _) = placed(image), placed(255 - image)
        found = predict(image, 255 - image)
        by_hand, meters = joined(frame, other)
        assert found.pair is not None and found.frame.depth is not None
        assert_same(found.pair[0], back(by_hand.current.panoptic))
        assert_same(found.pair[1], back(by_hand.next_panoptic))
        np.testing.assert_allclose(found.frame.depth, back(meters), rtol=1e-3)


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
