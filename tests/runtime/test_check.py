"""The self test of model files, with a verdict."""

import dataclasses
import json

import numpy as np
import pytest

from deeplab2_edge import keys
from deeplab2_edge.model_file import (
    CUSTOM_OP,
    GRAPH,
    Golden,
    ModelFile,
    read_model_file,
)
from deeplab2_edge.runtime import comparison
from deeplab2_edge.runtime.check import check_model, format_self_test
from deeplab2_edge.runtime.comparison import Measurement, compare_outputs
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL


def with_heads(model: ModelFile, **changes: float) -> ModelFile:
    """Adds a constant to golden heads, as a share of their range."""
    assert model.golden is not None
    heads = dict(model.golden.heads)
    for name, share in changes.items():
        heads[name] = heads[name] + np.float32(share * np.ptp(heads[name]))
    golden = Golden(model.golden.inputs, heads)
    return dataclasses.replace(model, golden=golden)


@pytest.mark.parametrize("path", [FLOAT_MODEL, INT8_MODEL])
def test_this_machine_passes(path: str) -> None:
    test = check_model(read_model_file(path), num_threads=1)
    assert test.passed and test.has_golden
    assert len(test.measurements) == 6
    assert json.loads(json.dumps(test.to_json()))["passed"] is True


def test_integers_may_be_rounded_otherwise_and_floats_not() -> None:
    changes = {keys.SEMANTIC_LOGITS: 0.01}
    assert check_model(with_heads(read_model_file(INT8_MODEL), **changes)).passed
    test = check_model(with_heads(read_model_file(FLOAT_MODEL), **changes))
    assert not test.passed
    broken = [m for m in test.measurements if not m.is_kept]
    assert {m.output for m in broken} == {keys.SEMANTIC_LOGITS}
    assert "FAILED" in format_self_test(test)


def test_nonsense_fails_in_every_mode() -> None:
    model = with_heads(read_model_file(INT8_MODEL), semantic_logits=0.5)
    assert not check_model(model).passed


def test_values_that_are_not_finite_fail() -> None:
    assert not Measurement("x", comparison.LARGEST, float("nan"), 0.2).is_kept
    assert (
        Measurement("x", comparison.LARGEST, float("nan"), 0.2).to_json()["found"]
        is None
    )


def test_without_golden_values_must_be_finite() -> None:
    model = dataclasses.replace(read_model_file(FLOAT_MODEL), golden=None)
    test = check_model(model)
    assert test.passed and not test.has_golden
    assert {m.kind for m in test.measurements} == {comparison.NOT_FINITE}


def test_maps_are_compared_by_class() -> None:
    model = read_model_file(FLOAT_MODEL)
    metadata = dataclasses.replace(model.metadata)
    object.__setattr__(metadata, "merge_place", GRAPH)  # its outputs are not read here
    expected = np.full((4, 5), 2001, np.int32)
    expected[0, 0] = 1000
    found = np.full((4, 5), 2002, np.int32)  # another number, the same class
    maps = keys.PANOPTIC_PRED, keys.INSTANCE_PRED
    object.__setattr__(metadata, "outputs", dict.fromkeys(maps))
    (measured,) = compare_outputs(
        metadata,
        dict.fromkeys(maps, expected),
        dict.fromkeys(maps, found),
        has_delegate=False,
    )
    assert (measured.kind, measured.found) == (comparison.OTHER_CLASS, 1 / 20)


def test_beside_a_custom_op_heads_are_compared() -> None:
    model = read_model_file(FLOAT_MODEL)
    assert model.golden is not None
    metadata = dataclasses.replace(model.metadata, merge_place=CUSTOM_OP)
    heads = model.golden.heads
    found = compare_outputs(metadata, heads, heads, has_delegate=False)
    assert {m.kind for m in found} == {comparison.LARGEST, comparison.TYPICAL}
