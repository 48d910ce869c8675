"""Matching: exact, whole batches at once, inside a compiled step."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
matching = pytest.importorskip("deeplab2_edge.train.losses.matching")

pytestmark = pytest.mark.tf


def solve(cost: NDArray[Any], is_present: NDArray[Any] | None = None) -> NDArray[Any]:
    if is_present is None:
        is_present = np.ones(cost.shape[:2], bool)
    found = matching.match(tf.constant(cost, tf.float32), tf.constant(is_present))
    return np.asarray(found)


def check_valid(columns: NDArray[Any], is_present: NDArray[Any], width: int) -> None:
    matched = columns[columns >= 0]
    assert len(set(matched)) == len(matched) == min(is_present.sum(), width)
    assert (columns[~is_present] == -1).all() and (matched < width).all()


def total(cost: NDArray[Any], columns: NDArray[Any]) -> float:
    rows = np.flatnonzero(columns >= 0)
    return float(cost[rows, columns[rows]].astype(np.float64).sum())


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3)])
@pytest.mark.parametrize("kind", ["real", "ties", "equal"])
def test_no_matching_is_cheaper(shape: tuple[int, int], kind: str) -> None:
    generator = np.random.default_rng(7)
    count = 12
    cost = {
        "real": generator.normal(size=(count, *shape)),
        "ties": generator.integers(-2, 3, size=(count, *shape)),
        "equal": np.full((count, *shape), -999.0),
    }[kind].astype(np.float32)
    is_present = generator.random((count, shape[0])) < 0.8
    found = solve(cost, is_present)
    for sample in range(count):
        check_valid(found[sample], is_present[sample], shape[1])
        rows = np.flatnonzero(is_present[sample])
        wanted = cheapest(cost[sample][rows])
        assert total(cost[sample], found[sample]) == pytest.approx(wanted, abs=1e-9)


def cheapest(cost: NDArray[Any]) -> float:
    if len(cost) > cost.shape[1]:
        cost = cost.T
    rows = np.arange(len(cost))
    return min(
        float(cost[rows, list(columns)].astype(np.float64).sum())
        for columns in itertools.permutations(range(cost.shape[1]), len(cost))
    )


@pytest.mark.parametrize("shape", [(40, 40), (40, 25)])
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e6])
def test_larger_matchings_equal_those_of_scipy(
    shape: tuple[int, int], scale: float
) -> None:
    optimize = pytest.importorskip("scipy.optimize", reason="install scipy")
    generator = np.random.default_rng(3)
    products = generator.random((4, shape[0], 1)) * generator.random((4, 1, shape[1]))
    cost = (scale * (0.1 * generator.random((4, *shape)) - products)).astype(np.float32)
    found = solve(cost)
    for sample in range(4):
        rows, columns = optimize.linear_sum_assignment(cost[sample].astype(np.float64))
        wanted = np.full(shape[0], -1)
        wanted[rows] = columns
        np.testing.assert_array_equal(found[sample], wanted)


def test_rows_that_all_want_the_same_columns_are_matched() -> None:
    # The cost i * j is the case with the longest searches.
    side = np.arange(1, 25, dtype=np.float32)
    assert solve(np.multiply.outer(side, side)[None])[0].tolist() == [
        *range(23, -1, -1)
    ]


def test_a_sample_is_matched_as_if_it_were_alone() -> None:
    cost = np.random.default_rng(0).normal(size=(12, 3, 6)).astype(np.float32)
    is_present = np.arange(3) < (np.arange(12) % 4)[:, None]
    together = solve(cost, is_present)
    alone = [solve(cost[i : i + 1], is_present[i : i + 1])[0] for i in range(12)]
    np.testing.assert_array_equal(together, alone)


def test_rows_that_are_not_present_are_not_read() -> None:
    cost = np.random.default_rng(0).normal(size=(1, 3, 6)).astype(np.float32)
    is_present = np.array([[True, False, True]])
    expected = solve(cost, is_present)
    for value in (np.nan, -np.inf, 1e30):
        cost[:, 1] = value
        np.testing.assert_array_equal(solve(cost, is_present), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_no_cost_makes_the_search_endless(value: float) -> None:
    cost = np.random.default_rng(0).normal(size=(12, 3, 6)).astype(np.float32)
    cost[0, :, ::2] = value
    cost[1] = value
    found = solve(cost)
    for sample in found:
        check_valid(sample, np.ones(3, bool), 6)


def test_matching_runs_inside_a_compiled_step_and_has_no_gradient() -> None:
    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def step(cost: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(cost)
            columns = matching.match(cost, tf.ones([3, 4], tf.bool))
            value = tf.reduce_sum(tf.gather(cost, columns, batch_dims=2))
        return columns, tape.gradient(value, cost)

    cost = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)
    columns, gradient = step(tf.constant(cost))
    np.testing.assert_array_equal(columns, solve(cost))
    np.testing.assert_array_equal(gradient, tf.one_hot(columns, 6))


def test_nothing_calls_back_into_python() -> None:
    @tf.function  # type: ignore[untyped-decorator]
    def step(cost: Any) -> Any:
        return matching.match(cost, tf.ones([1, 3], tf.bool))

    graph = step.get_concrete_function(tf.TensorSpec([1, 3, 5])).graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert not [node.op for node in nodes if "PyFunc" in node.op]


@pytest.mark.parametrize("shape", [[1, None, 3], [1, 0, 3], [1, 3, 5000]])
def test_sizes_that_cannot_be_matched_are_refused(shape: list[int | None]) -> None:
    @tf.function  # type: ignore[untyped-decorator]
    def step(cost: Any) -> Any:
        return matching.match(cost, tf.ones(tf.shape(cost)[:2], tf.bool))

    with pytest.raises(ValueError, match="rows and columns must be"):
        step.get_concrete_function(tf.TensorSpec(shape))
