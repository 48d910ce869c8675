"""Archives are unpacked once, and cannot do harm."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab2_edge.checkpoint_files import archives
from deeplab2_edge.errors import CheckpointError, OutputError

FILES = {
    "run/checkpoint": b'model_checkpoint_path: "ckpt-5"',
    "run/ckpt-5.index": b"index",
    "run/ckpt-5.data-00000-of-00001": b"data" * 1000,
    "run/config.textproto": b"",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEEPLAB2_EDGE_CACHE", str(folder))
    return folder


def write(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo) -> Path:
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return path


def unpacked(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar", "X.TAR.GZ"])
def test_the_files_of_a_checkpoint_are_unpacked(name: str, tmp_path: Path) -> None:
    junk = {"run/events.out": b"events", "run/readme.md": b"", "eval/x.py": b"1 / 0"}
    folder = archives.unpack(write(tmp_path / name, {**FILES, **junk}))
    assert unpacked(folder) == FILES


def test_what_a_browser_unzipped_keeps_its_name_and_is_read(tmp_path: Path) -> None:
    plain = write(tmp_path / "x.tar", FILES)
    assert unpacked(archives.unpack(plain.rename(tmp_path / "x.tar.gz"))) == FILES


def test_an_archive_is_unpacked_once(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "x.tar.gz", FILES)
    folder = archives.unpack(path)
    before = (folder / "run/ckpt-5.index").stat().st_ino
    assert archives.unpack(path) == folder
    assert (folder / "run/ckpt-5.index").stat().st_ino == before
    assert [p.name for p in (cache / "checkpoints").iterdir()] == [folder.name]


def test_a_changed_archive_is_unpacked_again(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar.gz", FILES)
    first = archives.unpack(path)
    second = archives.unpack(write(path, {**FILES, "run/ckpt-6.index": b""}))
    assert first != second
    assert "run/ckpt-6.index" in unpacked(second)


def test_a_damaged_cache_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar.gz", FILES)
    folder = archives.unpack(path)
    (folder / "run/ckpt-5.data-00000-of-00001").unlink()
    assert unpacked(archives.unpack(path)) == FILES


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (member("/etc/cron.d/x.index"), "an absolute path"),
        (member("../../x.index"), "leads out of it"),
        (member("run/../../x.index"), "leads out of it"),
        (member("C:\\x.index"), "an absolute path"),
        (member("a.index", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
        (member("a.index", type=tarfile.LNKTYPE, linkname="b"), "a link"),
        (member("a.index", type=tarfile.CHRTYPE), "a link, device"),
        (member("a.index", type=tarfile.FIFOTYPE), "a link, device"),
        (member("a\x1b[2J.index"), "a name no checkpoint has"),
        (member("a" * 600 + ".index"), "a name no checkpoint has"),
    ],
)
def test_what_no_checkpoint_has_is_refused(
    bad: tarfile.TarInfo, what: str, tmp_path: Path, cache: Path
) -> None:
    path = write(tmp_path / "x.tar", FILES, bad)
    with pytest.raises(CheckpointError, match=rf"x\.tar: .* is .*{what}"):
        archives.unpack(path)
    assert list((cache / "checkpoints").iterdir()) == []
    assert not (tmp_path / "x.index").exists()


def test_a_file_may_not_come_twice(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds run/ckpt-5\.index twice"):
        archives.unpack(write(tmp_path / "x.tar", FILES, member("run/ckpt-5.index")))


@pytest.mark.parametrize("name", ["ckpt.data-00000-of-00001", "passed_over"])
def test_a_bomb_stops_at_the_cap(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    path = write(
        tmp_path / "x.tgz", {name: bytes(2**20 - 2000), "b.index": bytes(5000)}
    )
    assert path.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="unpacks to more than"):
        archives.unpack(path)
    assert list((cache / "checkpoints").iterdir()) == []


def test_a_declared_size_beyond_the_cap_is_refused(tmp_path: Path) -> None:
    big = member("ckpt.data-00000-of-00001")
    content = bytearray(write(tmp_path / "x.tar", {}, big).read_bytes())
    info = tarfile.TarInfo("ckpt.index")
    info.size = archives.MAX_BYTES + 1
    content[:512] = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(CheckpointError, match="a size of 8589934593 bytes"):
        archives.unpack(tmp_path / "x.tar")


def test_too_many_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    path = write(tmp_path / "x.tgz", {f"{i}.index": b"" for i in range(21)})
    with pytest.raises(CheckpointError, match="holds more than 20 files"):
        archives.unpack(path)


def _long_name(size: int) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _negative_size() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 512
    return info.tobuf(tarfile.USTAR_FORMAT) + b"18 size=-99999999\n".ljust(512, b"\0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: _long_name(2**32) + bytes(2**22), "header is larger"),
        (lambda: (_long_name(512) + b"a".ljust(512, b"\0")) * 2000, "x.tgz: "),
        (lambda: _negative_size() + tarfile.TarInfo("a.index").tobuf(), "x.tgz: "),
        (lambda: b"no archive" * 100, "cannot be read as a tar archive"),
        (lambda: b"", "x.tgz: "),
    ],
    ids=["huge_name", "deep_chain", "negative_size", "text", "empty"],
)
def test_hostile_headers_are_refused(
    content: Callable[[], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(gzip.compress(content()))
    with pytest.raises(CheckpointError, match=message):
        archives.unpack(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_download_cut_short_is_refused(
    share: float, tmp_path: Path, cache: Path
) -> None:
    noise = bytes(i * i % 251 for i in range(20_000))
    path = write(tmp_path / "x.tgz", {**FILES, "run/ckpt-5.data-00000-of-00001": noise})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="complete|damaged"):
        archives.unpack(path)
    assert list((cache / "checkpoints").iterdir()) == []


def test_a_frozen_model_is_told_from_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="frozen SavedModel.*without '_saved_mo"):
        archives.unpack(write(tmp_path / "x.tgz", {"x/saved_model.pb": b""}))
    with pytest.raises(CheckpointError, match="holds no checkpoint.*found 1 other"):
        archives.unpack(write(tmp_path / "y.tgz", {"photo.jpg": b""}))


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEPLAB2_EDGE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="set DEEPLAB2_EDGE_CACHE"):
        archives.unpack(write(tmp_path / "x.tar.gz", FILES))


def test_the_cache_follows_the_desktop_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPLAB2_EDGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert archives.cache_root() == Path("/var/cache/me/deeplab2-edge")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert archives.cache_root() == Path("/home/me/.cache/deeplab2-edge")
