"""Counts read like English."""

import pytest

from deeplab2_edge.wording import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 images"), (1, "1 image"), (20, "20 images")]
)
def test_only_one_is_singular(count: int, text: str) -> None:
    assert counted(count, "image") == text
