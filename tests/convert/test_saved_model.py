"""SavedModels: what a server gets is what evaluation gets."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

import tensorflow as tf

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.convert.saved_model import export_saved_model
from deeplab2_edge.errors import OutputError, UsageError
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import KerasEngine
from deeplab2_edge.runtime.predictors import (
    CanvasEngine,
    MaskPredictor,
    MotionPredictor,
    PanopticPredictor,
    SemanticPredictor,
    TwoFramePredictor,
)
from deeplab2_edge.synth import render_scene, render_video
from tests.convert.tiny import fill
from tests.train.small_run import SIZE, experiment
from tests.train.test_architectures import PANOPTIC, VIDEO_MODELS, mask_transformer

pytestmark = pytest.mark.tf

SEMANTIC: dict[str, object] = {
    PANOPTIC: None,
    "model_options.deeplab_v3.num_classes": 11,
}
# Loads a model as a server does: our package cannot be imported.
_SERVE = """
import sys
sys.modules["deeplab2_edge"] = None
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
image = np.load(sys.argv[2])
maps = model.signatures["any_size"](image=tf.constant(image))
np.savez(sys.argv[3], **{name: value.numpy() for name, value in maps.items()})
"""


def make_engine(changes: dict[str, object]) -> KerasEngine:
    return KerasEngine(*make_model(changes))


def make_model(changes: dict[str, object]) -> tuple[Any, ExperimentOptions]:
    config = experiment("records", changes)
    model = build_model(config, input_size=SIZE, batch_size=1)
    fill(model)
    return model, config


def load(engine: KerasEngine, folder: Path) -> Any:
    export_saved_model(engine, folder)
    return tf.saved_model.load(str(folder))


def video(count: int) -> list[NDArray[np.uint8]]:
    return [scene.image for scene in render_video(1, num_frames=count, size=SIZE)]


@pytest.mark.parametrize(
    ("changes", "predictor"),
    [
        pytest.param(
            SEMANTIC, SemanticPredictor, id="semantic", marks=pytest.mark.slow
        ),
        pytest.param({}, PanopticPredictor, id="panoptic"),
        pytest.param(
            mask_transformer(), MaskPredictor, id="masks", marks=pytest.mark.slow
        ),
    ],
)
def test_images_give_the_maps_of_evaluation(
    changes: dict[str, object], predictor: Any, tmp_path: Path
) -> None:
    engine = make_engine(changes)
    served = load(engine, tmp_path / "served")
    predict = predictor(CanvasEngine(engine))
    # Smaller, larger, of another shape, and the canvas itself.
    for size in ((20, 30), (90, 140), (70, 40), SIZE):
        image = render_scene(3, size=size).image
        expected = predict(image)
        found = served.signatures["any_size"](image=tf.constant(image))
        semantic = found[keys.SEMANTIC_PRED].numpy()
        np.testing.assert_array_equal(semantic, expected.semantic)
        if keys.PANOPTIC_PRED in found:
            panoptic = found[keys.PANOPTIC_PRED].numpy()
            np.testing.assert_array_equal(panoptic, expected.panoptic)
    on_canvas = served.signatures["serving_default"](image=tf.constant(image[None]))
    np.testing.assert_array_equal(on_canvas[keys.SEMANTIC_PRED][0], semantic)


@pytest.mark.slow
def test_motion_gives_the_tracks_of_evaluation(tmp_path: Path) -> None:
    engine = make_engine(VIDEO_MODELS["motion_deeplab"])
    served = load(engine, tmp_path / "served")
    step = served.signatures["serving_default"]
    predict = MotionPredictor(CanvasEngine(engine))
    state = served.signatures["initial_state"]()
    previous = None
    for image in video(3):
        pixels = tf.constant(image[None])
        previous = pixels if previous is None else previous
        found = step(image=pixels, previous_image=previous, **state)
        state = {name: found[name] for name in state}
        expected = predict(image)
        np.testing.assert_array_equal(found[keys.PANOPTIC_PRED][0], expected.panoptic)
        np.testing.assert_array_equal(found[keys.SEMANTIC_PRED][0], expected.semantic)
        previous = pixels
    assert int(state["next_id"][0]) > 1


@pytest.mark.slow
def test_two_frames_give_the_pair_of_evaluation(tmp_path: Path) -> None:
    engine = make_engine(VIDEO_MODELS["vip_deeplab"])
    served = load(engine, tmp_path / "served")
    first, second = video(2)
    found = served.signatures["serving_default"](
        image=tf.constant(first[None]), next_image=tf.constant(second[None])
    )
    expected = TwoFramePredictor(CanvasEngine(engine))(first, second)
    assert expected.pair is not None and expected.frame.depth is not None
    panoptic, next_panoptic = expected.pair
    np.testing.assert_array_equal(found[keys.PANOPTIC_PRED][0], panoptic)
    np.testing.assert_array_equal(found[keys.NEXT_PANOPTIC_PRED][0], next_panoptic)
    np.testing.assert_array_equal(found[keys.SEMANTIC_PRED][0], expected.frame.semantic)
    np.testing.assert_allclose(
        found[keys.DEPTH_PRED][0], expected.frame.depth, rtol=1e-5
    )
    assert f"next_{keys.DEPTH_PRED}" in found


def test_a_server_needs_tensorflow_alone(tmp_path: Path) -> None:
    engine = make_engine({})
    info = export_saved_model(engine, tmp_path / "served")
    image = render_scene(4, size=(50, 70)).image
    np.save(tmp_path / "image.npy", image)
    paths = [str(tmp_path / name) for name in ("served", "image.npy", "maps.npz")]
    subprocess.run([sys.executable, "-c", _SERVE, *paths], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "maps.npz", allow_pickle=False)
    expected = PanopticPredictor(CanvasEngine(engine))(image)
    np.testing.assert_array_equal(found[keys.PANOPTIC_PRED], expected.panoptic)

    document = json.loads((info.path / "assets.extra/deeplab2_edge.json").read_text())
    assert document["label_divisor"] == 1000
    assert document["signatures"] == info.signatures
    inputs = info.signatures["serving_default"]["inputs"]
    assert inputs == {"image": f"uint8 [1, {SIZE[0]}, {SIZE[1]}, 3]"}
    assert info.signatures["any_size"]["inputs"] == {"image": "uint8 [None, None, 3]"}
    graph = (info.path / "saved_model.pb").read_bytes()
    for op in (b"PyFunc", b"EagerPyFunc", b"XlaLaunch"):
        assert op not in graph


def test_nothing_is_overwritten_by_accident(tmp_path: Path) -> None:
    engine = make_engine(SEMANTIC)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="is no SavedModel"):
        export_saved_model(engine, other, replace=True)
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists; give the name of a new folder"):
        export_saved_model(engine, folder)
    export_saved_model(engine, folder, replace=True)
    assert (folder / "saved_model.pb").read_bytes() != b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "served"]


def test_a_model_without_a_limit_of_centers_is_refused(tmp_path: Path) -> None:
    engine = make_engine({"evaluator_options.keep_k_centers": 0})
    with pytest.raises(UsageError, match="keep_k_centers is 0.*needs a limit"):
        export_saved_model(engine, tmp_path / "served")
    assert not list(tmp_path.iterdir())
