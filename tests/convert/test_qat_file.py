"""Files of networks that say themselves how to quantize."""

import collections
import functools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
pytest.importorskip(
    "tensorflow_model_optimization", reason="install deeplab2-edge[qat]"
)

from deeplab2_edge import keys
from deeplab2_edge.convert.qat import export_quantized
from deeplab2_edge.convert.tflite import (
    ConvertedGraph,
    convert_model,
    convert_with_quantizers,
)
from deeplab2_edge.optional import require
from tests.convert.quantized import NUM_CALIBRATED, images, runner, snr, tiny
from tests.convert.tiny import build_tiny, picture

pytestmark = pytest.mark.tf

HELD_OUT = range(100, 164)


@functools.lru_cache(maxsize=1)
def converted() -> ConvertedGraph:
    """Converts the network with quantizers, untrained."""
    quantized = tiny()
    exported = export_quantized(quantized.model)
    return convert_with_quantizers(exported, quantized.calibration)


@functools.lru_cache(maxsize=1)
def after_training() -> ConvertedGraph:
    """Quantizes the float network with the same images."""
    model = build_tiny(hard_swish="decomposed")
    return convert_model(model, "int8", calibration=images(range(NUM_CALIBRATED)))


class File:
    """Runs a flatbuffer and gives its heads as numbers."""

    def __init__(self, graph: ConvertedGraph) -> None:
        # The bare interpreter: metadata do not matter here.
        interpreter = require("ai_edge_litert.interpreter", extra="convert").Interpreter
        self.interpreter = interpreter(model_content=graph.graph, num_threads=1)
        self.interpreter.allocate_tensors()
        self.heads = {tensor: head for head, tensor in graph.output_names.items()}

    def ops(self) -> collections.Counter[str]:
        details = self.interpreter._get_ops_details()
        return collections.Counter(op["op_name"] for op in details)

    def run(self, canvas: Any) -> dict[str, Any]:
        (pixels,) = self.interpreter.get_input_details()
        steps = (canvas[np.newaxis].astype(np.int16) - 128).astype(np.int8)
        self.interpreter.set_tensor(pixels["index"], steps)
        self.interpreter.invoke()
        heads = {}
        for tensor in self.interpreter.get_output_details():
            scale, zero_point = tensor["quantization"]
            steps = self.interpreter.get_tensor(tensor["index"]).astype(np.float32)
            heads[self.heads[tensor["name"]]] = (steps - zero_point) * scale
        return heads


def agreement(one: dict[str, Any], other: dict[str, Any], lead: float = 0.0) -> float:
    """Gives the share of pixels with the same class.

    Args:
        one: Heads.
        other: Heads.
        lead: Leave out pixels whose best class leads by less, which is many in a
            network that has not learnt anything.
    """
    logits = one[keys.SEMANTIC_LOGITS]
    second, best = np.moveaxis(np.sort(logits, axis=-1)[..., -2:], -1, 0)
    same = logits.argmax(axis=-1) == other[keys.SEMANTIC_LOGITS].argmax(axis=-1)
    return float(same[best - second >= lead].mean())


def test_input_and_heads_are_those_of_other_integer_files() -> None:
    other = after_training()
    assert set(converted().input_names) == set(other.input_names)
    assert set(converted().output_names) == set(other.output_names)
    (pixels,) = File(converted()).interpreter.get_input_details()
    assert pixels["dtype"] is np.int8
    assert converted().pixel_ranges[keys.IMAGE] == pytest.approx(
        other.pixel_ranges[keys.IMAGE]
    )
    outputs = File(converted()).interpreter.get_output_details()
    assert {tensor["dtype"] for tensor in outputs} == {np.int8}
    assert converted().quantization == "int8"


def test_the_heatmap_has_its_full_range() -> None:
    name = converted().output_names[keys.CENTER_HEATMAP]
    (heatmap,) = (
        tensor
        for tensor in File(converted()).interpreter.get_output_details()
        if tensor["name"] == name
    )
    scale, zero_point = heatmap["quantization"]
    assert (zero_point, scale) == (-128, pytest.approx(1 / 255))


def test_all_ops_are_of_integers_and_of_one_partition() -> None:
    found = converted()
    assert not found.float_ops
    assert not {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "CUSTOM"} & set(
        found.op_counts
    )
    # What else the file has is what any int8 file of this network has.
    counts = collections.Counter(dict(found.op_counts))
    others = collections.Counter(dict(after_training().op_counts))
    assert set(counts) - {"QUANTIZE"} == set(others) - {"QUANTIZE"}
    for name, count in counts.items():
        assert name == "QUANTIZE" or count == others[name], name
    # Branches of a concatenation are brought to its scale.
    assert counts["QUANTIZE"] <= others["QUANTIZE"] + counts["CONCATENATION"] * 2
    assert File(found).ops()["DELEGATE"] == 1


def test_the_file_gives_what_training_saw() -> None:
    file, simulate = File(converted()), runner(tiny().model)
    pairs = [(simulate(picture(s)), file.run(picture(s))) for s in HELD_OUT]
    quality = [snr(a[keys.SEMANTIC_LOGITS], b[keys.SEMANTIC_LOGITS]) for a, b in pairs]
    assert np.median(quality) > 25
    low, high = tiny().ranges["semantic_last_layer"]
    step = (high - low) / 255
    assert np.mean([agreement(a, b, lead=step) for a, b in pairs]) > 0.995


def test_untrained_it_is_as_good_as_quantization_after_training() -> None:
    """With the same images; else the graph was changed and not only quantized."""
    plain = runner(tiny().expanded.model)
    files = [File(converted()), File(after_training())]
    expected = [plain(picture(seed)) for seed in HELD_OUT]
    found = [[file.run(picture(seed)) for seed in HELD_OUT] for file in files]
    for head in expected[0]:
        this, other = (
            np.median(
                [snr(a[head], b[head]) for a, b in zip(expected, heads, strict=True)]
            )
            for heads in found
        )
        assert this > other - 1, head
    this, other = (
        np.mean([agreement(a, b) for a, b in zip(expected, heads, strict=True)])
        for heads in found
    )
    assert this > other - 0.002
