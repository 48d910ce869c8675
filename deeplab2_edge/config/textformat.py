"""Reader and writer of the protobuf text format, without protobuf.

The reader takes the whole grammar that a message of our schema can use: comments,
`key: value`, `key { }`, `key: { }`, `key < >`, list shorthand `[1, 2]`, `,` and `;`
as separators, both quotes, escapes, adjacent strings, exponents, hexadecimal and
octal integers. It stops at the first error and says `file:line`.

Files come from strangers, so their size is capped. Nesting needs no cap: the schema
does not recurse, and what it does not hold is refused at its first token.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from deeplab2_edge.config.backbones import out_of_scope
from deeplab2_edge.config.schema import (
    ExperimentOptions,
    FieldSpec,
    Message,
    MessageT,
    ModelOptions,
    check_value,
    to_float32,
)
from deeplab2_edge.errors import ConfigError

# The longest published file has under 10 KiB.
MAX_BYTES = 1 << 20

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\f\v]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[\w.]*)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<symbol>[{}<>\[\]:,;-])
    """,
    re.VERBOSE,
)
_PROTO_MESSAGE = re.compile(r"^[ \t]*#[ \t]*proto-message:[ \t]*([\w.]+)", re.MULTILINE)

_ESCAPE = re.compile(
    rb"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|u([0-9A-Fa-f]{4})"
    rb"|U([0-9A-Fa-f]{8})|(.)|$)",
    re.DOTALL,
)
_SIMPLE_ESCAPES = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"?": b"?",
    b"\\": b"\\",
    b"'": b"'",
    b'"': b'"',
}
_BOOLEANS = {"true": True, "True": True, "t": True, "1": True}
_BOOLEANS |= {"false": False, "False": False, "f": False, "0": False}

_END = "end of file"


def parse_config(text: str, *, source: str = "<config>") -> ExperimentOptions:
    """Reads an experiment from text.

    A text that holds a bare `ModelOptions`, and says so in its header comment
    `# proto-message: ModelOptions`, becomes an experiment with that model.

    Args:
        text: Protobuf text format.
        source: Name for error messages, usually the file.

    Raises:
        ConfigError: If the text is too large, is not text format, or does not follow
            the schema. The message starts with `source:line`.

    Example:
        >>> config = parse_config('model_options { backbone { name: "resnet50" } }')
        >>> config.model_options.backbone.name
        'resnet50'
    """
    header = _PROTO_MESSAGE.search(text)
    if header and header[1].rpartition(".")[2] == "ModelOptions":
        model = parse_message(ModelOptions, text, source=source)
        return ExperimentOptions(model_options=model)
    return parse_message(ExperimentOptions, text, source=source)


def parse_message(
    message_type: type[MessageT], text: str, *, source: str = "<config>"
) -> MessageT:
    """Reads one message of a given type from text; see `parse_config`."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise ConfigError(
            f"{source}: found {size} bytes; expected at most {MAX_BYTES} "
            "(a configuration is a short text file)"
        )
    return _Parser(_tokenize(text, source), source).message(message_type, closing=_END)


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a small UTF-8 text file.

    Raises:
        ConfigError: If it is missing, not a file, larger than `MAX_BYTES` or not UTF-8.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise ConfigError(f"{file}: found a folder or device; expected a file")
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: cannot be read ({reason})") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{file}: found more than {MAX_BYTES} bytes; expected a short text file"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{file}:{line}: found bytes that are not UTF-8; expected a text file"
        ) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean ...?` with the nearest known names, or ""."""
    matches = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def shown(text: str, limit: int = 60) -> str:
    """Returns a token as it may stand in a message: on one line and not too long."""
    quoted = repr(text)
    return quoted if len(quoted) <= limit else quoted[: limit - 4] + "...'"


@dataclasses.dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def _tokenize(text: str, source: str) -> list[_Token]:
    tokens, position, line = [], 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            found = text[position]
            what = (
                "a string without its closing quote"
                if found in "\"'"
                else f"the character {found!r}"
            )
            raise ConfigError(
                f"{source}:{line}: found {what}; expected protobuf text format"
            )
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "newline":
            line += 1
        elif kind != "space":
            tokens.append(_Token(kind, match[0], line))
            line += match[0].count("\n")  # an escaped line break inside a string
    tokens.append(_Token(_END, _END, line))
    return tokens


