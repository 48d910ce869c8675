"""`run --serve`: the whole way from frames on the standard input to the browser."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from typing import IO

import pytest

from deeplab2_edge.images import decode_image, encode_jpeg
from tests.runtime.tiny_model import INT8_MODEL, draw_scene

# The first picture may have to wait until the native core is compiled.
_ANSWER_S = 180.0
_MAIN = "import sys; from deeplab2_edge.cli import main; sys.exit(main())"
_COMMAND = [sys.executable, "-c", _MAIN, "run", str(INT8_MODEL), "-"]


def test_frames_come_to_the_browser() -> None:
    with subprocess.Popen(
        [*_COMMAND, "--serve", "0", "--token", "auto", "--quiet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stderr is not None
        try:
            url = _read_url(process.stderr)
            for index in range(3):
                process.stdin.write(encode_jpeg(draw_scene()))
                process.stdin.flush()
                document = _wait_for_frame(url, index)
            assert document["source"] == "stdin" and document["state"] == "running"
            names = {segment["class_name"] for segment in document["segments"]}
            assert names == {"sky", "road", "car"}
            picture = decode_image(_get(url, "frame.jpg"), where="frame.jpg")
            assert picture.shape[0] == draw_scene().shape[0]
            process.stdin.close()
            assert process.wait(_ANSWER_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("0.0.0.0:0", "needs a token"),
        ("host", "expected PORT or HOST:PORT"),
        ("192.0.2.7:0", "cannot serve here"),
    ],
)
def test_wrong_addresses_are_one_line(address: str, message: str) -> None:
    token = ["--token", "auto"] if message == "cannot serve here" else []
    done = subprocess.run(
        [*_COMMAND, "--serve", address, *token],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr


def _read_url(stream: IO[bytes]) -> str:
    for line in stream:
        found = re.search(rb"http://\S+", line)
        if found:
            return found[0].decode()
    raise AssertionError("the command ended without an address")


def _get(url: str, name: str) -> bytes:
    address, _, query = url.partition("?")
    with urllib.request.urlopen(f"{address}{name}?{query}", timeout=10) as answer:
        return bytes(answer.read())


def _wait_for_frame(url: str, index: int) -> dict[str, object]:
    deadline = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline:
        document = json.loads(_get(url, "result.json"))
        if document.get("index") == index:
            return dict(document)
        time.sleep(0.05)
    raise AssertionError(f"frame {index} never came")
