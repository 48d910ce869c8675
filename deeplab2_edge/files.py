"""Output files: written under a temporary name, then renamed."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deeplab2_edge.errors import OutputError


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, keeps_suffix: bool = True
) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it on success.

    On any exception the temporary file is removed and `path` keeps what it had.

    Args:
        path: The file to be written.
        keeps_suffix: The temporary name ends as `path` does, since encoders choose
            their format by it. If False, a pattern such as `*.tfrecord` never finds
            what a killed process left.

    Raises:
        OutputError: If the folder does not exist or cannot be written.
    """
    target = Path(path)
    suffix = target.suffix if keeps_suffix else ""
    temporary = target.with_name(
        f".{target.stem}.{secrets.token_hex(4)}.partial{suffix}"
    )
    try:
        yield temporary
        os.replace(temporary, target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def ensure_output_file(path: str | os.PathLike[str]) -> Path:
    """Makes sure that a file can be written, before the work that fills it.

    Its folder is made if it is missing.

    Raises:
        OutputError: If it is a folder, or its folder as `ensure_output_dir` says.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target}: a folder; give the name of a file")
    ensure_output_dir(target.parent)
    return target


def ensure_output_dir(path: str | os.PathLike[str]) -> Path:
    """Creates a folder for results if it is missing and returns it.

    Raises:
        OutputError: If it is a file, cannot be created or cannot be written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made a folder for results ({error.strerror})"
        ) from error
    try:
        # Permissions alone do not tell: /proc grants them to root and refuses all.
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OutputError(
            f"{folder}: the folder is not writable ({error.strerror})"
        ) from error
