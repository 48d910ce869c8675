"""Optical flow from files."""

from pathlib import Path

import numpy as np
import pytest

from deeplab2_edge.errors import DataError
from deeplab2_edge.panoptic import read_flow


def save(path: Path, array: object) -> None:
    with path.open("wb") as file:
        np.save(file, array)


def test_flow_is_that_of_the_frame_before(tmp_path: Path) -> None:
    flow = np.arange(12, dtype=np.float64).reshape(2, 3, 2)
    save(tmp_path / "000006.flow_forward", flow)
    save(tmp_path / "000006.occ_forward", np.eye(2, 3)[None, :, :, None])
    found, is_occluded = read_flow(tmp_path, 7, (2, 3))
    assert found.dtype == np.float32 and is_occluded.dtype == bool
    np.testing.assert_array_equal(found, flow)
    np.testing.assert_array_equal(is_occluded, np.eye(2, 3))


def test_without_files_nothing_moves(tmp_path: Path) -> None:
    flow, is_occluded = read_flow(tmp_path, 0, (2, 3))
    assert flow.shape == (2, 3, 2) and is_occluded.shape == (2, 3)
    assert not flow.any() and not is_occluded.any()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "000000.flow_forward"
    path.write_bytes(b"no array")
    with pytest.raises(DataError, match="NumPy array"):
        read_flow(tmp_path, 1, (2, 3))
    save(path, np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"shape \(2, 3\)"):
        read_flow(tmp_path, 1, (2, 3))
    save(path, np.array([{}], object))
    with pytest.raises(DataError, match="NumPy array"):
        read_flow(tmp_path, 1, (2, 3))
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(2))
    with pytest.raises(DataError, match="NumPy array"):
        read_flow(tmp_path, 1, (2, 3))
