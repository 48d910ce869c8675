"""Nobody reads the output any more: no error, and no death by signal."""

import signal
import subprocess
import sys

import pytest

from deeplab2_edge.cli import main

_COMMAND = (
    "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["recipes"], 141), (["run", "--help"], 0)]
)
def test_a_reader_may_leave(arguments: list[str], code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == code


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no such signal here")
def test_sockets_may_break(capsys: pytest.CaptureFixture[str]) -> None:
    # With its default action, a browser that leaves a live view would end `run`.
    assert main(["recipes", "--json"]) == 0
    assert capsys.readouterr().out
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
