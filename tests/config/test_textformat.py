import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deeplab2_edge.config import (
    BackboneOptions,
    DatasetOptions,
    ExperimentOptions,
    Message,
    SolverOptions,
    format_config,
    load_config,
    parse_config,
    parse_message,
)
from deeplab2_edge.config.textformat import MAX_BYTES
from deeplab2_edge.errors import ConfigError


def backbone_name(text: str) -> str:
    return parse_message(BackboneOptions, f"name: {text}").name


def crop_size(text: str) -> tuple[int, ...]:
    return parse_message(DatasetOptions, text).crop_size


def learning_rate(text: str) -> float:
    solver = parse_message(SolverOptions, f"base_learning_rate: {text}")
    return solver.base_learning_rate


@pytest.mark.parametrize(
    "text",
    [
        "crop_size: 1025\ncrop_size: 2049",
        "crop_size: [1025, 2049]",
        "crop_size: [1025] crop_size: [2049]",
        "crop_size: 1025, crop_size: 2049;",
        "crop_size: 1025 # height\ncrop_size: 2049 # width",
        "crop_size:0x401 crop_size : 04001",
    ],
)
def test_a_repeated_field_may_be_written_in_many_ways(text: str) -> None:
    assert crop_size(text) == (1025, 2049)


@pytest.mark.parametrize(
    "text",
    [
        "model_options { backbone { name: 'x' } }",
        "model_options: { backbone: { name: 'x' } };",
        "model_options < backbone < name: 'x' > >",
        "model_options {\n  # why\n  backbone {\n    name: 'x'\n  }\n}\n",
    ],
)
def test_a_message_may_be_written_in_many_ways(text: str) -> None:
    assert parse_config(text).model_options.backbone.name == "x"


def test_a_list_of_messages() -> None:
    text = """model_options { panoptic_deeplab {
        low_level [{ feature_key: "res3" }, < feature_key: "res2" >] } }"""
    options = parse_config(text).model_options.panoptic_deeplab
    assert options is not None
    assert [level.feature_key for level in options.low_level] == ["res3", "res2"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a"', "a"),
        ("'a\"b'", 'a"b'),
        ('"a" \'b\'\n"c"', "abc"),
        (r'"\n\t\\\"\'"', "\n\t\\\"'"),
        (r'"\101\x42\u0043\U0001F600"', "ABC\U0001f600"),
        (r'"\303\251"', "é"),
        ('"${INIT_CHECKPOINT}"', "${INIT_CHECKPOINT}"),
        ('"# no comment"', "# no comment"),
    ],
)
def test_strings(text: str, value: str) -> None:
    assert backbone_name(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.00025", 0.00025),
        ("1e1", 10),
        ("2.5E-3", 0.0025),
        (".5", 0.5),
        ("1.", 1),
        ("3", 3),
        ("0.5f", 0.5),
        ("- 1", -1),
    ],
)
def test_floats(text: str, value: float) -> None:
    assert learning_rate(text) == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("t", True), ("1", True), ("False", False)]
)
def test_booleans(text: str, value: bool) -> None:
    options = parse_message(BackboneOptions, f"use_squeeze_and_excite: {text}")
    assert options.use_squeeze_and_excite is value


def test_fields_know_their_place() -> None:
    config = parse_config("\n\ntrain_dataset_options {\n batch_size: 8\n}", source="a")
    assert config.train_dataset_options.location("batch_size") == "a:4"
    assert config.location("train_dataset_options") == "a:3"
    assert config.train_dataset_options.location("sigma") == ""
    changed = config.train_dataset_options.replace(batch_size=4)
    assert changed.location("batch_size") == ""


def test_a_bare_model_becomes_an_experiment() -> None:
    text = "# proto-file: deeplab2/model.proto\n# proto-message: ModelOptions\n"
    config = parse_config(text + 'backbone { name: "resnet50" }')
    assert config.model_options.backbone.has("name")
    assert not config.has("trainer_options")


