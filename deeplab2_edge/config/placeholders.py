"""Placeholders such as `${TRAIN_SET}` in the published configuration files.

They are kept as they stand when a file is read, since most users of a file need only
part of it. Who uses a value asks `require_resolved` for it.
"""

import re
from collections.abc import Mapping
from typing import Any

from deeplab2_edge.config.schema import Message, MessageT, walk
from deeplab2_edge.errors import ConfigError

_PLACEHOLDER = re.compile(r"\$\{\w+\}")


def unresolved_placeholders(config: Message) -> list[str]:
    """Returns the dotted paths of all fields whose text holds a placeholder."""
    return [
        path
        for path, owner, field in walk(config)
        if any(_PLACEHOLDER.search(text) for text in _texts(getattr(owner, field)))
    ]


def require_resolved(message: Message, field: str) -> Any:
    """Returns the value of a field, having made sure that no placeholder is in it.

    Example: `patterns = require_resolved(config.train_dataset_options, "file_pattern")`

    Raises:
        ConfigError: If a placeholder is left; the message names it and the way out.
    """
    value = getattr(message, field)
    for text in _texts(value):
        if found := _PLACEHOLDER.search(text):
            place = message.location(field)
            raise ConfigError(
                f"{place + ': ' if place else ''}{field} is {text!r}; expected a real "
                f"value for {found[0]}: give it with --set '{found[0]}=...'"
            )
    return value


def substitute(message: MessageT, values: Mapping[str, Any]) -> MessageT:
    """Returns a message in which placeholders are replaced.

    Args:
        message: Any message.
        values: Text for each placeholder, by its name (`TRAIN_SET`). A list of texts
            fits where the placeholder is the whole element of a repeated field.
    """
    changes: dict[str, Any] = {}
    for name in message.present():
        value = getattr(message, name)
        replaced = (
            tuple(
                new
                for item in value
                for new in _as_tuple(_substituted(item, values, True))
            )
            if isinstance(value, tuple)
            else _substituted(value, values, False)
        )
        if replaced != value:
            changes[name] = replaced
    return message.replace(**changes) if changes else message


def _substituted(value: Any, values: Mapping[str, Any], is_list_ok: bool) -> Any:
    if isinstance(value, Message):
        return substitute(value, values)
    if not isinstance(value, str):
        return value
    for name, text in values.items():
        if isinstance(text, str):
            value = value.replace(f"${{{name}}}", text)
        elif f"${{{name}}}" in value:
            if not is_list_ok or value != f"${{{name}}}":
                raise ConfigError(
                    f"${{{name}}}: found several values; expected one for {value!r}"
                )
            return tuple(text)
    return value


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _texts(value: Any) -> list[str]:
    return [text for text in _as_tuple(value) if isinstance(text, str)]
