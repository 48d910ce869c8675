"""Data-set descriptions as JSON files, so that a new data set needs no code.

    {
      "name": "my_street",
      "classes": [
        {"name": "road", "thing": false, "color": [128, 64, 128]},
        {"name": "car", "thing": true}
      ],
      "ignore_label": 255,
      "label_divisor": 1000
    }

Optional: `color` and `category_id` of a class; `ignore_label`, `label_divisor`,
`split_sizes`, `is_video`, `is_depth`, `ignore_depth` of the data set.
"""

import json
import os
from typing import Any

from deeplab2_edge.config.textformat import nearest, read_text
from deeplab2_edge.datasets.info import DatasetInfo, default_color
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.files import atomic_write

_DATASET_KEYS: dict[str, type] = {
    "name": str,
    "classes": list,
    "ignore_label": int,
    "label_divisor": int,
    "split_sizes": dict,
    "is_video": bool,
    "is_depth": bool,
    "ignore_depth": int,
}
_CLASS_KEYS: dict[str, type] = {
    "name": str,
    "thing": bool,
    "color": list,
    "category_id": int,
}
_WORDS: dict[type, str] = {
    str: "a text",
    list: "a list",
    int: "an integer",
    dict: "an object",
    bool: "true or false",
}


def load_description(path: str | os.PathLike[str]) -> DatasetInfo:
    """Reads a data-set description; classes without a color get one of a palette.

    Raises:
        ConfigError: If the file cannot be read, is not JSON, or says something
            contradictory; the message names file, key and what would be right.
    """
    where = os.fspath(path)
    try:
        content = json.loads(read_text(path), object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where}:{error.lineno}: found {error.msg}; expected JSON"
        ) from None
    except RecursionError:
        raise ConfigError(
            f"{where}: found deep nesting; expected a description"
        ) from None
    except _DuplicateKey as error:
        raise ConfigError(f"{where}: key {error} stands twice in one object") from None
    _check_keys(content, _DATASET_KEYS, ("name", "classes"), where)
    sizes = content.get("split_sizes", {})
    for split, size in sizes.items():
        _check_type(size, int, f"{where}: split_sizes.{split}")
    classes = content["classes"]
    for index, row in enumerate(classes):
        place = f"{where}: classes[{index}]"
        _check_keys(row, _CLASS_KEYS, ("name", "thing"), place)
        for value in row.get("color", ()):
            _check_type(value, int, f"{place}.color")
    if content.get("ignore_depth", 0) != 0:
        raise ConfigError(
            f"{where}: ignore_depth is {content['ignore_depth']}; depth that is not "
            "known is stored as 0, in PNG files and in records"
        )
    with_category = [row for row in classes if "category_id" in row]
    if with_category and len(with_category) < len(classes):
        raise ConfigError(
            f"{where}: found category_id for {len(with_category)} of {len(classes)} "
            "classes; expected it for all or none"
        )
    try:
        return DatasetInfo(
            name=content["name"],
            num_classes=len(classes),
            ignore_label=content.get("ignore_label", 255),
            label_divisor=content.get("label_divisor", 1000),
            thing_ids=tuple(i for i, row in enumerate(classes) if row["thing"]),
            class_names=tuple(row["name"] for row in classes),
            colors=tuple(
                tuple(row.get("color", default_color(i)))
                for i, row in enumerate(classes)
            ),
            split_sizes=sizes,
            is_video=content.get("is_video", False),
            is_depth=content.get("is_depth", False),
            ignore_depth=content.get("ignore_depth"),
            category_ids=(
                tuple(row["category_id"] for row in classes) if with_category else None
            ),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def save_description(info: DatasetInfo, path: str | os.PathLike[str]) -> None:
    """Writes a description that `load_description` reads back as the same.

    Raises:
        OutputError: If the file cannot be written.
    """
    classes = []
    for index, name in enumerate(info.class_names):
        row: dict[str, Any] = {
            "name": name,
            "thing": index in info.thing_ids,
            "color": list(info.colors[index]),
        }
        if info.category_ids is not None:
            row["category_id"] = info.category_ids[index]
        classes.append(row)
    head: dict[str, Any] = {
        "name": info.name,
        "ignore_label": info.ignore_label,
        "label_divisor": info.label_divisor,
        "is_video": info.is_video,
        "is_depth": info.is_depth,
        "split_sizes": dict(info.split_sizes),
    }
    if info.ignore_depth is not None:
        head["ignore_depth"] = info.ignore_depth
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()
    ]
    rows = ",\n".join(f"    {json.dumps(row)}" for row in classes)
    text = "\n".join(["{", *lines, '  "classes": [', rows, "  ]", "}", ""])
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class _DuplicateKey(Exception):
    pass


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise _DuplicateKey(repr(key))
        content[key] = value
    return content


def _check_keys(
    content: Any, known: dict[str, type], required: tuple[str, ...], where: str
) -> None:
    _check_type(content, dict, where)
    for key, value in content.items():
        if key not in known:
            hint = nearest(key, known) or f"; known are {', '.join(known)}"
            raise ConfigError(f"{where}: unknown key {key!r}{hint}")
        _check_type(value, known[key], f"{where}: {key}")
    for key in required:
        if key not in content:
            raise ConfigError(f"{where}: key {key!r} is missing")


def _check_type(value: Any, kind: type, where: str) -> None:
    is_right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not is_right:
        found = json.dumps(value)
        found = found if len(found) <= 60 else f"{found[:57]}..."
        raise ConfigError(f"{where}: found {found}; expected {_WORDS[kind]}")
