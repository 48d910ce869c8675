"""What a board tells of itself, played by files."""

import fcntl
import socket
from pathlib import Path
from typing import Any

import pytest

from deeplab2_edge.runtime import board

PI_5 = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes crc32 cpuid asimdrdm lrcpc dcpop asimddp asimdhp
"""
PI_4 = PI_5.replace("asimddp asimdhp", "")


@pytest.mark.parametrize(
    ("cpuinfo", "words", "has_dot"),
    [
        (PI_5, ["NEON", "NEON dot products of int8", "half floats"], True),
        (PI_4, ["NEON"], False),
        ("flags		: fpu avx2 fma\n", ["AVX2", "FMA"], False),
        ("", [], None),
    ],
)
def test_instructions_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpuinfo: str,
    words: list[str],
    has_dot: bool | None,
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    monkeypatch.setattr(board, "_CPUINFO", path)
    assert board.cpu_instructions() == words
    assert board.has_int8_dot_products() is has_dot


def test_memory_and_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 2048 kB\nMemAvailable: 1024 kB\nX\n")
    (tmp_path / "max").write_text("1000000\n")
    monkeypatch.setattr(board, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(board, "_MEMORY_LIMIT", tmp_path / "max")
    found = board.memory()
    assert list(found.values()) == [2048 * 1024, 1024 * 1024, 1_000_000]
    monkeypatch.setattr(board, "_MEMINFO", tmp_path / "none")
    (tmp_path / "max").write_text("max\n")
    assert set(board.memory().values()) == {None}


def test_cameras_are_told_from_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, words in (
        ("video10", "decoder"),
        ("video0", "C920\n"),
        ("video2", "busy"),
    ):
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "name").write_text(words)
    for name in ("video10", "video0"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(board, "_CAMERAS", tmp_path / "class")
    monkeypatch.setattr(board, "_DEV", tmp_path)

    def answer(descriptor: int, request: int, buffer: bytearray) -> int:
        assert request == board._QUERY_CAPABILITIES and len(buffer) == 104
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        bits = 0x04200001 if name == "video0" else 0x04204000
        board._CAPABILITIES.pack_into(buffer, 0, b"", b"", b"", 1, 0x84204001, bits)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", answer)
    assert board.cameras() == [
        {"device": str(tmp_path / "video0"), "name": "C920", "problem": None},
        {
            "device": str(tmp_path / "video2"),
            "name": "busy",
            "problem": "No such file or directory",
        },
    ]


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.touch()
    with pytest.raises(OSError, match="ioctl"):
        board._captures(path)


def test_a_screen_and_what_can_open_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    assert board.display() == "DISPLAY=:0"
    monkeypatch.delenv("DISPLAY")
    assert board.display() is None
    text = "  GUI:                           NONE\n"
    monkeypatch.setattr(board.cv2, "getBuildInformation", lambda: text)
    assert not board.has_windows()
    monkeypatch.setattr(board.cv2, "getBuildInformation", lambda: text[:-5] + "QT5")
    assert board.has_windows()


def test_where_nothing_may_listen_there_is_no_live_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert board.can_serve()

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert not board.can_serve()


def test_this_machine_answers() -> None:
    assert board.page_size() in (None, 4096, 16384, 65536)
    assert isinstance(board.cameras(), list)