ERRORS = [
    (
        'experiment_nam: "x"',
        "ExperimentOptions has no field 'experiment_nam'; "
        "did you mean experiment_name?",
    ),
    ("model_options { decoder { q: 1 } }", "DecoderOptions has no field 'q'; it has"),
    ("experiment_name: 3", "field experiment_name: found '3'; expected a quoted"),
    ('experiment_name "x"', "field experiment_name: found '\"x\"'; expected ':'"),
    ("experiment_name:", "experiment_name: found end of file; expected a quoted"),
    ("model_options: 3", "field model_options: found '3'; expected '{'"),
    ("model_options", "field model_options: found 'end of file'; expected '{' after"),
    (
        "model_options {\nbackbone {",
        "found the end of the file; expected '}' to close the BackboneOptions "
        "opened in line 2",
    ),
    ("model_options { ]", "found ']'; expected the name of a field of ModelOptions"),
    ("}", "found '}'; expected the name of a field of ExperimentOptions"),
    ("'model_options' {}", "expected the name of a field of ExperimentOptions"),
    ('experiment_name: "x', "found a string without its closing quote"),
    ("$", "found the character '$'; expected protobuf text format"),
    (r'experiment_name: "\q"', "field experiment_name: found the escape"),
    (r'experiment_name: "\ud800"', "field experiment_name: found the escape"),
    (r'experiment_name: "\xff"', "found a string that is not UTF-8"),
    (
        'experiment_name: "a"\nexperiment_name: "b"',
        "field experiment_name of ExperimentOptions is set a second time; expected "
        "it once (first in line 1)",
    ),
    (
        "model_options { deeplab_v3 {}\n vip_deeplab {} }",
        "found vip_deeplab besides deeplab_v3 (line 1); expected one "
        "meta_architecture in ModelOptions",
    ),
    ("trainer_options { steps_per_loop: 1.5 }", "found '1.5'; expected a 32-bit"),
    ("trainer_options { steps_per_loop: 3000000000 }", "expected a 32-bit integer"),
    ("trainer_options { steps_per_loop: -}", "found '}'; expected a 32-bit integer"),
    ("trainer_options { steps_per_loop: 08 }", "found '08'; expected a 32-bit"),
    (
        "trainer_options { solver_options { base_learning_rate: 1e99 } }",
        "field base_learning_rate: found '1e99'; expected a finite number",
    ),
    (
        "trainer_options { solver_options { base_learning_rate: nan } }",
        "field base_learning_rate: found 'nan'; expected a finite number",
    ),
    (
        "train_dataset_options { use_next_frame: yes }",
        "field use_next_frame: found 'yes'; expected true or false",
    ),
    ("train_dataset_options { crop_size: [1 2] }", "found '2'; expected ',' or ']'"),
    ("train_dataset_options { batch_size: [1] }", "found '['; expected a 32-bit"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_an_error_names_file_line_and_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="f.textproto")
    assert str(caught.value).startswith("f.textproto:")
    assert message in str(caught.value)


def test_a_long_token_is_shortened_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("x" * 5000 + ": 1")
    assert len(str(caught.value)) < 300


def test_the_line_of_an_error_is_right() -> None:
    text = 'experiment_name: "a"\n\n# c\nmodel_options {\n  decodr {}\n}'
    with pytest.raises(ConfigError, match=r"^my\.textproto:5: .*did you mean decoder"):
        parse_config(text, source="my.textproto")


@pytest.mark.parametrize("opening", ["{", "[", "<", "model_options {", "name: ["])
def test_deep_nesting_is_refused(opening: str) -> None:
    with pytest.raises(ConfigError):
        parse_config("model_options { backbone {" + opening * 20_000)


def test_a_long_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected at most 1048576"):
        parse_config("#" * (MAX_BYTES + 1))


def test_load_reports_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.textproto: cannot be read"):
        load_config(tmp_path / "missing.textproto")
    with pytest.raises(ConfigError, match="found a folder or device"):
        load_config(tmp_path)
    binary = tmp_path / "binary.textproto"
    binary.write_bytes(b"# ok\n\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.textproto:2: .* not UTF-8"):
        load_config(binary)
    binary.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="found more than 1048576 bytes"):
        load_config(binary)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match="found a folder or device"):
        load_config(fifo)


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.textproto"
    path.write_bytes(b"\xef\xbb\xbfexperiment_name: 'a'\r\n")
    assert load_config(path).experiment_name == "a"


def test_floats_are_written_short() -> None:
    text = format_config(
        SolverOptions(base_learning_rate=0.1, batchnorm_epsilon=1e-5, weight_decay=10)
    )
    assert text == "batchnorm_epsilon: 1e-05\nbase_learning_rate: 0.1\n" + (
        "weight_decay: 10.0\n"
    )


@pytest.mark.parametrize("value", [3.4028234663852886e38, 1e-45, -0.0, 16777215, 1 / 3])
def test_extreme_floats_read_back_the_same(value: float) -> None:
    solver = SolverOptions(weight_decay=value)
    assert parse_message(SolverOptions, format_config(solver)) == solver


def test_an_empty_repeated_field_stays_set() -> None:
    options = DatasetOptions(crop_size=())
    assert parse_message(DatasetOptions, format_config(options)) == options


def values_of(kind: type) -> st.SearchStrategy[Any]:
    if issubclass(kind, Message):
        return messages(kind)
    if kind is str:
        return st.text(max_size=8)
    if kind is int:
        return st.integers(-(2**31), 2**31 - 1)
    if kind is float:
        return st.floats(width=32, allow_nan=False, allow_infinity=False)
    return st.booleans()


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Message:
    values = {}
    for name, spec in kind.specs().items():
        group = next((g for g, names in kind.one_ofs.items() if name in names), None)
        if group and any(other in values for other in kind.one_ofs[group]):
            continue
        if draw(st.integers(0, 2)) == 0:
            strategy = values_of(spec.kind)
            if spec.is_repeated:
                strategy = st.lists(strategy, max_size=2)
            values[name] = draw(strategy)
    return kind(**values)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(messages(ExperimentOptions))
def test_what_is_written_reads_back_the_same(config: ExperimentOptions) -> None:
    assert parse_config(format_config(config)) == config


SOUP = st.sampled_from(
    ["model_options", "backbone", "name", "crop_size", "train_dataset_options"]
    + ["{", "}", "<", ">", "[", "]", ":", ",", ";", "-", '"', "'", "\\", "#", "\n"]
    + ["1", "1e9", "0x", "true", '"a"', "é", "\x00", " "]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(SOUP, max_size=30).map("".join))
def test_no_text_does_worse_than_a_config_error(text: str) -> None:
    try:
        parse_config(text)
    except ConfigError as error:
        assert "<config>" in str(error)
