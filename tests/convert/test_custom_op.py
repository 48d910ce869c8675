"""Files whose merge is a custom op: with the native library, and without."""

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.merge.merging import merge_in_graph
from deeplab2_edge.convert.products import describe_converted
from deeplab2_edge.convert.tflite import convert_model, hard_swish_form
from deeplab2_edge.errors import MissingExtraError, ModelFileError
from deeplab2_edge.model_file import CUSTOM_OP, ModelFile
from deeplab2_edge.models.engine import KerasEngine
from deeplab2_edge.runtime import interpreter, native
from deeplab2_edge.runtime.custom_op import OP_NAME, OP_OUTPUTS, without_custom_op
from deeplab2_edge.runtime.interpreter import LiteRtEngine, describe_graph
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from tests.convert.tiny import build_tiny, picture, tiny_config

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module", params=["none", "int8"])
def models(request: pytest.FixtureRequest) -> tuple[ModelFile, ModelFile]:
    """Gives the network alone, and the network with its op."""
    quantization = request.param
    model = build_tiny(hard_swish=hard_swish_form(quantization))
    calibration = ((str(i), {keys.IMAGE: picture(i)}) for i in range(3))
    converted = convert_model(model, quantization, calibration=calibration)
    metadata = describe_converted(
        KerasEngine(model, tiny_config()).metadata, converted, quantization
    )
    network = ModelFile(converted.graph, metadata)
    merged, metadata = merge_in_graph(converted, metadata, "tflite", CUSTOM_OP)
    assert merged.op_counts[OP_NAME] == 1
    return network, ModelFile(merged.graph, metadata)


@pytest.fixture
def _no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise MissingExtraError("no compiler here")

    monkeypatch.setattr(interpreter, "find_library", missing)
    interpreter._say_once.cache_clear()


def same_segments(first: LiteRtEngine, second: LiteRtEngine) -> None:
    for seed in (5, 6):
        image = picture(seed, (50, 60))
        expected, found = (
            PanopticSegmenter(engine)(image) for engine in (first, second)
        )
        np.testing.assert_array_equal(found.panoptic, expected.panoptic)
        np.testing.assert_array_equal(found.semantic, expected.semantic)
        assert [s.score for s in found.segments] == [s.score for s in expected.segments]


def test_the_native_op_merges_as_the_host(models: tuple[ModelFile, ModelFile]) -> None:
    try:
        native.find_library()
    except MissingExtraError as error:
        pytest.skip(str(error))
    on_host, with_op = (LiteRtEngine(model) for model in models)
    assert with_op.has_custom_op and not on_host.has_custom_op
    outputs = with_op.run({keys.IMAGE: picture(4)})
    assert set(outputs) == {*on_host.metadata.outputs, *OP_OUTPUTS}
    same_segments(on_host, with_op)


@pytest.mark.usefixtures("_no_library")
def test_without_the_library_the_host_merges_and_says_so_once(
    models: tuple[ModelFile, ModelFile], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        on_host, *cut_off = (LiteRtEngine(model) for model in (*models, models[1]))
    assert [r.getMessage() for r in caplog.records] == [
        f"the native library for {OP_NAME} cannot be used, so Python merges instead, "
        "with the same result: no compiler here"
    ]
    assert not cut_off[0].has_custom_op
    same_segments(on_host, cut_off[0])
    assert OP_NAME in describe_graph(models[1]).op_counts


def test_damaged_graphs_are_refused(models: tuple[ModelFile, ModelFile]) -> None:
    network, merged = models
    with pytest.raises(ModelFileError, match=f"no {OP_NAME} at the end"):
        without_custom_op(network.graph)
    graph = merged.graph
    cut = without_custom_op(graph)
    assert len(cut) == len(graph)
    assert sum(a != b for a, b in zip(cut, graph, strict=True)) < 60
    rng = np.random.default_rng(0)
    for _ in range(200):
        harmed = bytearray(graph)
        for place in rng.integers(0, 3000, 8):
            harmed[-place] = rng.integers(256)
        for place in rng.integers(0, 64, 2):
            harmed[place] = rng.integers(256)
        try:
            without_custom_op(bytes(harmed))
        except ModelFileError:
            continue
    with pytest.raises(ModelFileError, match="damaged|at the end"):
        without_custom_op(graph[:100])


def test_settings_travel_with_the_op(models: tuple[ModelFile, ModelFile]) -> None:
    merge = models[1].metadata.merge
    assert merge is not None
    # The op keeps the settings it was made with.
    other = dataclasses.replace(
        models[1].metadata, merge=dataclasses.replace(merge, stuff_area_limit=2000)
    )
    try:
        native.find_library()
    except MissingExtraError as error:
        pytest.skip(str(error))
    engine = LiteRtEngine(ModelFile(models[1].graph, other))
    usual = LiteRtEngine(models[1])
    image = {keys.IMAGE: picture(3)}
    np.testing.assert_array_equal(
        engine.run(image)[keys.PANOPTIC_PRED], usual.run(image)[keys.PANOPTIC_PRED]
    )
