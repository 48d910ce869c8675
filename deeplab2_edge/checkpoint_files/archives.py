"""Archives of published checkpoints, unpacked once into a cache of ours.

An archive comes from the net and is not trusted. Nothing is unpacked but plain files
that belong to a checkpoint, each copied by us under a name that was checked; links,
devices and names that lead elsewhere make the archive invalid. Every byte, also of
what is passed over, counts against the caps, so a gzip bomb stops at them.
"""

import contextlib
import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from deeplab2_edge.errors import CheckpointError, OutputError

SUFFIXES = (".tar.gz", ".tgz", ".tar")
CACHE_VARIABLE = "DEEPLAB2_EDGE_CACHE"
# The largest published model with optimizer state has 5.4 GB.
MAX_BYTES = 8 * 2**30
MAX_MEMBERS = 10_000
_MAX_NAME = 512
# What stands between two files: blocks of 512 bytes, long names, extended headers.
_MAX_HEADER_BYTES = 2**20
_CHUNK = 2**20
_WANTED = re.compile(r".+\.(index|data-\d{5}-of-\d{5}|textproto|pbtxt)|checkpoint")
_SAVED_MODEL = "saved_model.pb"
# Lists what was unpacked; written last, so a folder that has it is whole.
_MANIFEST = ".unpacked.json"
_GZIP_MAGIC = b"\x1f\x8b"


def split_archive(location: str | Path) -> tuple[Path, PurePosixPath] | None:
    """Splits `weights.tgz/run/ckpt-5` into the archive and the place inside.

    Returns:
        Archive and place (`.` for all of it), or None if no part of the path is a file
        that is named like an archive.
    """
    path = Path(location)
    for place in (path, *path.parents):
        if place.name.lower().endswith(SUFFIXES) and place.is_file():
            return place, PurePosixPath(path.relative_to(place).as_posix())
    return None


