"""Writes pages made of simple blocks as Markdown and as one HTML file.

Every text goes through an escape: names of classes, files and licenses come from
whoever made the data.
"""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

Color = tuple[int, int, int]

# What Markdown would take for markup, inside a line or a cell of a table.
_MARKUP = re.compile(r"([\\`*\[\]|~$#])")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto;
       padding: 0 1em; color: #222; background: #fff; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 1.6em; border-bottom: 1px solid #ddd; padding-bottom: .2em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { padding: .25em .9em; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: #f6f6f6; padding: 1em; font-size: 14px; }
img, svg { max-width: 100%; height: auto; display: block; margin: .5em 0; }
.swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid #999;
          vertical-align: middle; }
"""
# A page that needs nothing may load nothing and run nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Text:
    """Is a paragraph."""

    text: str
    is_strong: bool = False


@dataclass(frozen=True)
class Items:
    """Is a list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Is a block of code."""

    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Table:
    """Is a table; a cell is a text or an RGB color."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Color]]


@dataclass(frozen=True, eq=False)
class Picture:
    """Is a JPEG, or an SVG drawing whose texts are escaped; HTML alone shows it."""

    title: str
    content: bytes
    is_svg: bool = False


Block = Text | Items | Code | Table | Picture


@dataclass(frozen=True, eq=False)
class Section:
    """Is a heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, eq=False)
class Page:
    """Is a title and sections."""

    title: str
    sections: Sequence[Section]


def to_markdown(page: Page, *, pictures_in: str) -> str:
    """Writes a page as Markdown.

    Args:
        page: The page.
        pictures_in: Name of the file that shows the pictures.
    """
    lines = [f"# {_marked(page.title)}", ""]
    for section in page.sections:
        lines += [f"## {_marked(section.title)}", ""]
        has_pictures = False
        for block in section.blocks:
            has_pictures |= isinstance(block, Picture)
            if not isinstance(block, Picture):
                lines += [*_markdown_lines(block), ""]
        if has_pictures:
            lines += [f"Pictures: {_marked(pictures_in)}", ""]
    return "\n".join(lines[:-1]) + "\n"


def to_html(page: Page) -> str:
    """Writes a page as one HTML file that needs no other."""
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(page.title)}</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>{html.escape(page.title)}</h1>",
    ]
    for section in page.sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += map(_html_block, section.blocks)
    return "\n".join([*parts, "</html>"]) + "\n"


def _markdown_lines(block: Block) -> list[str]:
    if isinstance(block, Text):
        text = _marked(block.text)
        return [f"**{text}**" if block.is_strong else text]
    if isinstance(block, Items):
        return [f"* {_marked(item)}" for item in block.items]
    if isinstance(block, Code):
        # A longer fence than any in the text.
        longest = max(map(len, re.findall("`+", block.text)), default=0)
        fence = "`" * max(3, longest + 1)
        return [f"{fence}{block.language}", *block.text.splitlines(), fence]
    assert isinstance(block, Table)
    rows = [[_marked(_cell_text(cell)) for cell in row] for row in block.rows]
    return [
        f"| {' | '.join(map(_marked, block.header))} |",
        f"|{'---|' * len(block.header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _html_block(block: Block) -> str:
    if isinstance(block, Text):
        text = html.escape(block.text)
        return f"<p>{f'<strong>{text}</strong>' if block.is_strong else text}</p>"
    if isinstance(block, Items):
        items = "\n".join(f"<li>{html.escape(item)}</li>" for item in block.items)
        return f"<ul>\n{items}\n</ul>"
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    if isinstance(block, Picture):
        if block.is_svg:
            return block.content.decode()
        data = base64.b64encode(block.content).decode()
        title = html.escape(block.title)
        return (
            f'<p>{title}</p>\n<img alt="{title}" src="data:image/jpeg;base64,{data}">'
        )
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{_html_cell(cell)}</td>" for cell in row) + "</tr>"
        for row in block.rows
    )
    return f"<table>\n<tr>{head}</tr>\n{rows}\n</table>"


def _html_cell(cell: str | Color) -> str:
    if isinstance(cell, str):
        return html.escape(cell)
    color = _cell_text(cell)
    return f'<span class="swatch" style="background:{color}"></span> {color}'


def _cell_text(cell: str | Color) -> str:
    return cell if isinstance(cell, str) else "#{:02x}{:02x}{:02x}".format(*cell)


def _marked(text: str) -> str:
    """Escapes a text for one line of Markdown, which may hold HTML."""
    line = " ".join(text.split())
    return _MARKUP.sub(r"\\\1", html.escape(line, quote=False))
