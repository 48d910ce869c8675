"""The benchmark of the networks measures what it says."""

import pytest

from benchmarks import models
from deeplab2_edge.networks import find_network, shipped_costs, shipped_networks


def test_what_does_not_fit_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"computed_memory_bytes": 2e9, "multiply_adds": 300e9}
    monkeypatch.setattr(models, "_free_memory", lambda: 8e9)
    assert models._obstacle(row, 60) == ""
    assert "s that are left" in models._obstacle(row, 5)
    monkeypatch.setattr(models, "_free_memory", lambda: 4e9)
    assert models._obstacle(row, 60) == "may need 6 GB; 4 GB are free"


def test_a_change_of_the_network_outdates_its_measurement() -> None:
    row = shipped_costs()["rows"][0]
    assert models._identity(row) == models._identity(dict(row))
    changed = {**row, "multiply_adds": row["multiply_adds"] + 1}
    assert models._identity(changed) != models._identity(row)


@pytest.mark.tf
def test_only_missing_networks_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    from deeplab2_edge.models.cost import ModelCost

    cost = ModelCost(1, 1, 1, 1)
    monkeypatch.setattr("deeplab2_edge.models.cost.network_cost", lambda *_, **__: cost)
    networks = shipped_networks()[:2]
    rows = [r for r in shipped_costs()["rows"] if r["recipes"][0] == networks[0].name]
    counted = models._count(networks, rows, trusted=rows)["rows"]
    assert capsys.readouterr().out == f"counting {networks[1].name}\n"
    assert counted[0] == rows[0]
    assert counted[1]["parameters"] == 1 and counted[1]["measured"] is None
    elsewhere = [{**rows[0], "input_size": [1, 1]}]
    assert models._count(networks[:1], rows, trusted=elsewhere)["rows"] != rows


@pytest.mark.tf
@pytest.mark.slow
def test_a_small_network_is_measured() -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    measured = models._measure(find_network("synthetic_street_mobilenet_v3_small"))
    assert 1 <= measured["rounds"] <= 5
    assert 0 < measured["seconds"] < measured["baseline_seconds"]
    assert 0 < measured["relative_time"] < 1
    if measured["memory_bytes"] is not None:  # Linux
        assert measured["memory_bytes"] > 4 * 2_600_000