def unpack(archive: Path) -> Path:
    """Unpacks the checkpoints of an archive, unless an earlier command did.

    Only `*.index`, `*.data-*`, `checkpoint` and configuration texts are unpacked. The
    archive is known again by its path, size and time of change.

    Args:
        archive: A tar file, plain or compressed with gzip.

    Returns:
        The folder in the cache.

    Raises:
        CheckpointError: If it cannot be read, holds no checkpoint, breaks a cap or is
            made to do harm.
        OutputError: If the cache cannot be written.
    """
    folder = _cache_folder(archive)
    if _is_whole(folder):
        return folder
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        temporary.mkdir(parents=True, mode=0o700)
        sizes = _copy_members(archive, temporary)
        (temporary / _MANIFEST).write_text(json.dumps(sizes))
        if folder.exists() and not _is_whole(folder):  # somebody cleaned the cache
            shutil.rmtree(folder)
        _rename_folder(temporary, folder)
    except CheckpointError:
        raise
    except OSError as error:
        raise OutputError(
            f"{error.filename or temporary}: {archive.name} cannot be unpacked "
            f"({error.strerror}); set {CACHE_VARIABLE} to a folder with room"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def cache_root() -> Path:
    """Returns the folder for what can be made again: it may be deleted at any time.

    Raises:
        OutputError: If there is no home folder to put it in.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "deeplab2-edge"
    try:
        return Path.home() / ".cache" / "deeplab2-edge"
    except RuntimeError:
        raise OutputError(
            f"there is no home folder for the cache; set {CACHE_VARIABLE}"
        ) from None


class _CappedReader:
    """Reads forward only, and no further than allowed.

    `tarfile` reads a header of any declared size into memory and believes offsets;
    this stands between it and the data.
    """

    def __init__(self, stream: BinaryIO, archive: Path) -> None:
        self._stream = stream
        self._archive = archive
        self._position = 0
        self._allowed = 0

    def allow(self, count: int) -> None:
        """Sets how many bytes may be read until the next call."""
        self._allowed = count

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= self._allowed:
            raise CheckpointError(
                f"{self._archive}: a header is larger than {_MAX_HEADER_BYTES} bytes; "
                "this is no archive of a checkpoint"
            )
        self._check(self._position + count)
        data = self._stream.read(count)
        self._position += len(data)
        self._allowed -= len(data)
        return data

    def finish(self) -> None:
        """Reads the padding at the end, where gzip has its checksum of all."""
        self.allow(_MAX_HEADER_BYTES)
        while self._allowed and self.read(min(_CHUNK, self._allowed)):
            pass

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != os.SEEK_SET or position < self._position:
            raise CheckpointError(f"{self._archive}: damaged, its parts overlap")
        self._check(position)
        self._position = self._stream.seek(position)
        return self._position

    def tell(self) -> int:
        return self._position

    def _check(self, position: int) -> None:
        if position > MAX_BYTES:
            raise CheckpointError(
                f"{self._archive}: unpacks to more than {MAX_BYTES / 2**30:g} GiB, the "
                "most this reads; unpack it yourself and give the folder"
            )


def _cache_folder(archive: Path) -> Path:
    facts = archive.stat()
    text = f"{archive.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}"
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
    name = archive.name.lower()
    suffix = next(s for s in SUFFIXES if name.endswith(s))
    stem = archive.name[: -len(suffix)]
    return cache_root() / "checkpoints" / f"{stem}-{digest}"


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _MANIFEST).read_text())
        return all((folder / n).stat().st_size == size for n, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _rename_folder(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not _is_whole(folder):  # else another process was faster
            raise


def _copy_members(archive: Path, folder: Path) -> dict[str, int]:
    """Copies the wanted members into `folder`; returns their sizes by name."""
    sizes: dict[str, int] = {}
    passed_over = 0
    has_saved_model = False
    with _open(archive) as (reader, tar):
        for member in _members(archive, reader, tar):
            name = _checked_name(archive, member)
            if not member.isreg() or not _WANTED.fullmatch(PurePosixPath(name).name):
                passed_over += member.isreg()
                has_saved_model |= PurePosixPath(name).name == _SAVED_MODEL
                continue
            if name in sizes:
                raise CheckpointError(f"{archive}: holds {name} twice")
            _copy(archive, reader, tar, member, folder / name)
            sizes[name] = member.size
        reader.finish()
    if not any(name.endswith(".index") for name in sizes):
        raise CheckpointError(
            f"{archive}: a frozen SavedModel; its weights are in the archive of the "
            "same name without '_saved_model'"
            if has_saved_model
            else f"{archive}: holds no checkpoint; expected a file *.index and its "
            f"*.data-*, found {len(sizes) + passed_over} other files"
        )
    return sizes


@contextlib.contextmanager
def _open(archive: Path) -> Iterator[tuple[_CappedReader, tarfile.TarFile]]:
    try:
        with archive.open("rb") as raw, contextlib.ExitStack() as stack:
            stream: BinaryIO = raw
            if raw.peek(2)[:2] == _GZIP_MAGIC:
                stream = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=raw)))
            reader = _CappedReader(stream, archive)
            reader.allow(_MAX_HEADER_BYTES)
            yield (
                reader,
                stack.enter_context(
                    tarfile.open(fileobj=cast(BinaryIO, reader), mode="r:")
                ),
            )
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CheckpointError(
            f"{archive}: cannot be read as a tar archive ({error}); was the download "
            "complete?"
        ) from None
    # Of tarfile's parsers; a chain of headers may be too deep for the stack.
    except (ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{archive}: damaged ({error})") from None


def _members(
    archive: Path, reader: _CappedReader, tar: tarfile.TarFile
) -> Iterator[tarfile.TarInfo]:
    count = 0
    while True:
        reader.allow(_MAX_HEADER_BYTES)
        member = tar.next()
        if member is None:
            return
        count += 1
        if count > MAX_MEMBERS:
            raise CheckpointError(
                f"{archive}: holds more than {MAX_MEMBERS} files; this is no archive "
                "of a checkpoint"
            )
        yield member


def _checked_name(archive: Path, member: tarfile.TarInfo) -> str:
    """Returns the name without `./`, after making sure that it stays inside."""
    name = member.name
    path = PurePosixPath(name)
    is_plain = member.isreg() and not member.issparse()
    what = None
    if not (is_plain or member.isdir()):
        what = "a link, device or sparse file"
    elif path.is_absolute() or "\\" in name or re.match(r"[A-Za-z]:", name):
        what = "an absolute path"
    elif ".." in path.parts:
        what = "a path that leads out of it"
    elif len(name) > _MAX_NAME or not name.isprintable():
        what = "a name no checkpoint has"
    elif not 0 <= member.size <= MAX_BYTES:
        what = f"a size of {member.size} bytes"
    if what is not None:
        raise CheckpointError(
            f"{archive}: {name[:80]!r} is {what}; an archive of a checkpoint has no "
            "such thing, nothing was unpacked"
        )
    return str(path)


def _copy(
    archive: Path,
    reader: _CappedReader,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    target: Path,
) -> None:
    reader.allow(member.size)
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with target.open("xb") as copy:
        while left:
            data = source.read(min(_CHUNK, left))
            if not data:
                raise CheckpointError(
                    f"{archive}: ends within {member.name}; was the download complete?"
                )
            copy.write(data)
            left -= len(data)
