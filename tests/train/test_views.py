"""Test-time augmentation: what is averaged, and at which size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import load_weights, save_weights
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import KerasEngine
from deeplab2_edge.panoptic import resize_bilinear
from deeplab2_edge.runtime import PanopticSegmenter
from deeplab2_edge.runtime.predictors import CanvasEngine, TwoFramePredictor
from deeplab2_edge.train.evaluation import require_evaluable
from deeplab2_edge.train.views import (
    AveragingEngine,
    View,
    average,
    load_evaluation_engine,
)
from tests.convert.tiny import fill
from tests.train.small_run import SIZE, experiment
from tests.train.test_architectures import VIDEO_MODELS, mask_transformer

pytestmark = pytest.mark.tf

Heads = dict[str, NDArray[np.float32]]
FLIP = {"evaluator_options.add_flipped_images": True}
LARGER = (49, 97)  # SIZE at 1.5
# Weights from a formula put no center above the usual threshold.
LOW = {
    "evaluator_options.center_score_threshold": -1e9,
    "evaluator_options.keep_k_centers": 8,
    "evaluator_options.stuff_area_limit": 0,
}


def softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def saved(folder: Path, config: ExperimentOptions) -> None:
    model = build_model(config, input_size=SIZE, batch_size=1)
    fill(model)
    save_weights(model, folder / "ckpt")


def picture(seed: int = 0) -> NDArray[np.uint8]:
    """Draws smooth noise, of which a network makes several classes."""
    rng = np.random.default_rng(seed)
    noise = resize_bilinear(rng.uniform(0, 255, (9, 17, 3)), SIZE)
    return noise.astype(np.uint8)


def test_heads_are_averaged_on_the_canvas() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(2, 5, 9, 4))
    heads = [
        {
            keys.SEMANTIC_LOGITS: source[0].astype(np.float32),
            keys.CENTER_HEATMAP: source[1][..., :1].astype(np.float32),
            keys.OFFSET_MAP: source[1][..., 1:3].astype(np.float32),
            keys.DEPTH_PRED: source[1][..., 3:].astype(np.float32),
        }
        for source in (small, large)
    ]
    views = [
        View(None, (9, 17), is_flipped=False),
        View(None, (9, 17), is_flipped=True),
    ]
    found = average(views, heads, (9, 17))
    resized = [{k: resize_bilinear(v, (9, 17)) for k, v in h.items()} for h in heads]
    one, two = resized[0], {k: v[:, ::-1] for k, v in resized[1].items()}
    np.testing.assert_allclose(
        found[keys.CENTER_HEATMAP],
        (one[keys.CENTER_HEATMAP] + two[keys.CENTER_HEATMAP]) / 2,
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        found[keys.DEPTH_PRED],
        (one[keys.DEPTH_PRED] + two[keys.DEPTH_PRED]) / 2,
        rtol=1e-6,
    )
    # (9 - 1) / (3 - 1) and (9 - 1) / (5 - 1); dx of the mirrored view turns around.
    offsets = one[keys.OFFSET_MAP] * 4 + two[keys.OFFSET_MAP] * (2, -2)
    np.testing.assert_allclose(found[keys.OFFSET_MAP], offsets / 2, atol=1e-6)
    probabilities = sum(softmax(h[keys.SEMANTIC_LOGITS]) for h in (one, two)) / 2
    np.testing.assert_allclose(
        softmax(found[keys.SEMANTIC_LOGITS]), probabilities, rtol=1e-5
    )


def test_one_scale_of_one_is_no_augmentation(tmp_path: Path) -> None:
    saved(tmp_path, experiment("none"))
    scaled = load_evaluation_engine(
        experiment("none", {"evaluator_options.eval_scales": (1.0,)}), tmp_path
    )
    assert isinstance(scaled, KerasEngine)


def test_scales_and_flips_are_averaged(tmp_path: Path) -> None:
    options = {**FLIP, "evaluator_options.eval_scales": (1.0, 1.5), **LOW}
    config = experiment("none", options)
    saved(tmp_path, config)
    engine = load_evaluation_engine(config, tmp_path)
    assert isinstance(engine, AveragingEngine) and len(engine.views) == 4
    image = picture()
    found = engine.run({keys.IMAGE: image})
    # By hand: four passes of two networks.
    total: dict[str, Any] = {}
    for size in (SIZE, LARGER):
        # The window of the ASPP, (2, 3) at stride 32, is scaled as the side is.
        pool = (2, 4) if size == LARGER else None
        model = build_model(config, input_size=size, batch_size=1, pool_size=pool)
        load_weights(model, tmp_path)
        for step in (1, -1):
            seen = resize_bilinear(image, size)[:, ::step]
            for name, head in model(seen[np.newaxis]).items():
                growth = [
                    (c - 1) / (s - 1)
                    for c, s in zip(SIZE, head.shape[1:3], strict=True)
                ]
                on_canvas = resize_bilinear(head[0].numpy(), SIZE)[:, ::step]
                if name == keys.OFFSET_MAP:
                    on_canvas = on_canvas * (growth[0], step * growth[1])
                if name == keys.SEMANTIC_LOGITS:
                    on_canvas = softmax(on_canvas)
                total[name] = total.get(name, 0) + on_canvas
    found[keys.SEMANTIC_LOGITS] = softmax(found[keys.SEMANTIC_LOGITS])
    assert found.keys() == total.keys()
    for name, expected in total.items():
        largest = np.abs(expected).max()
        np.testing.assert_allclose(found[name], expected / 4, atol=1e-4 * largest)

    # A mirrored image gives the mirrored result.
    segment = PanopticSegmenter(engine, with_class_scores=True)
    one, two = segment(image), segment(np.ascontiguousarray(image[:, ::-1]))
    assert len(np.unique(one.semantic)) > 1
    assert np.mean(one.semantic != two.semantic[:, ::-1]) < 0.005


@pytest.mark.slow
def test_pairs_of_frames_are_averaged(tmp_path: Path) -> None:
    changes = {**VIDEO_MODELS["vip_deeplab"], **FLIP, **LOW}
    config = experiment("none", changes)
    saved(tmp_path, config)
    predict = TwoFramePredictor(CanvasEngine(load_evaluation_engine(config, tmp_path)))
    frames = picture(1), picture(2)
    found = predict(*frames)
    mirrored = predict(*(np.ascontiguousarray(f[:, ::-1]) for f in frames))
    assert found.frame.depth is not None and mirrored.frame.depth is not None
    np.testing.assert_allclose(
        found.frame.depth, mirrored.frame.depth[:, ::-1], rtol=1e-4
    )
    assert np.mean(found.frame.semantic != mirrored.frame.semantic[:, ::-1]) < 0.005
    model = build_model(config, input_size=SIZE, batch_size=1)
    load_weights(model, tmp_path)
    depth = 0.0
    for step in (1, -1):
        seen = np.concatenate(frames, axis=-1)[:, ::step]
        head = model(seen[np.newaxis].astype(np.float32))[keys.DEPTH_PRED]
        depth = depth + resize_bilinear(head[0].numpy()[..., 0], SIZE)[:, ::step] / 2
    np.testing.assert_allclose(found.frame.depth, depth, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (FLIP, r"add_flipped_images is true; masks of max_deeplab cannot be averaged"),
        (
            {"evaluator_options.eval_scales": (0.5, 1.0)},
            r"eval_scales is \[0.5, 1.0\]; masks of max_deeplab cannot be averaged",
        ),
    ],
)
def test_masks_are_not_averaged(changes: dict[str, object], message: str) -> None:
    config = experiment("none", {**mask_transformer(), **changes})
    with pytest.raises(ConfigError, match=message):
        require_evaluable(config)
