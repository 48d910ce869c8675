"""The checkpoints in the folder of a run, told by their files.

TensorFlow names the latest checkpoint in a small file, `checkpoint`, which it writes
last: a process that is killed in between leaves a whole checkpoint that nothing names.
So the files themselves are asked. A checkpoint is whole if its index, which is written
after the values, is sound and the files of values are as long as it says.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deeplab2_edge.checkpoint_files.index import is_cut_off, read_index
from deeplab2_edge.errors import CheckpointError, OutputError
from deeplab2_edge.files import atomic_write
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="train")

CHECKPOINT_NAME = "ckpt"
_STATE_FILE = "checkpoint"
# What TensorFlow says about its own operations around the fault.
_NOISE = re.compile(r"\{\{.*?\}\} ?|\s*\[Op:[^\]]*\]")
_INDEX = re.compile(rf"{CHECKPOINT_NAME}-(\d+)\.index")


def whole_checkpoints(folder: Path) -> list[str]:
    """Returns the prefixes of the whole checkpoints of a run, the newest last."""
    found = []
    for step, prefix in _steps(folder):
        with contextlib.suppress(CheckpointError):
            read_index(prefix)
            found.append((step, prefix))
    return [prefix for _, prefix in sorted(found)]


def newest_checkpoint(folder: Path) -> str | None:
    """Returns the prefix of the newest whole checkpoint, None if there never was one.

    What a process leaves that was killed in its very first save is not one: an index
    that ends too early, and no list of TensorFlow's.

    Raises:
        CheckpointError: If there are some and all are damaged: a run that begins anew
            there would take their place.
    """
    whole = whole_checkpoints(folder)
    if whole:
        return whole[-1]
    damaged = [prefix for _, prefix in sorted(_steps(folder), reverse=True)]
    is_first = len(damaged) == 1 and not (folder / _STATE_FILE).exists()
    if damaged and not (is_first and is_cut_off(damaged[0])):
        read_index(damaged[0])  # says what is wrong with it
    return None


def name_newest(folder: Path) -> None:
    """Mends TensorFlow's `checkpoint` file if it does not name the newest one.

    Raises:
        OutputError: If it cannot be written.
    """
    whole = whole_checkpoints(folder)
    if not whole or tf.train.latest_checkpoint(str(folder)) == whole[-1]:
        return
    times = [Path(f"{prefix}.index").stat().st_mtime for prefix in whole]
    names = [Path(prefix).name for prefix in whole]  # so that the folder can be moved
    lines = [
        f'model_checkpoint_path: "{names[-1]}"',
        *(f'all_model_checkpoint_paths: "{name}"' for name in names),
        # What is not younger than the last preserved one would be kept for ever.
        *(f"all_model_checkpoint_timestamps: {time!r}" for time in times),
        f"last_preserved_timestamp: {min(times) - 1.0!r}",
    ]
    with atomic_write(folder / _STATE_FILE, keeps_suffix=False) as temporary:
        temporary.write_text("\n".join([*lines, ""]), encoding="utf-8")


def remove_unfinished(folder: Path, step: int) -> None:
    """Removes what a failed attempt to save left, so that it takes no room."""
    prefix = folder / f"{CHECKPOINT_NAME}-{step}"
    if str(prefix) in whole_checkpoints(folder):
        return
    for path in folder.glob(f"{prefix.name}[._]*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def readable_write_errors(folder: Path, what: str, advice: str = "") -> Iterator[None]:
    """Turns what TensorFlow says about files it cannot write into an `OutputError`.

    Args:
        folder: Where it writes.
        what: What it writes.
        advice: What to do besides making room.

    Raises:
        OutputError: Instead of `tf.errors.OpError`.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = _NOISE.sub("", str(getattr(error, "message", error)).splitlines()[0])
        raise OutputError(
            f"{folder}: {what} cannot be written ({reason}); make room on that disk "
            f"and check the rights of the folder{advice}"
        ) from None


def _steps(folder: Path) -> list[tuple[int, str]]:
    found = ((_INDEX.fullmatch(p.name), p) for p in folder.glob("*.index"))
    return [(int(m[1]), str(p)[: -len(".index")]) for m, p in found if m is not None]
