"""What a user calls a checkpoint: a folder, a prefix, a file, an archive, `demo`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deeplab2_edge import assets
from deeplab2_edge.checkpoint_files.archives import SUFFIXES, split_archive, unpack
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.saved_models import NOTICE, is_saved_model

_FILE_SUFFIX = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")
# The small file that names the latest checkpoint of a folder, and its one fact.
_STATE_FILE = "checkpoint"
_LATEST = re.compile(r'^\s*model_checkpoint_path:\s*"((?:[^"\\]|\\.)*)"', re.MULTILINE)
_MAX_STATE_BYTES = 2**20
_SHOWN = 6


@dataclass(frozen=True)
class CheckpointLocation:
    """Says where a checkpoint was found.

    Attributes:
        prefix: Path of its files without `.index` and `.data-...`.
        name: The same as a user would write it: within an archive, not in our cache.
        folders: Where its configuration may lie: beside it, and the folder or the root
            of the archive that the user named.
    """

    prefix: str
    name: str
    folders: tuple[Path, ...]


def resolve_checkpoint(location: str | Path) -> str:
    """Turns what a user calls a checkpoint into a checkpoint prefix.

    See `find_checkpoint`.
    """
    return find_checkpoint(location).prefix


def find_checkpoint(location: str | Path) -> CheckpointLocation:
    """Finds the checkpoint that a user means.

    Args:
        location: `"demo"`; a prefix; one of a checkpoint's files; a folder, of which
            the latest checkpoint is taken; an archive (`.tar.gz`, `.tgz`, `.tar`), or a
            folder or prefix inside one, as in `weights.tgz/run/ckpt-5`. A folder
            without a checkpoint of its own may have one sub-folder that has.

    Raises:
        CheckpointError: If there is none, or it is not clear which is meant.
        OutputError: If an archive cannot be unpacked.
    """
    if str(location) == assets.DEMO_CHECKPOINT:
        prefix = assets.demo_checkpoint_prefix()
        return CheckpointLocation(prefix, str(location), (Path(prefix).parent,))
    archived = split_archive(location)
    if archived is not None:
        archive, inside = archived
        root = unpack(archive)
        if ".." in inside.parts:
            raise CheckpointError(f"{location}: leads out of the archive")
        prefix = _find(root / inside, str(location), str(archive), root)
        inside = PurePosixPath(Path(prefix).relative_to(root).as_posix())
        return _location(prefix, f"{archive}/{inside}", root)
    path = Path(location)
    if path.name.lower().endswith((*SUFFIXES, ".zip")) and not path.is_dir():
        raise CheckpointError(
            f"{location}: unpack it and give the folder"
            if path.is_file()
            else f"{location}: no such archive"
        )
    prefix = _find(path, str(location), str(location), None)
    return _location(prefix, prefix, path)


def _location(prefix: str, name: str, folder: Path) -> CheckpointLocation:
    beside = Path(prefix).parent
    extra = (folder,) if folder.is_dir() and folder != beside else ()
    return CheckpointLocation(prefix, name, (beside, *extra))


def _find(path: Path, location: str, shown_root: str, archive_root: Path | None) -> str:
    """Returns the prefix at a path; the other arguments serve what is said."""
    if path.is_dir():
        return _latest_in(path, location, archive_root)
    prefix = _FILE_SUFFIX.sub("", str(path))
    if Path(f"{prefix}.index").is_file():
        return prefix
    if is_saved_model(path):
        raise CheckpointError(f"{location}: {NOTICE}")
    name = Path(prefix).name
    if archive_root is not None:
        found = _names(_prefixes(archive_root, deep=True), archive_root)
        raise CheckpointError(
            f"{location}: not in the archive; it holds {_listed(found)}, as in "
            f"{shown_root}/{found[0]}"
        )
    if Path(f"{prefix}.meta").is_file() or path.suffix in (".meta", ".h5", ".pb"):
        raise CheckpointError(
            f"{location}: not a TensorFlow 2 checkpoint; expected files {name}.index "
            f"and {name}.data-*"
        )
    raise CheckpointError(
        f"{location}: no checkpoint here; expected an archive, a folder, or a prefix "
        f"with files {name}.index and {name}.data-*"
    )


def _latest_in(folder: Path, location: str, archive_root: Path | None) -> str:
    prefixes = _prefixes(folder, deep=archive_root is not None)
    homes = {prefix.parent for prefix in prefixes}
    latest = _named_latest(homes.pop()) if len(homes) == 1 else None
    if latest is not None:
        return str(latest)
    # Some published archives lack the small file that names the latest one.
    if len(prefixes) == 1:
        return str(prefixes[0])
    if not prefixes and (is_saved_model(folder) or is_saved_model(folder.parent)):
        raise CheckpointError(f"{location}: {NOTICE}")
    if not prefixes:
        raise CheckpointError(
            f"{location}: holds no checkpoint; expected a file *.index and its *.data-*"
        )
    names = _names(prefixes, folder)
    raise CheckpointError(
        f"{location}: holds {len(prefixes)} checkpoints and nothing says which is the "
        f"latest: {_listed(names)}; give one, as in {location.rstrip('/')}/{names[-1]}"
    )


def _prefixes(folder: Path, *, deep: bool) -> list[Path]:
    """Returns the checkpoints of a folder, or of its sub-folders if it has none.

    The variables of a SavedModel are none: a graph gives them their names.
    """
    patterns = ("*.index", "**/*.index" if deep else "*/*.index")
    for pattern in patterns:
        found = sorted(
            (p for p in folder.glob(pattern) if not _is_in_saved_model(p)),
            key=_numbers_by_value,
        )
        if found:
            return [path.with_name(path.name[: -len(".index")]) for path in found]
    return []


def _is_in_saved_model(index: Path) -> bool:
    return index.parent.name == "variables" and is_saved_model(index.parent.parent)


def _numbers_by_value(path: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _named_latest(folder: Path) -> Path | None:
    """Returns the checkpoint that the folder's state file names, if it is there.

    Published state files hold paths of the machine that wrote them: only the last part
    counts.
    """
    try:
        with (folder / _STATE_FILE).open("rb") as stream:
            text = stream.read(_MAX_STATE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    found = _LATEST.search(text)
    if found is None:
        return None
    name = re.sub(r"\\(.)", r"\1", found[1])
    latest = folder / PurePosixPath(name).name
    return latest if Path(f"{latest}.index").is_file() else None


def _names(prefixes: Sequence[Path], folder: Path) -> list[str]:
    return [prefix.relative_to(folder).as_posix() for prefix in prefixes]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[-_SHOWN:]) + more
