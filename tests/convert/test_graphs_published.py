"""Float graphs of networks in their published width, on a small canvas."""

from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.config import load_config
from deeplab2_edge.convert.export import export_graph
from deeplab2_edge.convert.forms import Forms
from deeplab2_edge.experiments import find_recipe
from deeplab2_edge.models import build_model
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.tflite_file.graph import read_graph
from tests.convert.networks import assert_close, inputs_of, run, to_tflite
from tests.convert.tiny import fill

pytestmark = [pytest.mark.tf, pytest.mark.slow]

SIZE = (65, 65)


@pytest.mark.parametrize(
    ("recipe", "axial"),
    [
        ("coco_max_deeplab_s_os16_res641_100k", "builtin"),
        ("coco_max_deeplab_s_os16_res641_100k", "einsum"),
        ("cityscapes_axial_max_deeplab_s_backbone_os16", "builtin"),
        ("cityscapes_panoptic_resnet50_os32", "einsum"),
        ("cityscapes_panoptic_mobilenet_v3_large_os32", "einsum"),
        ("kitti_motion_resnet50_os32", "einsum"),
        ("cityscapes_dvps_vip_resnet50_beta_os32", "einsum"),
    ],
)
def test_published_networks_convert(recipe: str, axial: str) -> None:
    config = load_config(find_recipe(recipe))
    plain, model = (built(config, form) for form in ("einsum", axial))
    network = InferenceNetwork(plain, config)
    inputs = inputs_of(network)
    expected = {name: value.numpy() for name, value in network(inputs).items()}
    exported = export_graph(model, config, for_integers=False, forms=Forms(axial=axial))
    content = to_tflite(exported)
    assert_close(run(content, inputs), expected)
    graph = read_graph(content)
    names = {op.name for op in graph.ops}
    assert not names & {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}
    assert not any(op.is_custom for op in graph.ops)
    assert max(len(t.shape) for op in graph.ops for t in op.outputs) <= 4


def built(config: Any, axial: str) -> Any:
    model = build_model(config, input_size=SIZE, batch_size=1, axial=axial)
    fill(model)
    return model
