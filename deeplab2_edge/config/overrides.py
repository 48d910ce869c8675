"""Changes to a configuration from the command line or from code."""

import re
from collections.abc import Mapping
from typing import Any

from deeplab2_edge.config.backbones import out_of_scope
from deeplab2_edge.config.placeholders import substitute
from deeplab2_edge.config.schema import (
    FieldSpec,
    Message,
    MessageT,
    ModelOptions,
    check_value,
)
from deeplab2_edge.config.textformat import nearest, parse_message
from deeplab2_edge.errors import ConfigError

_PLACEHOLDER_KEY = re.compile(r"\$\{(\w+)\}")


def apply_overrides(config: MessageT, overrides: Mapping[str, Any]) -> MessageT:
    """Returns a configuration with some values changed, in the given order.

    Args:
        config: Any message; usually the whole experiment.
        overrides: Values by dotted path. A path may pass through a repeated message by
            index: `model_options.panoptic_deeplab.low_level.0.channels_project`. A
            repeated field takes a list, or one value as a list of one. None un-sets a
            field. A key `${TRAIN_SET}` replaces that placeholder everywhere.

    Raises:
        ConfigError: If a path does not exist or a value does not fit; the message
            names the path and the nearest known names.

    Example:
        `apply_overrides(config, {"train_dataset_options.batch_size": 8})`
    """
    placeholders = {}
    for path, value in overrides.items():
        if key := _PLACEHOLDER_KEY.fullmatch(path):
            placeholders[key[1]] = value
        else:
            config = _changed(config, path.split("."), value, path)
    return substitute(config, placeholders) if placeholders else config


def parse_override(message_type: type[Message], assignment: str) -> tuple[str, Any]:
    """Reads `path=value`, as given on a command line, for `apply_overrides`.

    The value is text format (`8`, `true`, `[1025, 2049]`); a text needs no quotes.

    Example:
        >>> parse_override(ExperimentOptions, "eval_dataset_options.batch_size=1")
        ('eval_dataset_options.batch_size', 1)
    """
    path, equals, text = assignment.partition("=")
    path, text = path.strip(), text.strip()
    if not equals or not path:
        raise ConfigError(f"{assignment!r}: expected path.of.field=value")
    if _PLACEHOLDER_KEY.fullmatch(path):
        return path, text
    spec = _spec_at(message_type, path)
    if spec.is_message:
        raise ConfigError(
            f"{path}: found {text!r}; expected the path of one field inside the "
            f"{spec.kind.__name__}"
        )
    if spec.kind is str and not re.match(r"""\[\s*(["']|\])|["']""", text):
        return path, [text] if spec.is_repeated else text
    owner = _owner_at(message_type, path)
    try:
        parsed = parse_message(owner, f"{spec.name}: {text}", source=path)
    except ConfigError as error:
        # A command line has no lines, and its path names the field.
        fault = str(error).removeprefix(f"{path}:1: ")
        fault = fault.removeprefix(f"field {spec.name}: ")
        raise ConfigError(f"{path}: {fault}") from None
    value = getattr(parsed, spec.name)
    return path, list(value) if spec.is_repeated else value


def _spec_at(message_type: type[Message], path: str) -> FieldSpec:
    name = path.rpartition(".")[2]
    return _lookup(_owner_at(message_type, path), name, path)


def _owner_at(message_type: type[Message], path: str) -> type[Message]:
    owner = message_type
    for name in path.split(".")[:-1]:
        if name.isdigit():
            continue
        owner = _message_kind(_lookup(owner, name, path), path)
    return owner


def _lookup(owner: type[Message], name: str, path: str) -> FieldSpec:
    specs = owner.specs()
    if name not in specs:
        hint = nearest(name, specs) or f"; it has {', '.join(specs)}"
        if owner is ModelOptions and (later := out_of_scope(name)):
            hint = f": {later}"
        raise ConfigError(f"override {path}: {owner.__name__} has no {name!r}{hint}")
    return specs[name]


def _message_kind(spec: FieldSpec, path: str) -> type[Message]:
    if not spec.is_message:
        raise ConfigError(
            f"override {path}: {spec.name} holds {spec.expected}; expected no field "
            "inside it"
        )
    kind: type[Message] = spec.kind
    return kind


def _changed(message: MessageT, names: list[str], value: Any, path: str) -> MessageT:
    name, rest = names[0], names[1:]
    spec = _lookup(type(message), name, path)
    current = getattr(message, name)
    if not rest:
        new = _new_value(spec, value, path)
    elif spec.is_repeated:
        kind = _message_kind(spec, path)
        if not rest[0].isdigit() or int(rest[0]) >= len(current):
            raise ConfigError(
                f"override {path}: found {rest[0]!r} after {name}; expected an index "
                f"below {len(current)}, the number of {kind.__name__} there"
            )
        if not rest[1:]:
            raise ConfigError(f"override {path}: expected a field after the index")
        index = int(rest[0])
        item = _changed(current[index], rest[1:], value, path)
        new = (*current[:index], item, *current[index + 1 :])
    else:
        kind = _message_kind(spec, path)
        inner = current if message.has(name) else kind()
        new = _changed(inner, rest, value, path)
    try:
        return message.replace(**{name: new})
    except ConfigError as error:
        raise ConfigError(f"override {path}: {error}") from None


def _new_value(spec: FieldSpec, value: Any, path: str) -> Any:
    if value is None:
        return None
    try:
        if not spec.is_repeated:
            return check_value(spec, value)
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(check_value(spec, item) for item in items)
    except ValueError as error:
        raise ConfigError(
            f"override {path}: found {value!r}; expected {error}"
        ) from None
