"""What is said about the machine is that of this process."""

import subprocess
import sys

import pytest

_CHILD = "from deeplab2_edge.runtime.machine import peak_memory_bytes as p; print(p())"
_PARENT = f"""
import subprocess, sys
ballast = bytearray(400_000_000)
print(subprocess.check_output([sys.executable, "-c", {_CHILD!r}], text=True))
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="run on Linux, which tells it apart"
)
def test_the_peak_of_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    text = subprocess.check_output([sys.executable, "-c", _PARENT], text=True)
    assert 10_000_000 < int(text) < 400_000_000
