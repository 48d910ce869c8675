"""Forms of networks by target."""

import subprocess
import sys

import pytest

from deeplab2_edge.convert.forms import AXIAL_FORMS, TARGETS, Forms, forms_for
from deeplab2_edge.convert.options import ConversionOptions, check_options
from deeplab2_edge.errors import UsageError


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_forms_of_builtin_ops(target: str) -> None:
    for quantization in ("none", "fp16", "dynamic", "int8", "int8-mixed", "int16x8"):
        assert not forms_for(target, quantization).has_custom_ops


def test_integers_take_hard_swish_apart() -> None:
    assert forms_for("cpu", "none").hard_swish == "fused"
    assert forms_for("cpu", "int8").hard_swish == "decomposed"
    assert forms_for("cpu", "int8-mixed").hard_swish == "decomposed"


def test_gpus_emulate_aligned_corners() -> None:
    assert forms_for("gpu", "fp16").resize == "matmul"
    assert forms_for("cpu", "fp16").resize == "native"


def test_the_edge_tpu_spreads_single_pixels() -> None:
    forms = forms_for("edgetpu", "int8")
    assert (forms.resize, forms.hard_swish) == ("spread", "decomposed")


def test_integers_pool_windows_apart() -> None:
    assert forms_for("cpu", "int8").pool == "separable"
    assert forms_for("cpu", "none").pool == "native"


def test_a_form_can_be_replaced() -> None:
    for axial in AXIAL_FORMS:
        forms = forms_for("cpu", "none").replace(axial=axial)
        assert forms.axial == axial
        assert forms.build_options()["axial"] == axial


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="target is 'tpu'; must be cpu, gpu"):
        forms_for("tpu", "none")
    with pytest.raises(UsageError, match="axial is 'skew'; must be builtin, einsum"):
        Forms(axial="skew")
    with pytest.raises(UsageError, match="resize is 'area'"):
        Forms().replace(resize="area")


def test_forms_need_no_tensorflow() -> None:
    code = (
        "import sys; import deeplab2_edge.convert.forms; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_of_a_conversion_name_forms() -> None:
    assert ConversionOptions(target="gpu").forms == forms_for("gpu", "none")
    assert ConversionOptions(axial="builtin").forms.axial == "builtin"
    with pytest.raises(UsageError, match="--axial is 'skew'; must be builtin, einsum"):
        check_options(ConversionOptions(axial="skew"))
