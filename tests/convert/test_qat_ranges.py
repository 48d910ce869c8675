"""What images make of the ranges of activations."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
pytest.importorskip(
    "tensorflow_model_optimization", reason="install deeplab2-edge[qat]"
)

import tf_keras

from deeplab2_edge import keys
from deeplab2_edge.convert.qat.annotate import annotate, set_ranges
from deeplab2_edge.convert.qat.graph import expand
from deeplab2_edge.convert.qat.ranges import calibrate, choose_quantile, measure
from deeplab2_edge.convert.quantization.calibration import QUANTILES
from deeplab2_edge.errors import ConversionError, DataError
from deeplab2_edge.layers.conv import biased_conv, conv
from deeplab2_edge.layers.defaults import LayerDefaults
from tests.convert.quantized import images, run, snr, tiny
from tests.convert.tiny import fill, picture

pytestmark = pytest.mark.tf


def test_ranges_known_without_images_are_kept() -> None:
    ranges = tiny().ranges
    assert ranges["image/pixels"] == (0, 255)
    assert ranges["normalize"] == pytest.approx((-1, 1))
    assert ranges[keys.CENTER_HEATMAP] == (0, 1)
    assert ranges["encoder/_blocks/0/_activation/gate"] == (0, 6)


def test_a_sixth_has_a_sixth_of_the_range() -> None:
    ranges = tiny().ranges
    whole = ranges["encoder/_blocks/3/_conv1_bn_act/_batch_norm"]
    sixth = ranges["encoder/_blocks/3/_conv1_bn_act/_activation/sixth"]
    assert sixth == pytest.approx([side / 6 for side in whole], rel=1e-4)


def test_offsets_keep_their_extremes() -> None:
    quantized = tiny()
    low, high = quantized.ranges["instance_regression_head_last_layer"]
    found = [
        run(quantized.expanded.model, inputs[keys.IMAGE])[keys.OFFSET_MAP]
        for _, inputs in images(range(12))
    ]
    assert high == pytest.approx(np.max(found), rel=1e-4)
    assert low == pytest.approx(np.min(found), rel=1e-4)


def residual() -> Any:
    """Builds a network that judges images by a sum."""
    pixels = tf_keras.Input((9, 9, 3), batch_size=1, name=keys.IMAGE)
    x = conv(pixels, "a", 8, kernel_size=3, defaults=LayerDefaults())
    y = conv(x, "b", 8, kernel_size=3, activation="none", defaults=LayerDefaults())
    x = tf_keras.layers.Add(name="sum")([x, y])
    network = tf_keras.Model(
        pixels, {keys.SEMANTIC_LOGITS: biased_conv(x, "semantic_last_layer", 4)}
    )
    fill(network)
    return network


def test_the_quantile_that_serves_other_images_best_is_chosen() -> None:
    expanded = expand(residual())
    calibrated = [(f"{n}", {keys.IMAGE: picture(n, (9, 9))}) for n in range(10)]
    others = [(f"{n}", {keys.IMAGE: picture(n, (9, 9))}) for n in range(50, 62)]
    measured = measure(expanded, calibrated)
    choice = choose_quantile(measured, annotate(expanded.model), others)
    assert set(choice.scores) == set(QUANTILES)
    assert choice.scores[choice.quantile] == max(choice.scores.values())
    assert len(set(choice.scores.values())) > 1
    assert choice.num_images == 8
    with pytest.raises(DataError, match="no images to choose the quantile with"):
        choose_quantile(measured, annotate(expanded.model), [])


def test_images_of_a_single_color_say_nothing() -> None:
    grey = [("grey", {keys.IMAGE: np.full((9, 9, 3), 99, np.uint8)})]
    with pytest.raises(DataError, match="of a single color, for example grey"):
        calibrate(expand(residual()), grey)


def test_one_outlier_among_twenty_images_changes_little_and_is_named() -> None:
    network = residual()
    expanded = expand(network)
    # Nothing is normalized here: brightness drives all activations.
    normal = [(f"normal{n}", {keys.IMAGE: picture(n, (9, 9)) // 21}) for n in range(20)]
    bright = {keys.IMAGE: normal[19][1][keys.IMAGE] * np.uint8(20)}
    model = annotate(expanded.model)

    def quality(calibrated: list[tuple[str, dict[str, np.ndarray]]]) -> float:
        ranges, summary = calibrate(expanded, calibrated)
        assert [o.name for o in summary.outliers] == [
            name for name, _ in calibrated if name == "bright"
        ]
        set_ranges(model, ranges)
        return float(
            np.median(
                [
                    snr(
                        run(network, inputs[keys.IMAGE])[keys.SEMANTIC_LOGITS],
                        run(model, inputs[keys.IMAGE])[keys.SEMANTIC_LOGITS],
                    )
                    for _, inputs in normal
                ]
            )
        )

    # Pixels have 256 steps for 0 to 255 in any case; a twentieth of them is 12.
    assert abs(quality(normal) - quality([*normal[:19], ("bright", bright)])) < 1


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="no images to calibrate with"):
        calibrate(tiny().expanded, [])


def test_values_that_are_not_finite_are_named() -> None:
    pixels = tf_keras.Input((9, 9, 3), batch_size=1, name=keys.IMAGE)
    head = biased_conv(pixels, "semantic_last_layer", 4)
    network = tf_keras.Model(pixels, {keys.SEMANTIC_LOGITS: head})
    network.set_weights([np.full(w.shape, np.nan) for w in network.get_weights()])
    one = [("broken", {keys.IMAGE: picture(0, (9, 9))})]
    with pytest.raises(ConversionError, match="broken.*semantic_last_layer.*damaged"):
        calibrate(expand(network), one)
