"""The choice of calibration images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.calibration import Calibration, choose_calibration
from deeplab2_edge.model_file import ResizeRule
from deeplab2_edge.optional import require

tf_keras = require("tf_keras", extra="convert")

pytestmark = pytest.mark.tf

CANVAS = (9, 17)


@dataclass(frozen=True)
class Grey:
    """Is an image of one grey level."""

    level: int
    size: tuple[int, int] = CANVAS

    @property
    def name(self) -> str:
        return f"grey_{self.level}"

    def load_image(self) -> NDArray[np.uint8]:
        return np.full((*self.size, 3), self.level, np.uint8)

    def load_panoptic(self) -> None:
        return None


@pytest.fixture(scope="module")
def model() -> Any:
    """Adds the image to itself: the range of the only layer is twice the level."""
    image = tf_keras.Input((*CANVAS, 3), batch_size=1, name="image")
    doubled = tf_keras.layers.Add(name="doubled")([image, image])
    return tf_keras.Model(image, {keys.SEMANTIC_LOGITS: doubled})


def choose(model: Any, samples: list[Grey]) -> Calibration:
    return choose_calibration(
        model,
        samples,
        source="greys",
        canvas=CANVAS,
        resize=ResizeRule(),
        quiet=True,
    )


def test_image_beyond_three_times_the_median_is_left_out(model: Any) -> None:
    samples = [Grey(20 + i) for i in range(10)] + [Grey(200)]
    chosen = choose(model, samples)
    assert len(chosen.canvases) == 10
    (outlier,) = chosen.outliers
    assert outlier.name == "grey_200"
    assert outlier.layer == "doubled"
    assert outlier.factor == pytest.approx(200 / 25)
    assert max(canvas.max() for canvas in chosen.canvases) == 29
    assert chosen.num_candidates == 11


def test_ordinary_images_are_all_used(model: Any) -> None:
    chosen = choose(model, [Grey(60 + 10 * i) for i in range(10)])
    assert len(chosen.canvases) == 10
    assert chosen.outliers == ()


def test_no_more_than_a_fifth_is_left_out_worst_first(model: Any) -> None:
    samples = [Grey(10)] * 7 + [Grey(100), Grey(250), Grey(200)]
    chosen = choose(model, samples)
    assert [outlier.name for outlier in chosen.outliers] == ["grey_250", "grey_200"]
    assert len(chosen.canvases) == 8


def test_few_images_are_not_judged(model: Any) -> None:
    chosen = choose(model, [Grey(10)] * 6 + [Grey(250)])
    assert len(chosen.canvases) == 7


def test_black_images_do_not_divide_by_zero(model: Any) -> None:
    chosen = choose(model, [Grey(0)] * 10)
    assert len(chosen.canvases) == 10


def test_images_are_placed_as_on_the_device(model: Any) -> None:
    chosen = choose(model, [Grey(50, (18, 17))])
    (canvas,) = chosen.canvases
    assert canvas.shape == (*CANVAS, 3)
    assert (canvas[:, :8] == 50).all()
    assert (canvas[:, 9:] == 128).all()  # padding


def test_report_is_plain_json(model: Any) -> None:
    report = choose(model, [Grey(20)] * 9 + [Grey(200)]).to_json()
    assert report["candidates"] == 10
    assert report["used"] == 9
    assert report["outliers"] == [
        {"name": "grey_200", "factor": 10.0, "layer": "doubled"}
    ]
