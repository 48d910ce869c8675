"""A training step of every family keeps the rules of a TPU, as far as a CPU can tell.

A TPU runs what XLA compiles: shapes that are known before the first step, and no
operation that calls the host. Whether a real one takes these steps is not tested.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf

from deeplab2_edge.checkpoints import variable_paths
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.models import build_model
from deeplab2_edge.train.losses import build_loss
from deeplab2_edge.train.optimizers import build_optimizer_groups
from deeplab2_edge.train.run_data import open_dataset
from deeplab2_edge.train.step import make_train_step, seed_of
from tests.train.small_run import experiment, write_scenes, write_video
from tests.train.test_architectures import (
    NO_INSTANCE_LOSS,
    PANOPTIC,
    VIDEO_MODELS,
    mask_transformer,
)

pytestmark = pytest.mark.tf

FAMILIES: Mapping[str, dict[str, object]] = {
    "panoptic_deeplab": {},
    "deeplab_v3": {
        PANOPTIC: None,
        "model_options.deeplab_v3.num_classes": 11,
        **NO_INSTANCE_LOSS,
    },
    **VIDEO_MODELS,
    "max_deeplab": mask_transformer(),
}
# They call Python, or leave the device.
HOST_OPERATIONS = {
    "PyFunc",
    "PyFuncStateless",
    "EagerPyFunc",
    "Print",
    "PrintV2",
    "Assert",
    "DecodePng",
    "ReadFile",
}
# The size of its last output is the device's own affair.
WORKSPACE = "FusedBatchNorm"


def step_of(family: str, folder: Path) -> tuple[Any, Mapping[str, Any]]:
    """Returns the step of a small network, and what its batches look like."""
    is_video = family in VIDEO_MODELS
    pattern = write_video(folder, 2) if is_video else write_scenes(folder, 2)
    config: ExperimentOptions = experiment(
        pattern, {"eval_dataset_options": None, **FAMILIES[family]}
    )
    info = get_dataset(config.train_dataset_options.dataset)
    model = build_model(config, input_size=config.train_dataset_options.crop_size)
    global_step = tf.Variable(0, dtype=tf.int64, trainable=False)
    solver = config.trainer_options.solver_options
    step = make_train_step(
        model,
        build_loss(
            config.trainer_options.loss_options,
            info,
            model_options=config.model_options,
            seed_source=seed_of(global_step),
        ),
        build_optimizer_groups(solver, variable_paths(model)),
        global_step,
        solver=solver,
    )
    return step, open_dataset(config, info, seed=0).element_spec


def operations(function: Any) -> Iterator[Any]:
    """Yields every operation of a traced function, with those of branches and loops."""
    pending, seen = [function.graph], set()
    while pending:
        graph = pending.pop()
        yield from graph.get_operations()
        for name, inner in graph._functions.items():
            if name not in seen and hasattr(inner, "graph"):
                seen.add(name)
                pending.append(inner.graph)


def is_workspace(operation: Any) -> bool:
    """Tells whether it gives the workspace of a batch norm, or zeros instead.

    What the condition of a loop is given and does not read has no shape, either.
    """
    if operation.type.startswith(WORKSPACE):
        return True
    if "redundant_placeholder" in operation.name:
        return True
    return operation.type == "ZerosLike" and all(
        part.op.type.startswith(WORKSPACE) for part in operation.inputs
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_xla_compiles_the_step_of_every_family(family: str, tmp_path: Path) -> None:
    step, spec = step_of(family, tmp_path)
    compiled = tf.function(lambda batch: step(batch), jit_compile=True)
    found = list(operations(compiled.get_concrete_function(spec)))
    assert "Conv2DBackpropFilter" in {operation.type for operation in found}
    assert not {operation.type for operation in found} & HOST_OPERATIONS
    assert not [
        (operation.type, operation.name)
        for operation in found
        if not is_workspace(operation)
        and not all(output.shape.is_fully_defined() for output in operation.outputs)
    ]
    batch = {name: tf.zeros(part.shape, part.dtype) for name, part in spec.items()}
    # Lowering names what XLA does not know; generating machine code takes minutes more.
    text = compiled.experimental_get_compiler_ir(batch)(stage="hlo")
    assert "convolution(" in text
    # Calls into the process, and sizes that depend on values, such as `f32[<=7]`.
    assert "custom-call" not in text
    assert re.search(r"\[[^\]]*<=\d", text) is None
