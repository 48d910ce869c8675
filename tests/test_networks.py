"""The costs that travel with the package belong to the recipes that are there."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.models import OUTPUT
from deeplab2_edge.config import load_config
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.experiments import find_recipe, recipe_names
from deeplab2_edge.networks import (
    BASELINE,
    Network,
    costs_path,
    describe_network,
    find_network,
    shipped_costs,
    shipped_networks,
)

RECOUNT = "run: python -m benchmarks.models --seconds 0"
# The others take minutes.
FAST = {
    "camvid_mobilenet_v3_small",
    "cityscapes_panoptic_mobilenet_v3_small_os32",
    "example_cityscapes_deeplabv3_mv3l",
}


def cases() -> list[Any]:
    return [
        pytest.param(
            network,
            id=network.name,
            marks=[] if network.name in FAST else [pytest.mark.slow],
        )
        for network in shipped_networks()
    ]


def test_every_recipe_has_one_network() -> None:
    networks = shipped_networks()
    assert sorted(name for n in networks for name in n.recipes) == recipe_names()
    trained_alike = {n.name: n.recipes for n in networks if len(n.recipes) > 1}
    assert trained_alike["kitti_motion_resnet50_os32"] == (
        "kitti_motion_resnet50_os32",
        "kitti_motion_resnet50_os32_trainval",
    )


def test_every_network_has_a_cost() -> None:
    rows = shipped_costs()["rows"]
    known = {tuple(row["recipes"]): tuple(row["input_size"]) for row in rows}
    assert known == {n.recipes: n.canvas for n in shipped_networks()}, RECOUNT


def test_the_package_holds_what_the_benchmark_wrote() -> None:
    assert costs_path().read_bytes() == OUTPUT.read_bytes(), RECOUNT


@pytest.mark.tf
@pytest.mark.parametrize("network", cases())
def test_costs_are_those_of_the_network(network: Network) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    from deeplab2_edge.models.cost import network_cost

    rows = {row["recipes"][0]: row for row in shipped_costs()["rows"]}
    canvas = network.canvas
    cost = network_cost(network.config, input_size=canvas)
    baseline = network_cost(load_config(find_recipe(BASELINE)), input_size=canvas)
    for field, value in describe_network(
        network.config, canvas, cost, baseline
    ).items():
        if field != "measured":
            assert rows[network.name][field] == value, RECOUNT


def test_an_experiment_without_a_canvas_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "own.textproto"
    path.write_text('model_options { backbone { name: "resnet50" } }')
    assert find_network(str(path), (65, 65)).canvas == (65, 65)
    with pytest.raises(ConfigError, match="height and width .*--input-size HxW"):
        find_network(str(path))
