"""The documentation is true: code runs, commands parse, links lead somewhere.

Python blocks may rely on two files in the working folder: `model.tflite`, a tiny model
of the classes sky, road and car, and `street.jpg`. A comment `<!-- test: tf -->` right
above a block marks what it needs (`tf`, `slow`). `<!-- test: tf file own.py -->` says
that the block is also a file, which the other blocks of the page may import.
"""

import argparse
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deeplab2_edge.cli import COMMANDS, build_parser
from deeplab2_edge.config import ExperimentOptions, parse_override
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.experiments import recipe_names
from deeplab2_edge.images import write_jpeg
from deeplab2_edge.synth import VALIDATION_SEED_START, render_scene
from tests.runtime.tiny_model import INT8_MODEL

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("[!.]*/README.md"),
        *(ROOT / "docs").glob("**/*.md"),
    ]
)
_FENCE = re.compile(r"^```(\w*)\s*$")
_MARKS = re.compile(r"^<!-- test: ([\w ]+?)(?: file (\w+\.py))? -->$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_OPERATORS = {"|", ">", ">>", "<", "&&", "||", ";", "&"}


@dataclass(frozen=True)
class Block:
    """Is one fenced block of a page.

    Attributes:
        page: The file.
        line: Number of its first line, from 1.
        language: What stands behind the fence.
        lines: Its content.
        marks: Names of pytest markers.
        file: Name of the file that the block is the content of, or "".
    """

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    marks: tuple[str, ...]
    file: str


def _blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start, language = number, fence[1]
            continue
        found = _MARKS.match(lines[start - 1]) if start else None
        marks = tuple(found[1].split()) if found else ()
        content = tuple(lines[start + 1 : number])
        file = (found[2] or "") if found else ""
        yield Block(page, start + 2, language, content, marks, file)
        start = None
    assert start is None, f"{page}:{start}: a fence is not closed"


def _commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, words) of the commands of a shell block, up to a pipe."""
    start, text = 0, ""
    for number, line in enumerate(block.lines, start=block.line):
        start = start if text else number
        text += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        text = ""
        end = next((i for i, w in enumerate(words) if w in _OPERATORS), len(words))
        if words[:end]:
            yield start, words[:end]


def _place(page: Path, line: int) -> str:
    return f"{page.relative_to(ROOT)}:{line}"


BLOCKS = [block for page in PAGES for block in _blocks(page)]
SHELL = [
    (_place(block.page, line), words)
    for block in BLOCKS
    if block.language == "sh"
    for line, words in _commands(block)
]
OURS = [(place, words[1:]) for place, words in SHELL if words[0] == "deeplab2-edge"]


def _python_cases() -> Iterator[Any]:
    for block in BLOCKS:
        if block.language == "python":
            marks = [getattr(pytest.mark, name) for name in block.marks]
            yield pytest.param(block, marks=marks, id=_place(block.page, block.line))


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    shutil.copyfile(INT8_MODEL, folder / "model.tflite")
    scene = render_scene(VALIDATION_SEED_START, size=(129, 257))
    write_jpeg(folder / "street.jpg", scene.image)
    return folder


@pytest.mark.parametrize("block", list(_python_cases()))
def test_python_runs(
    block: Block, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "tf" in block.marks:
        pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    shutil.copytree(material, tmp_path, dirs_exist_ok=True)
    for other in BLOCKS:
        if other.page == block.page and other.file:
            (tmp_path / other.file).write_text("\n".join(other.lines), encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(other.file).stem, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Empty lines before the code make a traceback name the line of the page.
    source = "\n" * (block.line - 1) + "\n".join(block.lines)
    exec(compile(source, str(block.page), "exec"), {"__name__": "docs"})


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return build_parser()


@pytest.mark.parametrize(("place", "words"), OURS, ids=[place for place, _ in OURS])
def test_command_parses(
    place: str,
    words: list[str],
    parser: argparse.ArgumentParser,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        args = vars(parser.parse_args(words))
    except SystemExit as end:
        assert end.code == 0, f"{place}: {capsys.readouterr().err}"
        return
    experiment = args.get("config")
    if experiment and not experiment.endswith(".textproto"):
        assert experiment in recipe_names()
    for assignment in args.get("set") or ():
        parse_override(ExperimentOptions, assignment)
    dataset = args.get("dataset")
    if dataset and not dataset.endswith(".json"):
        get_dataset(dataset)


def test_every_command_is_documented() -> None:
    documented = {words[0] for _, words in OURS}
    assert documented >= {name.replace("_", "-") for name in COMMANDS}


def test_make_targets_exist() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", text, re.MULTILINE))
    wanted = {
        place: w for place, words in SHELL if words[0] == "make" for w in words[1:]
    }
    assert wanted
    assert {place: w for place, w in wanted.items() if w not in targets} == {}


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link} leads nowhere"
        is_page_of_docs = page.is_relative_to(ROOT / "docs")
        assert not is_page_of_docs or target.is_relative_to(ROOT / "docs"), (
            f"{page}: {link} leaves docs/, which the built documentation cannot follow"
        )
        if anchor:
            assert anchor in _anchors(target), f"{page}: no heading for {link}"


def test_navigation_lists_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^  - [^:]+: (\S+\.md)$", text, re.MULTILINE)
    on_disk = sorted(p.name for p in (ROOT / "docs").glob("*.md"))
    assert sorted(listed) == on_disk


def test_every_page_begins_with_what_to_type() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        heading, empty, fence = page.read_text(encoding="utf-8").splitlines()[:3]
        assert (heading[:2], empty, fence) == ("# ", "", "```sh"), page


def _prose(page: Path) -> str:
    """Returns a page without its code."""
    text = re.sub(
        r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"`[^`\n]*`", "", text)


def _anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub and MkDocs give to the headings of a page."""
    text = re.sub(
        r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-")
        for title in titles
    }