class _Parser:
    """Reads messages from tokens by recursive descent."""

    def __init__(self, tokens: list[_Token], source: str) -> None:
        self._tokens = tokens
        self._source = source
        self._next = 0

    def message(self, message_type: type[MessageT], *, closing: str) -> MessageT:
        """Reads fields up to and including the closing token."""
        opened = self._peek().line
        specs = message_type.specs()
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while (token := self._take()).text != closing or token.kind == "string":
            spec = self._field(token, specs, message_type, closing, opened)
            self._refuse_second(spec, token, lines, message_type)
            lines.setdefault(spec.name, token.line)
            items = self._values(spec)
            if spec.is_repeated:
                values.setdefault(spec.name, []).extend(items)
            else:
                values[spec.name] = items[0]
        return message_type._created(
            values, {name: f"{self._source}:{line}" for name, line in lines.items()}
        )

    def _field(
        self,
        token: _Token,
        specs: dict[str, FieldSpec],
        message_type: type[Message],
        closing: str,
        opened: int,
    ) -> FieldSpec:
        where = message_type.__name__
        if token.kind == _END:
            self._fail(
                token.line,
                f"found the end of the file; expected {closing!r} to close the "
                f"{where} opened in line {opened}",
            )
        if token.kind != "name":
            self._fail(
                token.line,
                f"found {shown(token.text)}; expected the name of a field of {where}",
            )
        if token.text not in specs:
            hint = nearest(token.text, specs) or f"; it has {', '.join(specs)}"
            if message_type is ExperimentOptions and token.text in ModelOptions.specs():
                hint = (
                    "; it is a field of ModelOptions: put it into model_options { }, "
                    "or begin the file with '# proto-message: ModelOptions'"
                )
            if message_type is ModelOptions and (later := out_of_scope(token.text)):
                hint = f": {later}"
            self._fail(token.line, f"{where} has no field {shown(token.text)}{hint}")
        return specs[token.text]

    def _refuse_second(
        self,
        spec: FieldSpec,
        token: _Token,
        lines: dict[str, int],
        message_type: type[Message],
    ) -> None:
        if spec.name in lines and not spec.is_repeated:
            self._fail(
                token.line,
                f"field {spec.name} of {message_type.__name__} is set a second time; "
                f"expected it once (first in line {lines[spec.name]})",
            )
        for group, members in message_type.one_ofs.items():
            if spec.name not in members:
                continue
            for other in members:
                if other != spec.name and other in lines:
                    self._fail(
                        token.line,
                        f"found {spec.name} besides {other} (line {lines[other]}); "
                        f"expected one {group} in {message_type.__name__}",
                    )

    def _values(self, spec: FieldSpec) -> list[Any]:
        """Reads what follows a field's name, and the separator after it."""
        token = self._peek()
        has_colon = self._skip(":")
        if not has_colon and not (spec.is_message and self._peek().text in "{<["):
            self._fail(
                token.line,
                f"field {spec.name}: found {shown(token.text)}; expected "
                f"{'{' if spec.is_message else ':'!r} after the name",
            )
        items: list[Any] = []
        if spec.is_repeated and self._skip("["):
            while not self._skip("]"):
                if items and not self._skip(","):
                    self._unexpected(spec, "',' or ']'")
                items.append(self._value(spec))
        else:
            items.append(self._value(spec))
        if self._peek().text in (",", ";"):
            self._take()
        return items

    def _value(self, spec: FieldSpec) -> Any:
        if spec.is_message:
            if self._skip("{"):
                return self.message(spec.kind, closing="}")
            if self._skip("<"):
                return self.message(spec.kind, closing=">")
            self._unexpected(spec, "'{'")
        if spec.kind is str:
            return self._string(spec)
        if spec.kind is bool:
            token = self._take()
            if token.kind not in ("name", "number") or token.text not in _BOOLEANS:
                self._unexpected(spec, spec.expected, token)
            return _BOOLEANS[token.text]
        return self._number(spec)

    def _string(self, spec: FieldSpec) -> str:
        if self._peek().kind != "string":
            self._unexpected(spec, spec.expected)
        pieces = []
        while self._peek().kind == "string":
            token = self._take()
            try:
                pieces.append(_unescape(token.text[1:-1]))
            except ValueError as error:
                self._fail(token.line, f"field {spec.name}: found {error}")
        return "".join(pieces)

    def _number(self, spec: FieldSpec) -> int | float:
        sign = -1 if self._skip("-") else 1
        token = self._take()
        try:
            if token.kind != "number":
                raise ValueError
            number = _to_int(token.text) if spec.kind is int else _to_float(token.text)
            checked: int | float = check_value(spec, sign * number)
        except ValueError:
            self._unexpected(spec, spec.expected, token)
        return checked

    def _unexpected(
        self, spec: FieldSpec, expected: str, token: _Token | None = None
    ) -> NoReturn:
        token = token or self._peek()
        found = token.text if token.kind in ("string", _END) else shown(token.text)
        if len(found) > 60:
            found = shown(found)
        self._fail(token.line, f"field {spec.name}: found {found}; expected {expected}")

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek()
        if token.kind != _END:
            self._next += 1
        return token

    def _skip(self, symbol: str) -> bool:
        token = self._peek()
        if token.kind == "symbol" and token.text == symbol:
            self._next += 1
            return True
        return False

    def _fail(self, line: int, what: str) -> NoReturn:
        raise ConfigError(f"{self._source}:{line}: {what}")


