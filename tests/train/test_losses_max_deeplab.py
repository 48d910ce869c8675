"""MaX-DeepLab's loss: what must not change it, and the images it must survive."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.config import (
    LossOptions,
    MaXDeepLabOptions,
    ModelOptions,
    SingleLossOptions,
)
from deeplab2_edge.datasets.info import info_from_rows

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
losses = pytest.importorskip("deeplab2_edge.train.losses")
mask_targets = pytest.importorskip("deeplab2_edge.train.losses.mask_targets")
discrimination = pytest.importorskip(
    "deeplab2_edge.train.losses.instance_discrimination"
)

pytestmark = pytest.mark.tf

INFO = info_from_rows(
    "street",
    [
        ("sky", "stuff", "000000"),
        ("road", "stuff", "000001"),
        ("car", "thing", "000002"),
    ],
)
OPTIONS = LossOptions(
    semantic_loss=SingleLossOptions(name="softmax_cross_entropy"),
    pq_style_loss=SingleLossOptions(weight=3.0),
    mask_id_cross_entropy_loss=SingleLossOptions(weight=0.3, top_k_percent=0.7),
    instance_discrimination_loss=SingleLossOptions(),
)
HEADS = (
    "pixel_space_normalized_feature",
    "pixel_space_mask_logits",
    "transformer_class_logits",
)
SLOTS = 7


def sample(batch: int = 2, seed: int = 0) -> dict[str, Any]:
    """Makes heads and labels: sky, road, two cars, a crowd of cars and void."""
    draw = np.random.default_rng(seed).normal
    semantic = np.zeros((batch, 9, 9), np.int32)
    semantic[:, 4:] = 1
    semantic[:, 3:7, 1:7] = 2
    semantic[:, 0] = 255
    thing_id = np.full((batch, 9, 9), -1, np.int32)
    thing_id[:, 3:7, 1:3], thing_id[:, 3:7, 3:5] = 0, 1
    feature = draw(size=(batch, 5, 5, 6))
    feature /= np.linalg.norm(feature, axis=-1, keepdims=True)
    arrays = {
        "semantic_gt": semantic,
        "thing_id_mask_gt": thing_id,
        "thing_id_class_gt": np.tile(np.float32([2, 2, -1]), (batch, 1)),
        "semantic_loss_weight": np.ones((batch, 9, 9), np.float32),
        "semantic_logits": draw(size=(batch, 5, 5, 3)),
        "pixel_space_normalized_feature": feature,
        "pixel_space_mask_logits": draw(size=(batch, 5, 5, SLOTS)),
        "transformer_class_logits": draw(size=(batch, SLOTS, 4)),
    }
    return {
        name: a.astype(np.float32) if a.dtype == np.float64 else a
        for name, a in arrays.items()
    }


def evaluate(
    given: dict[str, NDArray[Any]], loss: Any = None
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Returns all losses and the gradients of their sum."""
    loss = loss or losses.build_loss(OPTIONS, INFO)
    tensors = {name: tf.constant(value) for name, value in given.items()}
    heads = {name: tensors[name] for name in (*HEADS, "semantic_logits")}
    with tf.GradientTape() as tape:
        tape.watch(heads)
        values = loss(heads, tensors)
    gradients = tape.gradient(values["total_loss"], heads)
    return (
        {name: value.numpy() for name, value in values.items()},
        {name: value.numpy() for name, value in gradients.items()},
    )


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=2e-5, atol=1e-7, err_msg=name
        )


def test_the_order_of_slots_does_not_matter() -> None:
    given = sample()
    values, gradients = evaluate(given)
    order = np.random.default_rng(1).permutation(SLOTS)
    given["pixel_space_mask_logits"] = given["pixel_space_mask_logits"][..., order]
    given["transformer_class_logits"] = given["transformer_class_logits"][:, order]
    permuted_values, permuted_gradients = evaluate(given)
    assert_equal(permuted_values, values)
    gradient = gradients["pixel_space_mask_logits"][..., order]
    np.testing.assert_allclose(
        permuted_gradients["pixel_space_mask_logits"], gradient, rtol=1e-4, atol=1e-7
    )


