"""`--merge`: files that make maps by themselves give what the host makes."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert import ConversionOptions, convert_checkpoint
from deeplab2_edge.convert.merge.merging import check_maps, merge_in_graph
from deeplab2_edge.convert.options import check_merge, check_options
from deeplab2_edge.convert.products import describe_converted
from deeplab2_edge.convert.tflite import convert_model, hard_swish_form
from deeplab2_edge.errors import ConversionError, UsageError
from deeplab2_edge.families import TWO_FRAMES
from deeplab2_edge.model_file import GRAPH, ModelFile, read_model_file
from deeplab2_edge.models.engine import KerasEngine
from deeplab2_edge.runtime.engine import Engine, open_engine, self_test
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from tests.convert.tiny import (
    build_tiny,
    picture,
    tiny_backbone,
    tiny_config,
    write_tiny_checkpoint,
)

pytestmark = pytest.mark.tf


def convert_tiny(quantization: str) -> tuple[Engine, Engine]:
    """Returns the engines of the network alone and of the network with its merge."""
    model = build_tiny(hard_swish=hard_swish_form(quantization))
    calibration = ((str(i), {keys.IMAGE: picture(i)}) for i in range(3))
    converted = convert_model(model, quantization, calibration=calibration)
    described = KerasEngine(model, tiny_config()).metadata
    metadata = describe_converted(described, converted, quantization)
    network = open_engine(ModelFile(converted.graph, metadata))
    merged, metadata = merge_in_graph(converted, network.metadata, "tflite")
    assert metadata.merge_place == GRAPH
    assert set(merged.output_names) == set(metadata.outputs)
    assert merged.op_counts["UNSORTED_SEGMENT_SUM"] == 2
    return network, open_engine(ModelFile(merged.graph, metadata))


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_segments_are_those_of_the_host(quantization: str) -> None:
    network, merged = convert_tiny(quantization)
    check_maps(network, merged, [{keys.IMAGE: picture(i)} for i in (5, 6)])
    on_host, in_file = PanopticSegmenter(network), PanopticSegmenter(merged)
    image = picture(7, (50, 60))
    expected, found = on_host(image), in_file(image)
    np.testing.assert_array_equal(found.panoptic, expected.panoptic)
    np.testing.assert_array_equal(found.semantic, expected.semantic)
    assert found.segments and [(s.id, s.score, s.box_xyxy) for s in found.segments] == [
        (s.id, s.score, s.box_xyxy) for s in expected.segments
    ]
    # A difference would be found.
    settings = network.metadata.merge
    assert settings is not None
    object.__setattr__(settings, "stuff_area_limit", 2000)
    with pytest.raises(ConversionError, match="of the panoptic map differ"):
        check_maps(network, merged, [{keys.IMAGE: picture(5)}])


@pytest.mark.slow
def test_conversion_writes_a_file_that_does_it_all(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    with tiny_backbone():
        result = convert_checkpoint(
            ConversionOptions(
                checkpoint=str(tmp_path),
                merge="graph",
                output=tmp_path / "tiny.tflite",
                verification_images=1,
            ),
            quiet=True,
        )
    assert result.verification.heads[keys.OFFSET_MAP].snr_db > 80
    assert result.op_counts["TOPK_V2"] == 2
    model = read_model_file(result.output)
    assert model.metadata.merge_place == GRAPH
    differences = self_test(open_engine(model), model)
    assert differences is not None and not any(differences.values())


def test_what_cannot_be_merged_in_the_file_is_refused() -> None:
    options = ConversionOptions(merge="graph")
    with pytest.raises(UsageError, match="two frames.*use --merge host"):
        check_merge(options, TWO_FRAMES)
    with pytest.raises(UsageError, match="Edge TPU .*use --merge host"):
        check_options(
            ConversionOptions(merge="graph", target="edgetpu", quantization="int8")
        )
    with pytest.raises(UsageError, match="must be host, graph, custom-op"):
        check_options(ConversionOptions(merge="cloud"))
