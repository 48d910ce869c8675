"""Two frames as one, and clips from pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import (
    Heads,
    MergeSettings,
    VideoStitcher,
    merge_heads,
    merge_two_frames,
    stitch,
)


def line(*ids: int) -> NDArray[np.int32]:
    return np.array([ids], np.int32)


def stitched(
    concat: NDArray[np.int32], alone: NDArray[np.int32], **options: int
) -> list[int]:
    maps = stitch(concat, alone, **{"label_divisor": 1000} | options)
    return [int(i) for i in maps.panoptic[0]]


def test_matched_instances_take_the_other_id_and_the_rest_moves_up() -> None:
    concat = np.zeros((4, 8), np.int32)
    concat[:2, :2], concat[2:, 2:5] = 13001, 13002
    alone = np.zeros((4, 8), np.int32)
    alone[:2, :3], alone[2:, 2:5], alone[0, 7] = 13002, 13001, 13003
    maps = stitch(concat, alone, label_divisor=1000)
    assert maps.matches.tolist() == [[13001, 13002], [13002, 13001]]
    expected = np.where(alone == 13002, 13001, np.where(alone == 13001, 13002, 0))
    expected[0, 7] = 13503
    np.testing.assert_array_equal(maps.panoptic, expected)
    numpy_variant = stitch(concat, alone, label_divisor=1000, id_offset=128)
    assert numpy_variant.panoptic[0, 7] == 13131


def test_only_mutual_best_overlaps_match() -> None:
    concat = line(13001, 13001, 13001, 13001, 13002)
    alone = line(13005, 13005, 13005, 13006, 13006)
    # The second prefers 13002, which prefers nothing else.
    assert stitched(concat, alone) == [13001] * 3 + [13002] * 2
    assert stitched(line(13001, 13001, 13001), line(13005, 13005, 13006)) == [
        13001,
        13001,
        13506,
    ]


def test_classes_do_not_match_and_stuff_stays() -> None:
    assert stitched(line(13001, 7000, 11000), line(11001, 7000, 11000)) == [
        11501,
        7000,
        11000,
    ]


def test_instances_apart_match_if_they_have_no_one_else() -> None:
    assert stitched(line(13001, 0), line(0, 13004)) == [0, 13001]


def test_an_id_that_is_taken_is_not_taken_again() -> None:
    assert stitched(
        line(13001, 13131, 0), line(13002, 13005, 13003), id_offset=128
    ) == [
        13001,
        13131,
        13132,
    ]


def test_ids_beyond_the_divisor_are_refused() -> None:
    with pytest.raises(UsageError, match="below label_divisor 256"):
        stitched(line(256), line(256 + 128), label_divisor=256)
    assert stitched(line(256), line(256 + 127), label_divisor=256) == [256 + 255]
    with pytest.raises(UsageError, match="no instance id is free"):
        stitched(line(9, 9, 0), line(6, 6, 7), label_divisor=5, id_offset=2)
    with pytest.raises(UsageError, match="expected the same"):
        stitched(line(1), line(1, 2))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([3, 400]))
def test_stitching_keeps_the_segments_apart(seed: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    concat, alone = (
        rng.choice([0, 7, 11, 13], (4, 5)) * 1000
        + rng.integers(0, 1 + rng.integers(1, spread), (4, 5))
        for _ in range(2)
    )
    maps = stitch(concat, alone, label_divisor=1000)
    pairs = {*zip(alone.ravel().tolist(), maps.panoptic.ravel().tolist(), strict=True)}
    assert len(pairs) == len({new for _, new in pairs}) == len(np.unique(alone))
    assert all(old // 1000 == new // 1000 for old, new in pairs)
    matched = {*maps.matches[:, 1].tolist()}
    for old, new in pairs:
        if new in np.unique(concat) and old % 1000:
            assert new in matched
    same = stitch(concat, concat, label_divisor=1000)
    np.testing.assert_array_equal(same.panoptic, concat)


SETTINGS = MergeSettings(
    thing_ids=(1,), label_divisor=100, ignore_label=9, nms_kernel=3
)


def heads(thing_columns: slice, center: int | None) -> Heads:
    logits = np.zeros((3, 7, 2), np.float32)
    logits[..., 0] = 1
    logits[:, thing_columns, 1] = 2
    heat = np.zeros((3, 7), np.float32)
    if center is not None:
        heat[1, center] = 1
    return Heads(logits, heat, np.zeros((3, 7, 2), np.float32))


def test_pixels_of_the_next_frame_join_centers_of_the_current() -> None:
    current, following = heads(slice(0, 2), 1), heads(slice(4, 6), 5)
    maps = merge_two_frames(
        current,
        current.offset_map,
        following,
        canvas=(3, 7),
        settings=SETTINGS,
    )
    assert maps.current.panoptic[0].tolist() == [101, 101, 0, 0, 0, 0, 0]
    assert maps.concat_next[0].tolist() == [0, 0, 0, 0, 101, 101, 0]
    assert maps.next_panoptic[0].tolist() == [0, 0, 0, 0, 101, 101, 0]
    np.testing.assert_array_equal(
        maps.current.instance_scores > 0, maps.current.instance
    )
    alone = merge_heads(
        following.semantic_logits,
        following.center_heatmap,
        following.offset_map,
        canvas=(3, 7),
        settings=SETTINGS,
    )
    np.testing.assert_array_equal(maps.next_frame.panoptic, alone.panoptic)


def test_without_centers_the_next_frame_keeps_its_own_ids_moved_up() -> None:
    current, following = heads(slice(0, 2), None), heads(slice(4, 6), 5)
    maps = merge_two_frames(
        current, current.offset_map, following, canvas=(5, 13), settings=SETTINGS
    )
    assert {*np.unique(maps.concat_next).tolist()} == {0, 900}
    assert {*np.unique(maps.next_panoptic).tolist()} == {0, 151}


def test_offsets_of_another_shape_are_refused() -> None:
    current = heads(slice(0, 2), 1)
    with pytest.raises(UsageError, match="next_offset_map"):
        merge_two_frames(
            current,
            current.offset_map[:2],
            current,
            canvas=(3, 7),
            settings=SETTINGS,
        )


def test_a_clip_keeps_ids_and_never_reuses_them() -> None:
    stitcher = VideoStitcher(1000)
    one, other = line(11004, 0, 0), line(0, 11009, 11009)
    assert stitcher.update(one, one).tolist() == [[11001, 0, 0]]
    assert stitcher.update(line(11008, 13001, 0), other).tolist() == [[11001, 13001, 0]]
    # 11009 was seen in the pair before this only, and got the next number.
    assert stitcher.update(other).tolist() == [[0, 11002, 11002]]
    assert stitcher.update(one, one).tolist() == [[11003, 0, 0]]
    stitcher.reset()
    assert stitcher.update(other).tolist() == [[0, 11001, 11001]]


def test_a_clip_does_not_match_what_is_apart() -> None:
    stitcher = VideoStitcher(1000)
    stitcher.update(line(11001, 0), line(11001, 0))
    assert stitcher.update(line(0, 11001)).tolist() == [[0, 11002]]


def test_a_clip_with_a_divisor_of_its_own() -> None:
    stitcher = VideoStitcher(256, track_divisor=10_000)
    frame = line(256 + 9, 512, 256)
    for _ in range(2):
        assert stitcher.update(frame, frame).tolist() == [[10_001, 20_000, 10_000]]
    small = VideoStitcher(256, track_divisor=2)
    with pytest.raises(UsageError, match="track_divisor"):
        small.update(line(257, 258))
    with pytest.raises(UsageError, match="concat_next"):
        stitcher.update(frame, frame[:, :2])


def test_ids_come_again_when_a_class_has_used_all_but_not_those_of_the_frame() -> None:
    stitcher = VideoStitcher(1000, track_divisor=4, reuses_ids=True)
    stays, comes, none = line(11001, 0, 0), line(11001, 0, 11002), line(11001, 11002, 0)
    found = [
        stitcher.update(frame, stays).tolist()[0] for frame in (comes, none, comes)
    ]
    assert found == [[45, 0, 46], [45, 47, 0], [45, 0, 46]]
    with pytest.raises(UsageError, match="track_divisor"):
        VideoStitcher(1000, track_divisor=2, reuses_ids=True).update(comes)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_still_clip_has_still_ids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.choice([0, 2000, 11000, 11001, 11002, 13005, 255000], (4, 5))
    stitcher = VideoStitcher(1000)
    first = stitcher.update(frame, frame)
    pairs = {*zip(frame.ravel().tolist(), first.ravel().tolist(), strict=True)}
    assert len(pairs) == len({new for _, new in pairs}) == len(np.unique(frame))
    for _ in range(3):
        np.testing.assert_array_equal(stitcher.update(frame, frame), first)
