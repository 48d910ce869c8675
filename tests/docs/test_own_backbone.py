"""The figures of the example network in the documentation are those of the code."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge import load_config
from deeplab2_edge.backbones import Network, Stage, build_network, memory_feature
from deeplab2_edge.cli import main
from deeplab2_edge.layers.defaults import LayerDefaults
from deeplab2_edge.layers.stem import stem
from deeplab2_edge.models.cost import model_cost
from deeplab2_edge.optional import require

tf_keras: Any = require("tf_keras", extra="train")

pytestmark = pytest.mark.tf
PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-backbone.md"
SIZE = (257, 513)
ROW = re.compile(r"^\| `(_stem|_stage\S+)`[^|]*\| ([\d,]+) \| ([\d.]+) M \|", re.M)


def example() -> tuple[str, Network]:
    """Returns the code of the page and the table in it."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    namespace: dict[str, Any] = {"__name__": "docs"}
    exec(compile(found[1], str(PAGE), "exec"), namespace)
    return found[1], namespace["table"]


def cost(table: Network, num_rows: int) -> tuple[int, int]:
    """Returns parameters and multiply-adds of the first rows, without the memory."""
    image = tf_keras.Input((*SIZE, 3), batch_size=1)
    memory = memory_feature(image, "encoder", 16, 128)
    stages = []
    for stage in table.stages:
        if blocks := stage.blocks[:num_rows]:
            stages.append(Stage(stage.name, blocks))
        num_rows -= len(blocks)
    if stages:
        begun = dataclasses.replace(table, stages=tuple(stages))
        endpoints, last = build_network(
            image, begun, defaults=LayerDefaults(), memory=memory
        )
        outputs = [endpoints["backbone_output"], memory]
        # Nobody reads the memory behind the last row.
        outputs += [] if begun == table else [last]
    else:
        x = stem(
            image,
            "encoder/_stem",
            table.stem,
            table.stem_width_multiplier,
            defaults=LayerDefaults(),
        )
        outputs = [x, memory]
    total = model_cost(tf_keras.Model(image, outputs))
    return total.parameters - 128 * 128, total.multiply_adds


def test_example_has_30_lines() -> None:
    assert len(example()[0].splitlines()) <= 30


def test_recipe_takes_the_example(tmp_path: Path) -> None:
    own, copy = tmp_path / "my_backbones.py", tmp_path / "my_street.textproto"
    own.write_text(example()[0], encoding="utf-8")
    name = "model_options.backbone.name=street_hybrid"
    recipe = ["recipes", "synthetic_street_mobilenet_v3_small", "--output", str(copy)]
    assert main([*recipe, "--import", str(own), "--set", name]) == 0
    assert load_config(copy).model_options.backbone.name == "street_hybrid"


def test_table_states_what_each_row_costs() -> None:
    _, table = example()
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    paths = [
        f"{s.name}/_block{i + 1}" for s in table.stages for i in range(len(s.blocks))
    ]
    assert [path for path, _, _ in rows] == ["_stem", *paths]
    before = (0, 0)
    for number, (path, parameters, multiply_adds) in enumerate(rows):
        total = cost(table, number)
        found = [after - b for after, b in zip(total, before, strict=True)]
        assert found[0] == int(parameters.replace(",", "")), path
        assert found[1] / 1e6 == pytest.approx(float(multiply_adds), abs=0.06), path
        before = total
