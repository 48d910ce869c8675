"""Starts and ends the process of a sandbox."""

import os
import socket
import subprocess
import sys

GRACE_SECONDS = 1.0  # the worker ends itself first, and then says by which signal

# What a process needs to find its libraries and caches; no tokens, no passwords.
_VARIABLES = (
    *("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "XDG_CACHE_HOME"),
    *("CC", "CXX"),
    *("DEEPLAB2_EDGE_EMULATED", "DEEPLAB2_EDGE_NATIVE", "DEEPLAB2_EDGE_RUNTIME"),
)
# Threads that libraries start on import would not be confined.
_SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# Isolated: neither the working directory nor the environment says where modules are.
_CODE = (
    "import sys; sys.path[:] = {paths!r}; "
    "from deeplab2_edge.runtime.sandbox_worker import main; main()"
)


def start_worker() -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """Starts a process that serves `sandbox_worker` over its standard input.

    Returns:
        The process and the connection with it.
    """
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    ours, its = socket.socketpair()
    with its:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CODE.format(paths=sys.path)],
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment | _SETTINGS,
            start_new_session=True,  # Ctrl-C is for this process, which ends the other
        )
    return process, ours


def end_worker(process: "subprocess.Popen[bytes]", connection: socket.socket) -> int:
    """Ends a worker, if it has not, and returns how it ended."""
    connection.close()
    try:  # its own end says more than ours
        return process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
