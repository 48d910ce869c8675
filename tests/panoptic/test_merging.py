"""Merging of semantic and instance maps."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    decode_panoptic,
    encode_panoptic,
    merge_semantic_and_instance,
)


def merge(semantic: Any, instance: Any, **options: Any) -> NDArray[np.int32]:
    defaults: dict[str, Any] = {
        "thing_ids": (2, 3),
        "label_divisor": 256,
        "stuff_area_limit": 0,
        "void_label": 255,
    }
    return merge_semantic_and_instance(
        np.array(semantic), np.array(instance), **defaults | options
    )


def test_merge_gives_stuff_below_area_limit_to_void() -> None:
    semantic = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 2, 2, 0], [2, 2, 3, 3]]
    instance = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [2, 2, 3, 3]]
    void = 65280
    assert merge(semantic, instance, stuff_area_limit=3).tolist() == [
        [0, 0, 0, 0],
        [0, void, void, 0],
        [0, 513, 513, 0],
        [514, 514, 769, 769],
    ]


def test_merge_gives_things_without_instance_to_void() -> None:
    semantic = [[0, 0, 2, 2], [0, 1, 1, 2]]
    panoptic = merge(
        semantic, np.zeros((2, 4), int), thing_ids=(2,), stuff_area_limit=2
    )
    assert panoptic.tolist() == [[0, 0, 65280, 65280], [0, 256, 256, 65280]]


def test_instances_beyond_the_divisor_are_void() -> None:
    panoptic = merge([[2, 2, 2, 2]], [[1, 2, 3, 4]], label_divisor=4, void_label=9)
    assert panoptic.tolist() == [[9, 10, 11, 36]]


def test_large_ids_and_empty_maps() -> None:
    assert merge([[2, 2]], [[2**30, 7]]).tolist() == [[513, 514]]
    assert merge(np.zeros((0, 3), int), np.zeros((0, 3), int)).shape == (0, 3)


def test_negative_ids_and_other_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="0 or more"):
        merge([[-1]], [[0]])
    with pytest.raises(UsageError, match="same"):
        merge([[1, 1]], [[0]])


def naive_merge(
    semantic: NDArray[Any], instance: NDArray[Any], things: set[int], limit: int
) -> NDArray[Any]:
    panoptic = np.full(semantic.shape, 255 * 256)
    numbers: dict[int, int] = {}
    is_thing = np.isin(semantic, list(things))
    for instance_id in dict.fromkeys(instance.reshape(-1).tolist()):
        mask = (instance == instance_id) & is_thing
        if instance_id and mask.any():
            winner = int(np.bincount(semantic[mask].astype(np.intp)).argmax())
            numbers[winner] = numbers.get(winner, 0) + 1
            panoptic[mask] = winner * 256 + numbers[winner]
    for class_id in set(semantic.reshape(-1).tolist()) - things:
        mask = (semantic == class_id) & (instance == 0)
        if mask.sum() >= limit:
            panoptic[mask] = class_id * 256
    return panoptic


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    limit=st.integers(0, 6),
    ids=st.sampled_from([3, 9, 100_000]),
)
def test_merge_equals_the_direct_definition(
    seed: int, shape: tuple[int, int], limit: int, ids: int
) -> None:
    rng = np.random.default_rng(seed)
    semantic, instance = rng.integers(0, 5, shape), rng.integers(0, ids, shape)
    np.testing.assert_array_equal(
        merge(semantic, instance, thing_ids={2, 3}, stuff_area_limit=limit),
        naive_merge(semantic, instance, {2, 3}, limit),
    )


def test_encoding_and_decoding_are_inverse() -> None:
    semantic, instance = np.array([[7, 0, 255]]), np.array([[2, 0, 999]])
    panoptic = encode_panoptic(semantic, instance, label_divisor=1000)
    assert panoptic.tolist() == [[7002, 0, 255999]]
    decoded = decode_panoptic(panoptic, label_divisor=1000)
    np.testing.assert_array_equal(decoded, (semantic, instance))
    with pytest.raises(UsageError, match="label_divisor"):
        encode_panoptic(semantic, instance, label_divisor=999)


def test_operator_rules_make_one_instance_of_things_without_a_center() -> None:
    semantic, instance = [[2, 3, 3], [0, 1, 1]], np.zeros((2, 3), int)
    panoptic = merge(semantic, instance, stuff_area_limit=2, merge_semantics="op")
    # Stuff of exactly the limit is dropped.
    assert panoptic.tolist() == [[769, 769, 769], [65280, 65280, 65280]]


def test_operator_rules_number_by_ascending_id_and_keep_claimed_stuff() -> None:
    semantic, instance = [[2, 2, 2, 0]], [[7, 5, 0, 5]]
    panoptic = merge(semantic, instance, merge_semantics="op")
    assert panoptic.tolist() == [[515, 514, 513, 0]]
    assert merge(semantic, instance).tolist() == [[513, 514, 65280, 65280]]


def test_unknown_merge_rules_are_refused() -> None:
    with pytest.raises(UsageError, match="merge_semantics is 'gpu'"):
        merge([[1]], [[0]], merge_semantics="gpu")
