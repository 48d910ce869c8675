"""The meter tells losses and time of an interval."""

import time

import pytest

pytestmark = pytest.mark.tf
pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.train.meter import Meter  # noqa: E402


def test_waiting_for_batches_is_told_by_interval_and_in_all() -> None:
    meter = Meter()
    with meter.waiting():
        time.sleep(0.02)
    assert 0 < meter.input_wait_fraction() <= 1
    meter.start_interval()
    assert meter.input_wait_fraction() == 0
    assert meter.waited_seconds >= 0.02
