"""The depth loss: a case worked out by hand, and what has no depth."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
depth = pytest.importorskip("deeplab2_edge.train.losses.depth")

pytestmark = pytest.mark.tf

TARGET = tf.constant([[1.0, 2.0, 0.0, 4.0]])
PREDICTION = tf.constant([[1.1, 1.5, 3.0, 4.0]])


def test_only_pixels_with_depth_count() -> None:
    loss = depth.depth_loss(TARGET, PREDICTION, ignore_depth=0)
    np.testing.assert_allclose(loss, [0.181959], rtol=1e-5)


def test_the_scale_of_depth_does_not_matter_to_the_first_error() -> None:
    error = depth.scale_invariant_error(TARGET, PREDICTION, ignore_depth=0)
    scaled = depth.scale_invariant_error(TARGET, 7 * PREDICTION, ignore_depth=0)
    np.testing.assert_allclose(error, scaled, rtol=1e-4)


@pytest.mark.parametrize("target", [tf.zeros([2, 3, 3]), tf.ones([2, 3, 3])])
@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_no_depth_and_no_error_have_no_loss_and_no_gradient(
    target: tf.Tensor, scale: float
) -> None:
    # Where there is no depth, even a prediction of 0 must do no harm.
    is_known = bool(tf.reduce_all(target > 0))
    prediction = target if is_known else tf.fill([2, 3, 3, 1], scale)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        loss = depth.depth_loss(target, prediction, ignore_depth=0)
    assert loss.numpy().tolist() == [0, 0]
    assert not tape.gradient(loss, prediction).numpy().any()
