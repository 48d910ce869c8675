"""Checks of networks as they are converted for each target."""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.backbones import mobilenet_v3
from deeplab2_edge.config import (
    ExperimentOptions,
    format_config,
    load_config,
    parse_config,
)
from deeplab2_edge.convert.export import export_graph
from deeplab2_edge.convert.forms import Forms, forms_for
from deeplab2_edge.convert.tflite import convert_graph
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.models import build_model
from deeplab2_edge.stderr import hidden_stderr
from deeplab2_edge.targets import Check, check_graph
from tests.convert.tiny import SIZE, fill, picture, tiny_backbone, tiny_config

pytestmark = pytest.mark.tf

MINIMALISTIC = "mobilenet_v3_small_minimalistic"


@contextlib.contextmanager
def backbones() -> Iterator[None]:
    """Makes both MobileNetV3-Small tiny for a while."""
    with tiny_backbone(), pytest.MonkeyPatch.context() as patch:
        variants = dict(mobilenet_v3.VARIANTS)
        rows = variants["mobilenet_v3_small"]
        variants[MINIMALISTIC] = tuple(map(mobilenet_v3._minimalistic, rows))
        patch.setattr(mobilenet_v3, "VARIANTS", variants)
        yield


def minimalistic() -> ExperimentOptions:
    text = format_config(tiny_config())
    text = text.replace('"mobilenet_v3_small"', f'"{MINIMALISTIC}"')
    return parse_config(
        text.replace("squeeze_and_excite: true", "squeeze_and_excite: false")
    )


def convert(config: ExperimentOptions, quantization: str, forms: Forms) -> bytes:
    with backbones():
        model = build_model(
            config, input_size=SIZE, batch_size=1, **forms.build_options()
        )
    fill(model)
    exported = export_graph(
        model, config, for_integers=quantization == "int8", forms=forms
    )
    samples = [(str(seed), {keys.IMAGE: picture(seed)}) for seed in range(4)]
    return convert_graph(exported, quantization, calibration=samples).graph


def ops_of(check: Check) -> set[str]:
    return {judged.op.name for judged in check.findings}


def count_delegates(content: bytes) -> int:
    """Asks LiteRT how often it enters XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    with hidden_stderr():
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    return collections.Counter(names)["DELEGATE"]


def test_the_whole_minimalistic_network_maps_to_the_edge_tpu() -> None:
    content = convert(minimalistic(), "int8", forms_for("edgetpu", "int8"))
    check = check_graph(content, "edgetpu")
    assert check.findings == () and check.is_clean
    assert check.mapped_share == 1 and check.num_mapped == len(check.ops)
    assert not {"HARD_SWISH", "LOGISTIC"} & {op.name for op in check.graph.ops}
    cpu = check_graph(content, "cpu")
    assert cpu.findings == () and cpu.is_clean
    assert cpu.num_partitions == count_delegates(content) == 1


def test_a_hard_swish_ends_the_partition_of_the_usual_network() -> None:
    content = convert(tiny_config(), "int8", Forms(hard_swish="fused"))
    check = check_graph(content, "edgetpu")
    assert check.first_cut is not None and check.mapped_share < 0.2
    assert check.ops[check.first_cut].op.name == "HARD_SWISH"
    cpu = check_graph(content, "cpu")
    assert "HARD_SWISH" in ops_of(cpu) and not cpu.is_clean
    assert 1 < count_delegates(content) <= cpu.num_partitions


@pytest.mark.parametrize(
    "quantization", ["none", pytest.param("fp16", marks=pytest.mark.slow)]
)
def test_the_form_for_gpus_has_no_inner_findings(quantization: str) -> None:
    content = convert(tiny_config(), quantization, forms_for("gpu", quantization))
    check = check_graph(content, "gpu")
    assert check.inner_findings == () and check.is_clean
    assert ops_of(check) <= {"CAST"}
    assert not any(op.options.get("align_corners") for op in check.graph.ops)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", MINIMALISTIC])
def test_checks_of_the_shipped_networks(name: str) -> None:
    recipe = "synthetic_street_mobilenet_v3_small"
    if name != "demo":
        recipe = f"synthetic_street_panoptic_{name}"
    config = load_config(find_recipe(recipe))
    forms = forms_for("edgetpu", "int8")
    size = (65, 129)
    model = build_model(
        config, input_size=size, batch_size=1, pool_size=(5, 9), **forms.build_options()
    )
    exported = export_graph(model, config, for_integers=True, forms=forms)
    samples: Any = [(str(seed), {keys.IMAGE: picture(seed, size)}) for seed in range(4)]
    content = convert_graph(exported, "int8", calibration=samples).graph
    check = check_graph(content, "edgetpu")
    assert check.findings == () and check.mapped_share == 1


@pytest.mark.slow
def test_axial_attention_in_forms_for_gpus_stays_on_them() -> None:
    from tests.convert import networks

    config = networks.experiment("panoptic_deeplab", "axial")
    content = networks.converted(config, forms_for("gpu", "none"))
    assert check_graph(content, "gpu").inner_findings == ()
    assert not check_graph(content, "edgetpu").is_clean
