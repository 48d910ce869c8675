"""Which layers cost most."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.convert.quantization.float_graph import FloatGraph
from deeplab2_edge.convert.quantization.sensitivity import (
    LayerCost,
    Sensitivity,
    draw_sensitivity,
    format_sensitivity,
    group_layers,
    measure_sensitivity,
)
from deeplab2_edge.errors import DataError
from tests.convert.small_graphs import quantizable, samples

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow.lite"),
]

MADE_UP = Sensitivity(
    "int8",
    {"a": 20.0, "b": 30.0},
    (
        LayerCost("encoder/_blocks/1", {"a": 0.5, "b": 0.3}, 100),
        LayerCost("<odd>", {"a": 0.1, "b": 0.0}, 7),
    ),
    4,
)


def test_groups_are_blocks_and_hold_every_op_once() -> None:
    graph = FloatGraph(quantizable().graph)
    groups = group_layers(graph)
    assert sorted(place for places in groups.values() for place in places) == list(
        range(len(graph.ops))
    )
    assert "encoder/_stage2/_block1" in groups
    assert "semantic_decoder/_fusion_conv1" in groups
    # The normalization has no weights and goes to the first convolution.
    assert not any("normalize" in name for name in groups)


def test_shares_of_the_noise_add_up_to_about_one() -> None:
    found = measure_sensitivity(
        quantizable(), samples(4, first=50), quantization="int8", quiet=True
    )
    costs = [layer.cost for layer in found.layers]
    assert costs == sorted(costs, reverse=True)
    assert 0.5 < sum(costs) < 2.0
    assert found.worst(2) == tuple(layer.layer for layer in found.layers[:2])
    kept = quantizable().quantize("int8", keep_float=found.worst(2))
    assert kept.float_ops
    assert json.loads(json.dumps(found.to_json()))["images"] == 4


def test_a_table_names_the_worst_blocks() -> None:
    table = format_sensitivity(MADE_UP)
    assert "encoder/_blocks/1" in table
    assert "40.0%" in table
    assert "20.0" in table


def test_a_drawing_is_well_formed() -> None:
    root = ElementTree.fromstring(draw_sensitivity(MADE_UP))
    assert root.tag.endswith("svg")
    assert any(text.text == "<odd>" for text in root.iter() if text.text)


def test_images_are_needed() -> None:
    with pytest.raises(DataError, match="no images to measure the sensitivity"):
        measure_sensitivity(quantizable(), [])