def test_room_for_more_things_does_not_matter() -> None:
    given = sample()
    values, gradients = evaluate(given)
    room = np.full((2, 1), -1, np.float32)
    given["thing_id_class_gt"] = np.concatenate([given["thing_id_class_gt"], room], 1)
    wider_values, wider_gradients = evaluate(given)
    assert_equal(wider_values, values)
    assert_equal(wider_gradients, gradients)


def test_a_sample_has_the_loss_it_has_alone() -> None:
    first, second = sample(1, seed=1), sample(1, seed=2)
    second["semantic_gt"][:, 5:] = 255
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    together, _ = evaluate(both)
    alone = [evaluate(given)[0] for given in (first, second)]
    expected = {
        name: np.concatenate([values[name] for values in alone]) for name in together
    }
    assert_equal(together, expected)


def test_masks_and_classes_that_are_right_cost_next_to_nothing() -> None:
    given = sample(1)
    # Without crowds, every pixel has a slot or is void.
    given["semantic_gt"][given["thing_id_mask_gt"] >= 0] = 2
    given["semantic_gt"][:, 3:7, 5:7] = 255
    labels = mask_targets.mask_targets(
        given["semantic_gt"][:, ::2, ::2],
        given["thing_id_mask_gt"][:, ::2, ::2],
        given["thing_id_class_gt"],
        mask_targets.MaskClasses.of(INFO),
    )
    masks = labels.masks.numpy()[0].T.reshape(1, 5, 5, 5)
    void = 1 - masks.sum(axis=-1, keepdims=True)
    given["pixel_space_mask_logits"] = 50 * np.concatenate(
        [masks, void, np.zeros_like(void)], axis=-1
    )
    class_logits = np.zeros((1, SLOTS, 4), np.float32)
    # Things come first, then sky and road; the third thing is not there.
    class_logits[0, range(SLOTS), [0, 0, 3, 1, 2, 3, 3]] = 50
    given["transformer_class_logits"] = class_logits
    values, _ = evaluate(given)
    for name in ("class_term", "mask_dice_term"):
        assert abs(values[f"pq_style_loss_{name}"][0]) < 1e-5
    assert values["mask_id_cross_entropy_loss"][0] < 1e-5


def all_void(given: dict[str, Any]) -> None:
    given["semantic_gt"][:] = 255
    given["thing_id_mask_gt"][:] = -1
    given["thing_id_class_gt"][:] = -1


def all_crowd(given: dict[str, Any]) -> None:
    all_void(given)
    given["semantic_gt"][:] = 2


def no_thing(given: dict[str, Any]) -> None:
    all_void(given)
    given["semantic_gt"][:] = 1


def one_sample_void(given: dict[str, Any]) -> None:
    for name in ("semantic_gt", "thing_id_mask_gt", "thing_id_class_gt"):
        given[name][1] = 255 if name == "semantic_gt" else -1


def lost_by_striding(given: dict[str, Any]) -> None:
    no_thing(given)
    given["semantic_gt"][:, 3, 3], given["thing_id_mask_gt"][:, 3, 3] = 2, 0
    given["thing_id_class_gt"][:, 0] = 2


def confident(given: dict[str, Any]) -> None:
    for name in ("pixel_space_mask_logits", "transformer_class_logits"):
        given[name] *= 1e4


def no_feature(given: dict[str, Any]) -> None:
    given["pixel_space_normalized_feature"] *= 0


@pytest.mark.parametrize(
    "change",
    [
        all_void,
        all_crowd,
        no_thing,
        one_sample_void,
        lost_by_striding,
        confident,
        no_feature,
    ],
)
@pytest.mark.parametrize("sample_k", [0, 8])
def test_losses_and_gradients_are_finite(change: Any, sample_k: int) -> None:
    given = sample()
    change(given)
    values, gradients = evaluate(given, loss_with_sampling(sample_k))
    for name, value in (*values.items(), *gradients.items()):
        assert np.isfinite(value).all(), name
    if change is all_void:
        assert not values["mask_id_cross_entropy_loss"].any()
        assert not values["pq_style_loss_mask_dice_term"].any()
        assert values["pq_style_loss_class_term"].all(), "all slots learn to be void"


