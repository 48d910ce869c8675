"""Quantiles and the rungs of static quantization, on a small network."""

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.convert.options import DropLimit
from deeplab2_edge.convert.quantization.ladder import Attempt, climb
from deeplab2_edge.convert.quantization.quantile import choose_quantile
from deeplab2_edge.convert.quantization.search import StaticSearch
from deeplab2_edge.convert.tflite import ConvertedGraph
from deeplab2_edge.errors import DataError
from tests.convert.small_graphs import quantizable, samples

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow.lite"),
]


def search(**options: object) -> StaticSearch:
    return StaticSearch(quantizable(), samples(2, first=50), quiet=True, **options)  # type: ignore[arg-type]


def test_the_best_quantile_is_chosen() -> None:
    sizes = {0.8: 1.0, 0.9: 2.0, 1.0: 4.0}
    scores = iter(sizes.values())
    choice = choose_quantile(
        quantizable(),
        samples(1),
        candidates=list(sizes),
        score=lambda graph: next(scores),
    )
    assert choice.quantile == 1.0
    assert choice.scores == sizes
    assert choice.to_json()["scores"] == {"0.8": 1.0, "0.9": 2.0, "1": 4.0}


def test_the_usual_quantile_wins_where_nothing_is_much_better() -> None:
    scores = iter([20.2, 20.0, 20.1])
    choice = choose_quantile(
        quantizable(),
        samples(1),
        candidates=[0.8, 0.9, 1.0],
        score=lambda graph: next(scores),
    )
    assert choice.quantile == 0.9


def test_heads_decide_by_default() -> None:
    choice = choose_quantile(
        quantizable(),
        samples(2, first=50),
        quantization="int8-mixed",
        candidates=[0.1, 0.9],
    )
    # 0.1 cuts nearly everything.
    assert choice.quantile == 0.9
    assert choice.scores[0.9] > choice.scores[0.1]


def test_a_quantile_is_not_chosen_without_images() -> None:
    with pytest.raises(DataError, match="no images to choose the quantile"):
        choose_quantile(quantizable(), [])


def test_the_ladder_reaches_blocks_in_float() -> None:
    tried: list[ConvertedGraph] = []

    def measure(name: str, converted: ConvertedGraph) -> Attempt:
        tried.append(converted)
        drop = 0.0 if converted.float_layers else 5.0
        return Attempt(name, len(converted.graph), {"pq": drop}, product=converted)

    result = climb(search().rungs(measure), [DropLimit("pq", 1.0)])
    assert result.chosen is not None
    product: ConvertedGraph = result.chosen.product
    assert product.quantization == "int8-mixed"
    assert len(product.float_layers) == 1
    assert [graph.quantization for graph in tried][0] == "int8"
    assert result.attempts[-1].name == "int8-mixed, worst 1 in float"


def test_a_first_rung_that_keeps_the_promise_costs_nothing_more() -> None:
    result = climb(
        search().rungs(lambda name, graph: Attempt(name, 1, {"pq": 0.0})),
        [DropLimit("pq", 1.0)],
    )
    assert [attempt.name for attempt in result.attempts] == ["int8"]


def test_devices_of_integers_alone_get_no_mixed_files() -> None:
    result = climb(
        search(may_mix=False).rungs(lambda name, graph: Attempt(name, 1, {"pq": 9.0})),
        [DropLimit("pq", 1.0)],
    )
    assert result.chosen is None
    assert not any("mixed" in attempt.name for attempt in result.attempts)


def test_the_quantile_can_be_chosen_before_anything_else() -> None:
    automatic = search(quantile=None, quantization="int8-mixed")
    converted = automatic.convert()
    assert converted.calibration is not None
    assert converted.calibration.quantile == automatic.choice.quantile
