"""The ranges of int8 models."""

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.export import INPUT_NAME, export_graph
from deeplab2_edge.convert.quantization.calibration import Calibration, calibrate
from deeplab2_edge.errors import ConversionError, DataError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")
tf_keras = require("tf_keras", extra="convert")

pytestmark = [
    pytest.mark.tf,
    # TensorFlow announces the end of the interpreter its own converter uses.
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow.lite"),
]

SIZE = (9, 17)
Range = tuple[float, float]


@functools.cache
def float_graph() -> bytes:
    """Builds a graph that waits for ranges.

    With x the pixel: `doubled` is x + x, `sixth` is x / 6 and feeds a product, and the
    heads are doubled (semantic, offset) and x / 100 (center).
    """
    image = tf_keras.Input((*SIZE, 3), batch_size=1, name="image")
    pixel = tf_keras.layers.Conv2D(
        1, 1, use_bias=False, kernel_initializer="ones", name="pixel"
    )(tf_keras.layers.Lambda(lambda x: x / 3)(image))
    doubled = tf_keras.layers.Add(name="doubled")([pixel, _copy(pixel)])
    product = tf_keras.layers.Lambda(
        lambda x: (x * (1 / 6)) * tf.nn.relu6(x + 3), name="product"
    )(pixel)
    model = tf_keras.Model(
        image,
        {
            keys.SEMANTIC_LOGITS: _copy(product),
            keys.CENTER_HEATMAP: tf_keras.layers.Conv2D(
                1, 1, use_bias=False, kernel_initializer=_constant(0.01)
            )(pixel),
            keys.OFFSET_MAP: _copy(doubled),
        },
    )
    exported = export_graph(model, for_integers=True)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [exported.function], exported.module
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    grey = np.full((1, *SIZE, 3), 128, np.float32)
    converter.representative_dataset = lambda: ({INPUT_NAME: grey} for _ in "1")
    converter._experimental_calibrate_only = True
    return bytes(converter.convert())


def _constant(value: float) -> Any:
    return tf_keras.initializers.Constant(value)


def _copy(x: Any) -> Any:
    layer = tf_keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")
    return layer(x)


def run(levels: list[int]) -> tuple[dict[str, Range], Calibration]:
    """Calibrates with images of one grey level each; gives ranges by tensor name."""
    from tensorflow.lite.python import schema_py_generated as schema

    images = [(f"grey_{level}", grey(level)) for level in levels]
    ranged, calibration = calibrate(float_graph(), images)
    graph = schema.Model.GetRootAs(ranged, 0).Subgraphs(0)
    ranges = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        quantization = tensor.Quantization()
        if quantization is not None and quantization.MinLength():
            ranges[tensor.Name().decode()] = quantization.Min(0), quantization.Max(0)
    return ranges, calibration


def grey(level: int) -> NDArray[np.uint8]:
    return np.full((*SIZE, 3), level, np.uint8)


def find(ranges: dict[str, Range], part: str) -> Range:
    (found,) = (value for name, value in ranges.items() if part in name)
    return found


def test_quantile_over_images_sets_a_range() -> None:
    ranges, calibration = run([100 + i for i in range(11)])
    # 0.9 of 11 images is the second largest; 0 belongs to every range.
    assert find(ranges, "doubled") == pytest.approx((0, 2 * 109))
    assert calibration.num_used == 11


def test_input_of_a_product_keeps_its_own_range() -> None:
    """tf.lite's calibrator would give x / 6 the range of the product."""
    ranges, _ = run([120])
    product = [value for name, value in ranges.items() if "product" in name]
    assert min(high for _, high in product) == pytest.approx(6)  # relu6
    assert pytest.approx((0, 20)) in product  # x / 6
    assert max(high for _, high in product) == pytest.approx(120)


def test_offsets_keep_their_extremes() -> None:
    levels = [100 + i for i in range(11)]
    ranges, _ = run(levels)
    assert max(high for _, high in ranges.values() if high < 255) >= 2 * 110 - 1


def test_pixels_and_heatmap_have_their_natural_ranges() -> None:
    ranges, _ = run([30])
    assert find(ranges, "image") == (0, 255)
    assert (0, 1) in ranges.values()
    assert (0, 6) in ranges.values()


def test_image_beyond_three_times_the_median_is_left_out() -> None:
    ranges, calibration = run([20 + i for i in range(10)] + [200])
    (outlier,) = calibration.outliers
    assert outlier.name == "grey_200"
    assert outlier.factor == pytest.approx(200 / 25, rel=1e-3)
    assert calibration.num_used == 10
    assert max(high for _, high in ranges.values() if high != 255) < 2 * 30


def test_no_more_than_a_fifth_is_left_out_worst_first() -> None:
    _, calibration = run([10] * 7 + [100, 250, 200])
    assert [o.name for o in calibration.outliers] == ["grey_250", "grey_200"]


def test_few_images_are_not_judged() -> None:
    _, calibration = run([10] * 6 + [250])
    assert calibration.outliers == ()


def test_black_images_give_ranges_that_are_not_empty() -> None:
    ranges, _ = run([0] * 10)
    assert all(high > low for low, high in ranges.values())


def test_report_is_plain_json() -> None:
    _, calibration = run([20] * 9 + [200])
    report = calibration.to_json()
    assert (report["images"], report["used"]) == (10, 9)
    (outlier,) = report["outliers"]
    assert outlier["name"] == "grey_200"
    assert outlier["factor"] == 10.0


def test_values_that_are_not_finite_are_an_error() -> None:
    # No image holds such a value, but a network can get there.
    broken = np.full((*SIZE, 3), np.inf)
    with pytest.raises(ConversionError, match="bad: .*not finite in"):
        calibrate(float_graph(), [("bad", broken)])


def test_no_images_is_an_error() -> None:
    with pytest.raises(DataError, match="no images to calibrate with"):
        calibrate(float_graph(), [])