def test_a_loss_that_is_not_a_number_stays_one() -> None:
    given = sample()
    given["pixel_space_mask_logits"][0, 2, 2, 1] = np.nan
    values, _ = evaluate(given)
    assert np.isnan(values["total_loss"][0]) and np.isfinite(values["total_loss"][1])


@pytest.mark.slow
def test_a_compiled_step_gives_what_eager_execution_gives() -> None:
    given = sample()
    loss = losses.build_loss(OPTIONS, INFO)

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def step(tensors: dict[str, Any]) -> tuple[Any, Any]:
        heads = {name: tensors[name] for name in (*HEADS, "semantic_logits")}
        with tf.GradientTape() as tape:
            tape.watch(heads)
            values = loss(heads, tensors)
        return values, tape.gradient(values["total_loss"], heads)

    values, gradients = step({name: tf.constant(a) for name, a in given.items()})
    expected_values, expected_gradients = evaluate(given)
    assert_equal(values, expected_values)
    assert_equal(gradients, expected_gradients)


def loss_with_sampling(sample_k: int, seed: int = 0) -> Any:
    return losses.build_loss(
        OPTIONS,
        INFO,
        model_options=ModelOptions(
            max_deeplab=MaXDeepLabOptions(instance_discrimination_sample_k=sample_k)
        ),
        seed_source=lambda: tf.constant(seed, tf.int64),
    )


def test_samples_are_those_of_the_step() -> None:
    name = "instance_discrimination_loss"
    given = sample()
    first, again, other = (
        evaluate(given, loss_with_sampling(8, seed))[0][name] for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).all()


def test_small_masks_are_drawn_as_often_as_large_ones_and_void_last() -> None:
    # One pixel of the first mask, 60 of the second, 3 of void.
    mask_of = np.full((1, 64), 1, np.int32)
    mask_of[0, 0], mask_of[0, -3:] = 0, -1
    area = tf.constant([[1.0, 60.0]])
    labels = mask_targets.MaskTargets(
        mask_of=tf.constant(mask_of),
        masks=None,
        is_thing=None,
        is_labelled=tf.constant(mask_of >= 0),
        area=area,
        mask_class=None,
        is_present=None,
        class_one_hot=None,
    )

    def draw(seed: int) -> set[int]:
        drawn = discrimination.draw_pixels(
            labels,
            2,
            temperature=1.0,
            seed_source=lambda: tf.constant(seed, tf.int64),
        )
        return {int(index) for index in drawn[0]}

    draws = [draw(seed) for seed in range(200)]
    assert all(len(drawn) == 2 and max(drawn) < 61 for drawn in draws)
    # One half first, and one half of the others second.
    assert 130 < sum(0 in drawn for drawn in draws) < 170


@pytest.mark.parametrize(
    ("name", "message"),
    [("transformer_class_logits", "5 channels; the data set needs 4"), ("", "1 auxil")],
)
def test_heads_that_do_not_fit_are_refused(name: str, message: str) -> None:
    given: dict[str, Any] = sample()
    if name:
        given[name] = np.zeros((2, SLOTS, 5), np.float32)
    else:
        given["auxiliary_outputs"] = [dict(given)]
    with pytest.raises(ValueError, match=message):
        losses.build_loss(OPTIONS, INFO)(given, given)


def test_classes_are_things_then_stuff_without_void() -> None:
    def order(num_classes: int, ignore_label: int) -> tuple[int, ...]:
        rows = [
            (f"class {i}", "thing" if i in (1, 3) else "stuff", "000000")
            for i in range(num_classes)
        ]
        info = info_from_rows("case", rows, ignore_label=ignore_label)
        return tuple(mask_targets.MaskClasses.of(info).ids)

    assert order(5, 255) == (1, 3, 0, 2, 4)
    assert order(5, 0) == (1, 3, 2, 4)
    assert order(5, 4) == (1, 3, 0, 2)
    assert order(5, 5) == (1, 3, 0, 2)
