"""JSON annotations of data sets, read as the hostile files they may be."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deeplab2_edge.errors import DataError

# The largest public file, COCO train2017, has 180 MB.
_MAX_JSON_BYTES = 1024 * 1024 * 1024


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        DataError: If it is too large, cannot be read, or holds anything else.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_JSON_BYTES:
            raise DataError(
                f"{path}: has {size} bytes; annotations may have {_MAX_JSON_BYTES}"
            )
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: must hold a JSON object")
    return document


def objects(owner: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Returns a list of objects; `path` is named in the `DataError` if it is none."""
    items = owner.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{path}: `{key}` must be a list of objects")
    return items


def whole(owner: Mapping[str, Any], key: str, path: Path) -> int:
    """Returns a whole number in 0 .. 2**31 - 1; see `objects`."""
    value = owner.get(key)
    if type(value) is not int or not 0 <= value < 2**31:
        raise DataError(f"{path}: `{key}` must be a whole number, found {value!r}")
    return value


def relative_path(
    owner: Mapping[str, Any], path: Path, *, folder: str
) -> PurePosixPath:
    """Returns `file_name` if it stays inside its folder, which messages call `folder`.

    Raises:
        DataError: If it leaves the folder or is no path.
    """
    name = owner.get("file_name")
    relative = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    is_inside = not relative.is_absolute() and ".." not in relative.parts
    if not relative.name or not is_inside or "\0" in str(relative):
        raise DataError(f"{path}: `file_name` {name!r} must be a path inside {folder}")
    return relative
