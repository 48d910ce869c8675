"""Runs the command line in a process of its own, as a user would."""

import os
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


def run_measured(*arguments: str) -> tuple[str, int]:
    """Runs `deeplab2-edge`; gives what it prints and its peak of resident bytes.

    Raises:
        subprocess.CalledProcessError: If it fails; its message is on stderr.
    """
    command = [sys.executable, "-c", _CODE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        # Only this call tells the memory of one child and not of all there were.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return text, usage.ru_maxrss * 1024
