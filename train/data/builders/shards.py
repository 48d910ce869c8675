"""Sharded, parallel and resumable writing of record files.

A job writes `<split>-%05d-of-%05d.tfrecord`, each shard a contiguous slice of the
sorted items, and `<split>-manifest.json` with the count and SHA-256 of each finished
shard. A job that was interrupted keeps the shards its manifest vouches for, unless
files of their items have changed since.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from deeplab2_edge.datasets.description import load_description, save_description
from deeplab2_edge.datasets.folders import DESCRIPTION_NAME
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import ConfigError, OutputError, UsageError
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.progress import progress
from deeplab2_edge.records import write_records
from deeplab2_edge.train.data.builders.parallel import run_tasks
from deeplab2_edge.version import __version__
from deeplab2_edge.wording import counted

_HASH_BLOCK_BYTES = 1 << 20


class RecordSource(Protocol):
    """What a job writes: items in their final order. Sent to other processes."""

    @property
    def info(self) -> DatasetInfo:
        """The data set of the records."""

    def __len__(self) -> int:
        """Number of items (images or videos); each becomes one record or more."""

    def encode(self, index: int) -> Sequence[bytes]:
        """Returns the serialized records of one item."""

    def fingerprint(self) -> str:
        """Changes with the settings and the list of items: it names the job."""

    def state(self, index: int) -> Sequence[object]:
        """Changes with the files of one item; only its shard is then written again."""


@dataclass(frozen=True)
class BuildSummary:
    """Says what a job wrote.

    Attributes:
        output_dir: Where the shards lie.
        split: First part of their names.
        num_records: Records in all shards.
        num_shards: Shards of the split.
        num_kept: Shards that an earlier run of the same job had finished.
        size_bytes: Size of all shards.
        seconds: Wall-clock time of this run.
        manifest: The file with count, SHA-256 and size of each shard.
        checksum: SHA-256 over the shards' names and checksums in order, to compare
            two builds by one word.
    """

    output_dir: str
    split: str
    num_records: int
    num_shards: int
    num_kept: int
    size_bytes: int
    seconds: float
    manifest: str
    checksum: str


@dataclass(frozen=True)
class _Shard:
    path: Path
    items: range
    inputs: str  # changes with the files of the items


@dataclass(frozen=True)
class _Written:
    """Is what the manifest knows of a finished shard."""

    records: int
    sha256: str
    size_bytes: int
    inputs: str


def build_records(
    source: RecordSource,
    output_dir: str | os.PathLike[str],
    split: str,
    *,
    num_shards: int,
    slices: Sequence[range] | None = None,
    workers: int = 1,
    overwrite: bool = False,
    quiet: bool = False,
) -> BuildSummary:
    """Writes all records of a source, or what an interrupted run left undone.

    `dataset.json` is written beside the shards, so that the folder alone is enough
    for training and evaluation.

    Args:
        source: What to write.
        output_dir: Folder of the shards; made if missing.
        split: `"train"`, `"val"` or another word; part of the file names.
        num_shards: Each gets `ceil(items / num_shards)` items; the last ones may
            be short or empty but exist.
        slices: The items of each shard, where they are not of even size; there are
            then as many shards.
        workers: Processes; 1 works in this one. A script that asks for more needs
            the usual `if __name__ == "__main__"`.
        overwrite: Replace shards of another job for the same split.
        quiet: Show no progress.

    Raises:
        UsageError: If an argument makes no sense, or the folder holds shards of
            another job for this split or another data set.
        DataError: If an item cannot be encoded; its file is named.
        OutputError: If a shard cannot be written.

    Example:
        >>> folder = open_folder("street/train")  # doctest: +SKIP
        >>> build_records(FolderSource(folder), "records", "train", num_shards=4)
        ... # doctest: +SKIP
    """
    start = time.monotonic()
    if not split.replace("_", "").isalnum():
        raise UsageError(f"split {split!r} must be a word of letters, digits and _")
    if num_shards < 1 or workers < 1:
        raise UsageError(
            f"num_shards is {num_shards}, workers {workers}; both must be at least 1"
        )
    if slices is None:
        slices = even_slices(len(source), num_shards)
    num_shards = len(slices)
    output = ensure_output_dir(output_dir)
    _write_description(source.info, output / DESCRIPTION_NAME)
    _remove_unfinished(output, split)
    shards = _plan(source, output, split, slices)
    job = _job_fingerprint(source, split, slices)
    manifest = output / f"{split}-manifest.json"
    done = _find_done(manifest, job, shards, split, overwrite)
    todo = [shard for shard in shards if shard.path.name not in done]
    num_kept = len(done)

    def keep(shard: _Shard, written: _Written) -> None:
        done[shard.path.name] = written
        _write_manifest(manifest, job, num_shards, done)

    items = run_tasks(_ShardWriter(source), todo, keep, workers=workers)
    total = sum(len(shard.items) for shard in todo)
    try:
        for _ in progress(items, total=total, label=f"writing {split}", quiet=quiet):
            pass
    except OutputError as error:
        raise OutputError(
            f"{error}; once that is mended, the same command goes on: {len(done)} of "
            f"{counted(num_shards, 'file')} are written"
        ) from error
    return BuildSummary(
        output_dir=str(output),
        split=split,
        num_records=sum(written.records for written in done.values()),
        num_shards=num_shards,
        num_kept=num_kept,
        size_bytes=sum(written.size_bytes for written in done.values()),
        seconds=time.monotonic() - start,
        manifest=str(manifest),
        checksum=_checksum(done),
    )


def even_slices(num_items: int, num_shards: int) -> list[range]:
    """Cuts items into `num_shards` runs of `ceil(num_items / num_shards)`.

    The last ones may be short or empty.
    """
    per_shard = math.ceil(num_items / num_shards)
    return [
        range(num_items)[index * per_shard : (index + 1) * per_shard]
        for index in range(num_shards)
    ]


def _plan(
    source: RecordSource, output: Path, split: str, slices: Sequence[range]
) -> list[_Shard]:
    return [
        _Shard(
            output / f"{split}-{index:05d}-of-{len(slices):05d}.tfrecord",
            items,
            _inputs(source, items),
        )
        for index, items in enumerate(slices)
    ]


def _inputs(source: RecordSource, items: range) -> str:
    digest = hashlib.sha256()
    for index in items:
        digest.update(repr(source.state(index)).encode())
    return digest.hexdigest()


def _checksum(done: dict[str, _Written]) -> str:
    lines = [f"{done[name].sha256}  {name}\n" for name in sorted(done)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write_description(info: DatasetInfo, path: Path) -> None:
    if path.exists():
        try:
            old = load_description(path)
        except ConfigError as error:
            raise UsageError(f"{error}; remove it or choose another folder") from None
        labels = [
            (i.class_names, i.thing_ids, i.ignore_label, i.label_divisor)
            for i in (old, info)
        ]
        if labels[0] != labels[1]:
            raise UsageError(
                f"{path}: describes data set {old.name!r} with other classes than "
                f"{info.name!r}; choose another folder"
            )
        return
    save_description(info, path)


def _job_fingerprint(source: RecordSource, split: str, slices: Sequence[range]) -> str:
    ends = [items.stop for items in slices]
    words = [__version__, source.fingerprint(), split, ends, len(source)]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def _find_done(
    manifest: Path, job: str, shards: Sequence[_Shard], split: str, overwrite: bool
) -> dict[str, _Written]:
    """Returns the shards that are finished and undamaged; clears what is in the way."""
    document = _read_manifest(manifest)
    if document.get("job") == job:
        recorded = document.get("shards", {})
        return {
            shard.path.name: written
            for shard in shards
            if (written := _verify(shard, recorded.get(shard.path.name)))
        }
    strangers = sorted(manifest.parent.glob(f"{split}-*-of-*.tfrecord"))
    if strangers and not overwrite:
        raise UsageError(
            f"{manifest.parent}: holds {counted(len(strangers), f'{split} shard')} of "
            "another job (other input or settings); choose another folder, or "
            "overwrite them"
        )
    try:
        manifest.unlink(missing_ok=True)
        for path in strangers:
            path.unlink()
    except OSError as error:
        raise OutputError(
            f"{manifest.parent}: old shards cannot be removed ({error.strerror})"
        ) from error
    return {}


def _remove_unfinished(output: Path, split: str) -> None:
    """Removes what a killed run could not clean up."""
    for path in output.glob(f".{split}-*.partial*"):
        path.unlink(missing_ok=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    """Reads a manifest; a missing or damaged one vouches for nothing."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _write_manifest(
    path: Path, job: str, num_shards: int, done: dict[str, _Written]
) -> None:
    document = {
        "job": job,
        "num_shards": num_shards,
        "is_complete": len(done) == num_shards,
        "shards": {name: asdict(done[name]) for name in sorted(done)},
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def _verify(shard: _Shard, recorded: object) -> _Written | None:
    try:
        written = _Written(**recorded) if isinstance(recorded, dict) else None
        if written is None or written.inputs != shard.inputs:
            return None
        if shard.path.stat().st_size == written.size_bytes:
            return written if _sha256(shard.path) == written.sha256 else None
    except (OSError, TypeError):
        pass  # cannot be vouched for: it is written again
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class _ShardWriter:
    """Writes one shard; sent once to every worker."""

    source: RecordSource

    def __call__(self, shard: _Shard, count: Callable[[], None]) -> _Written:
        num_records = write_records(shard.path, self._records(shard, count))
        return _Written(
            records=num_records,
            sha256=_sha256(shard.path),
            size_bytes=shard.path.stat().st_size,
            inputs=shard.inputs,
        )

    def _records(self, shard: _Shard, count: Callable[[], None]) -> Iterator[bytes]:
        for index in shard.items:
            yield from self.source.encode(index)
            count()
