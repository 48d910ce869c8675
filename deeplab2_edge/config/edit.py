"""Changes to the text of a configuration that keep its comments and its order."""

import re
from collections.abc import Mapping
from typing import Any

from deeplab2_edge.config.overrides import apply_overrides
from deeplab2_edge.config.schema import Message, walk
from deeplab2_edge.config.textformat import format_config, parse_config
from deeplab2_edge.errors import ConfigError

# One value, and perhaps a comment, to the end of a line.
_SCALAR = r"""("[^"\\]*"|'[^'\\]*'|[\w.+-]+)[\s,;]*(\#.*)?"""


def edit_text(
    text: str, changes: Mapping[str, Any], *, source: str = "<config>"
) -> str:
    """Returns the text of an experiment with some values changed.

    Lines of a changed field are replaced; a field that was not set becomes the first
    of its message. All other lines stay as they are.

    Args:
        text: Protobuf text format with one value a line, as the shipped recipes are.
        changes: Values by dotted path or placeholder, as for `apply_overrides`, but
            not None. Messages on the way must be there.
        source: Name for error messages.

    Raises:
        ConfigError: If a path or value does not fit, or the text is not laid out like
            that.
    """
    for path, value in _without_placeholders(text, changes, source).items():
        config = parse_config(text, source=source)
        owner, field = _owner(config, path), path.rpartition(".")[2]
        new = _owner(apply_overrides(config, {path: value}), path)
        values = format_config(type(new)(**{field: getattr(new, field)})).splitlines()
        lines = text.splitlines()
        start, end = _lines_of(owner, field, lines, path, source)
        indent = re.match(r"\s*", lines[start])[0]  # type: ignore[index]
        lines[start:end] = [indent + line for line in values]
        text = "".join(f"{line}\n" for line in lines)
    return text


def _without_placeholders(
    text: str, changes: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Returns the changes with the fields in place of the placeholders they fill."""
    names = {name: value for name, value in changes.items() if name.startswith("$")}
    if not names:
        return dict(changes)
    config = parse_config(text, source=source)
    filled = {
        path: getattr(owner, field)
        for (path, owner, field), (_, before, _) in zip(
            walk(apply_overrides(config, names)), walk(config), strict=True
        )
        if not owner.specs()[field].is_message
        and getattr(owner, field) != getattr(before, field)
    }
    return filled | {k: value for k, value in changes.items() if k not in names}


def _owner(config: Message, path: str) -> Message:
    """Returns the message a path ends in; `apply_overrides` says what is wrong."""
    apply_overrides(config, {path: None})
    message: Any = config
    for name in path.split(".")[:-1]:
        message = message[int(name)] if name.isdigit() else getattr(message, name)
    owner: Message = message
    return owner


def _lines_of(
    owner: Message, field: str, lines: list[str], path: str, source: str
) -> tuple[int, int]:
    """Returns the lines to replace: first and the one behind the last, from 0."""
    places = [owner.location(name) for name in owner.present()]
    if not places:
        raise ConfigError(
            f"{source}: {path.rpartition('.')[0]} is not set; write it into the file "
            f"before {field} is set in it"
        )
    if not owner.has(field):
        first = min(int(place.rpartition(":")[2]) for place in places) - 1
        return first, first
    start = int(owner.location(field).rpartition(":")[2]) - 1
    end = start
    pattern = re.compile(rf"\s*{field}\s*:\s*{_SCALAR}")
    while end < len(lines) and pattern.fullmatch(lines[end]):
        end += 1
    value = getattr(owner, field)
    if end - start != (len(value) if isinstance(value, tuple) else 1):
        raise ConfigError(
            f"{source}:{start + 1}: {path} cannot be changed here; expected each of "
            "its values on a line of its own"
        )
    return start, end
