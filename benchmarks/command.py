"""Runs the command line in a process of its own, as a user would."""

import subprocess
import sys

_CODE = "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"


def run_command(*arguments: str) -> str:
    """Runs `deeplab2-edge` with these arguments and returns what it prints.

    Raises:
        subprocess.CalledProcessError: If it fails; its message is on stderr.
    """
    return subprocess.run(
        [sys.executable, "-c", _CODE, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