def _to_int(text: str) -> int:
    if re.fullmatch(r"0[0-7]+", text):
        return int(text, 8)
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,16}|\d{1,20}", text):
        return int(text, 0)
    raise ValueError


def _to_float(text: str) -> float:
    if not re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[fF]?", text):
        raise ValueError
    return float(text.rstrip("fF"))


def _unescape(text: str) -> str:
    def replacement(match: re.Match[bytes]) -> bytes:
        hexadecimal, octal, short, long, simple = match.groups()
        if hexadecimal:
            return bytes([int(hexadecimal, 16)])
        if octal and int(octal, 8) < 256:
            return bytes([int(octal, 8)])
        if short or long:
            try:
                return chr(int(short or long, 16)).encode()
            except (ValueError, OverflowError):
                pass  # a surrogate, or beyond the last code point
        if simple in _SIMPLE_ESCAPES:
            return _SIMPLE_ESCAPES[simple]
        raise ValueError(
            f"the escape {match[0].decode('utf-8', 'replace')!r}; "
            "expected one of protobuf text format"
        )

    try:
        encoded = text.encode()
        return _ESCAPE.sub(replacement, encoded).decode()
    except UnicodeError:
        raise ValueError("a string that is not UTF-8; expected text") from None


def format_config(message: Message) -> str:
    """Writes the set fields of a message as text that reads back as the same message.

    Fields come in schema order, one per line, repeated fields as repeated keys.
    """
    lines: list[str] = []
    _format_fields(message, "", lines)
    return "".join(f"{line}\n" for line in lines)


def _format_fields(message: Message, indent: str, lines: list[str]) -> None:
    for name in message.present():
        spec, value = message.specs()[name], getattr(message, name)
        if spec.is_repeated and not value:
            lines.append(f"{indent}{name}: []")
        for item in value if spec.is_repeated else (value,):
            if isinstance(item, Message):
                lines.append(f"{indent}{name} {{")
                _format_fields(item, f"{indent}  ", lines)
                lines.append(f"{indent}}}")
            else:
                lines.append(f"{indent}{name}: {_format_scalar(item)}")


def _format_scalar(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _shortest_float32(value)
    if isinstance(value, int):
        return str(value)
    return '"' + "".join(_escape_character(character) for character in value) + '"'


def _escape_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character == "\n":
        return "\\n"
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def _shortest_float32(value: float) -> str:
    """Returns the shortest decimal that rounds to the same single precision number."""
    for digits in range(1, 9):
        text = f"{value:.{digits}g}"
        try:
            if to_float32(float(text)) == value:
                return repr(float(text))
        except ValueError:
            continue  # the largest numbers, rounded up, leave single precision
    return repr(float(f"{value:.9g}"))  # 9 digits suffice for single precision
