"""The plan of the house: packages, links, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("train", "convert", "runtime")

# The part of `deeplab2_edge` that may import TensorFlow. All the rest is light.
HEAVY = (
    "deeplab2_edge.backbones",
    "deeplab2_edge.checkpoints",
    "deeplab2_edge.decoders",
    "deeplab2_edge.layers",
    "deeplab2_edge.models",
    "deeplab2_edge.postprocess",
    "deeplab2_edge.records",
)
# Room -> rooms it may import at the top of a file.
ALLOWED = {
    "light": {"light"},
    "heavy": {"light", "heavy"},
    "runtime": {"light", "runtime"},
    "convert": {"light", "heavy", "runtime", "convert"},
    # Evaluation during training is the pipeline that devices run.
    "train": {"light", "heavy", "runtime", "train"},
}
THIRD_PARTY = {
    "light": {"numpy", "cv2"},
    "heavy": {"numpy", "cv2"},
    "runtime": {"numpy", "cv2"},
    "convert": {"numpy", "cv2"},
    "train": {"numpy", "cv2"},
}


def _modules() -> dict[str, Path]:
    """Maps every module of the distribution to its file, each file once."""
    found = {}
    for folder, package in (
        (ROOT / "deeplab2_edge", "deeplab2_edge"),
        *((ROOT / room, f"deeplab2_edge.{room}") for room in ROOMS),
    ):
        for path in folder.rglob("*.py"):
            relative = path.relative_to(folder)
            if folder.name == "deeplab2_edge" and relative.parts[0] in ROOMS:
                continue
            parts = [*relative.with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join([package, *parts])] = path
    return found


MODULES = _modules()


def _room(module: str) -> str:
    for room in ROOMS:
        if module == f"deeplab2_edge.{room}" or module.startswith(
            f"deeplab2_edge.{room}."
        ):
            return room
    is_heavy = any(module == h or module.startswith(h + ".") for h in HEAVY)
    return "heavy" if is_heavy else "light"


def _imports(path: Path, *, top_level_only: bool) -> set[str]:
    """Returns the modules a file imports, as written."""
    tree = ast.parse(path.read_text())
    nodes = list(_top_level(tree)) if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _top_level(tree: ast.Module) -> list[ast.stmt]:
    """Returns statements that run on import; blocks for type checkers do not."""
    return [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_follow_the_plan(module: str) -> None:
    room = _room(module)
    for imported in _imports(MODULES[module], top_level_only=True):
        root = imported.split(".")[0]
        if root == "deeplab2_edge":
            if imported in MODULES:
                assert _room(imported) in ALLOWED[room], f"{module} imports {imported}"
        elif root not in sys.stdlib_module_names:
            assert root in THIRD_PARTY[room], f"{module} imports {imported}"


def test_nothing_but_the_command_line_imports_train() -> None:
    for module, path in MODULES.items():
        if _room(module) == "train" or module.startswith("deeplab2_edge.cli"):
            continue
        for imported in _imports(path, top_level_only=False):
            assert not imported.startswith("deeplab2_edge.train"), module


def test_only_the_interpreter_imports_litert() -> None:
    for module, path in MODULES.items():
        if module == "deeplab2_edge.runtime.interpreter":
            continue
        text = path.read_text()
        assert "import ai_edge_litert" not in text, module
        assert "import tflite_runtime" not in text, module


def test_every_package_on_disk_is_in_the_distribution() -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    on_disk = {m for m, path in MODULES.items() if path.name == "__init__.py"}
    assert listed == on_disk


def test_links_point_to_the_rooms() -> None:
    for room in ROOMS:
        link = ROOT / "deeplab2_edge" / room
        if not link.is_symlink():
            pytest.skip("a checkout without symbolic links; set core.symlinks")
        assert link.resolve() == ROOT / room


@pytest.mark.parametrize(
    "statement",
    [
        "import deeplab2_edge",
        "import deeplab2_edge.cli as cli; cli.build_parser()",
        "import deeplab2_edge.runtime",
        "from deeplab2_edge import PanopticSegmenter",
    ],
)
def test_light_imports_stay_light(statement: str) -> None:
    heavy = "tensorflow", "tf_keras", "keras", "onnx", "matplotlib"
    code = f"import sys; {statement}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_command_line_parser_loads_no_numpy() -> None:
    code = (
        "import sys, deeplab2_edge.cli as cli; cli.build_parser();"
        "print([m for m in ('numpy', 'cv2') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
