"""What a confined process can no longer do."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, socket, sys
from deeplab2_edge.runtime.landlock import confine, folders_of_modules
secret, allowed, server = sys.argv[1], sys.argv[2], int(sys.argv[3])
kept = open(secret)
if not confine([*folders_of_modules(), allowed, "/nowhere"]):
    print("unsupported")
    sys.exit()
def refused(act):
    try:
        act()
    except PermissionError:
        return True
    return False
print(
    refused(lambda: open(secret)),
    refused(lambda: os.unlink(secret)),
    refused(lambda: os.truncate(secret, 0)),
    refused(lambda: open(secret + "2", "w")),
    refused(lambda: open(allowed, "a")),
    refused(lambda: os.listdir(os.path.dirname(secret))),
    refused(lambda: os.execv("/bin/true", ["true"])),
    open(allowed).read(),
    kept.read(),
)
import colorsys  # modules of Python are still there
print(refused(lambda: socket.create_connection(("127.0.0.1", server), 2)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is part of Linux")
def test_a_confined_process_reads_what_it_may_and_nothing_else(tmp_path: Path) -> None:
    import socket

    secret, allowed = tmp_path / "home" / "secret", tmp_path / "allowed"
    secret.parent.mkdir()
    secret.write_text("secret")
    allowed.write_text("allowed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(secret), str(allowed), port],
            capture_output=True,
            text=True,
        )
    if done.stdout.startswith("unsupported"):
        pytest.skip("this kernel has no Landlock; 5.13 and newer may have")
    assert done.returncode == 0, done.stderr
    files, network = done.stdout.splitlines()
    assert files == "True " * 7 + "allowed secret"
    assert network == "True"
    assert secret.read_text() == "secret"
