"""Learning rates and optimizer steps of the published system."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.config import SolverOptions, parse_message
from deeplab2_edge.errors import ConfigError

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
optimizers = pytest.importorskip("deeplab2_edge.train.optimizers")
schedules = pytest.importorskip("deeplab2_edge.train.schedules")

pytestmark = pytest.mark.tf

GOLDEN = np.load(Path(__file__).parents[1] / "golden/train/schedules.npz")
CONFIGS = {
    key.split("/")[0]: json.loads(str(GOLDEN[key]))
    for key in GOLDEN.files
    if key.endswith("/config")
}
RATES = sorted(case for case in CONFIGS if f"{case}/in/steps" in GOLDEN)
STEPS = sorted(case for case in CONFIGS if f"{case}/in/initial" in GOLDEN)


def options_of(case: str) -> tuple[SolverOptions, float]:
    config = CONFIGS[case]
    options = parse_message(SolverOptions, config["solver_options"])
    return options, config["learning_rate_multiplier"]


@pytest.mark.parametrize("case", RATES)
def test_learning_rates_equal_the_published_ones(case: str) -> None:
    options, multiplier = options_of(case)
    schedule = schedules.build_schedule(options, multiplier=multiplier)
    found = [float(schedule(tf.constant(step))) for step in GOLDEN[f"{case}/in/steps"]]
    np.testing.assert_allclose(
        found,
        GOLDEN[f"{case}/out/learning_rate"],
        rtol=0,
        atol=1e-6 * options.base_learning_rate,
    )


@pytest.mark.parametrize("case", STEPS)
def test_optimizer_steps_equal_the_published_ones(case: str) -> None:
    options, multiplier = options_of(case)
    optimizer = optimizers.build_optimizer(options, multiplier=multiplier)
    variables = [
        tf.Variable(value, name=name.removesuffix(":0"))
        for value, name in zip(
            GOLDEN[f"{case}/in/initial"], CONFIGS[case]["variable_names"], strict=True
        )
    ]
    optimizer.build(variables)
    for step, raw in enumerate(GOLDEN[f"{case}/in/gradients"]):
        gradients, norm = optimizers.clip_gradients(list(tf.constant(raw)), options)
        if options.use_gradient_clipping:
            prefix = f"{case}/out/step{step}"
            np.testing.assert_allclose(norm, GOLDEN[f"{prefix}.global_norm"], 1e-6)
            np.testing.assert_allclose(gradients, GOLDEN[f"{prefix}.clipped"], 1e-5)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        np.testing.assert_allclose(
            [variable.numpy() for variable in variables],
            GOLDEN[f"{case}/out/variables_after_each_step"][step],
            atol=2e-6,
        )


def test_adamw_decays_kernels_and_weights_only() -> None:
    options = SolverOptions(optimizer="adamw", adamw_weight_decay=0.5)
    optimizer = optimizers.build_optimizer(options)
    names = [str(name) for name in GOLDEN["adamw_decay_rule/out/names"]]
    # TensorFlow writes the ":0" itself and takes no other number.
    rule = dict(zip(names, GOLDEN["adamw_decay_rule/out/decayed"], strict=True))
    rule = {name: bool(rule[name]) for name in names if name.endswith(":0")}
    variables = [tf.Variable([1.0], name=name.removesuffix(":0")) for name in rule]
    optimizer.build(variables)
    optimizer.apply_gradients([(tf.zeros([1]), variable) for variable in variables])
    found = {variable.name: bool(variable.numpy()[0] < 1) for variable in variables}
    assert found == rule


def test_clipping_is_off_unless_asked_for() -> None:
    gradients, norm = optimizers.clip_gradients(
        [tf.constant([30.0, 40.0]), None], SolverOptions()
    )
    assert float(norm) == 50.0
    assert gradients[0].numpy().tolist() == [30.0, 40.0] and gradients[1] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_policy": "step"}, "'step'; it must be 'poly' or 'cosine'"),
        ({"optimizer": "lamb"}, "'lamb'; it must be 'adam', 'adamw' or 'sgd'"),
        ({"training_number_of_steps": 0}, "expected at least 1 and 0"),
    ],
)
def test_options_that_make_no_sense_are_named(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        optimizers.build_optimizer(SolverOptions(**options))
