"""`deeplab2-edge import-checkpoint` as a user meets it."""

import functools
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import load_weights, variable_paths
from deeplab2_edge.cli import main
from deeplab2_edge.config import format_config, load_config
from deeplab2_edge.optional import require
from tests.convert.tiny import build_tiny, tiny_backbone, tiny_config
from tests.models.synthetic_weights import weight

tf = require("tensorflow", extra="train")

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPLAB2_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.textproto"
    path.write_text(format_config(tiny_config()))
    return path


@functools.cache
def weights() -> dict[str, NDArray[np.float32]]:
    return {
        path: weight(path, variable.shape)
        for path, variable in variable_paths(build_tiny()).items()
    }


class Part(tf.Module):  # type: ignore[misc]
    """Is a node of an object graph, as any training code has them."""


def write_published(
    prefix: Path,
    *,
    without: str | tuple[str, ...] = (),
    extra: str = "",
    reshape: str = "",
) -> str:
    """Writes a training checkpoint: weights by published key, and training state."""
    root = Part()
    values = {
        path: value for path, value in weights().items() if not path.startswith(without)
    }
    if extra:
        values[extra] = np.zeros(3, np.float32)
    if reshape:
        values[reshape] = values[reshape][..., :-1]
    for path, value in values.items():
        node = root
        *edges, leaf = path.split("/")
        for edge in edges:
            if not hasattr(node, edge):
                setattr(node, edge, Part())
            node = getattr(node, edge)
        setattr(node, leaf, tf.Variable(value))
    items = {name: getattr(root, name) for name in {p.split("/")[0] for p in values}}
    state = tf.Variable(60000, dtype=tf.int64)
    return str(
        tf.train.Checkpoint(**items, global_step=state, optimizer=Part()).save(prefix)
    )


def pack(prefix: str, archive: Path, **texts: str) -> Path:
    """Packs a checkpoint the way published ones come."""
    name = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        for path in Path(prefix).parent.glob("*"):
            tar.add(path, f"{name}/{path.name}")
        for stem, text in texts.items():
            member = tarfile.TarInfo(f"{name}/{stem}.textproto")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return archive


def run(*arguments: object) -> int:
    return main(["import-checkpoint", *map(str, arguments)])


def test_published_checkpoint_becomes_ours(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    output = tmp_path / "ours" / "ckpt"
    assert run(prefix, "--config", config, "--output", output) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert f"matching     {len(weights()):>5}" in printed.out
    assert "missing          0" in printed.out
    assert "unexpected       0" in printed.out
    model = build_tiny()
    for variable in model.weights:
        variable.assign(tf.zeros_like(variable))
    assert load_weights(model, output.parent).is_exact
    for path, variable in variable_paths(model).items():
        np.testing.assert_array_equal(variable, weights()[path])
    keys = tf.train.load_checkpoint(str(output)).get_variable_to_shape_map()
    assert not [key for key in keys if "global_step" in key or "optimizer" in key]
    beside = load_config(output.parent / "config.textproto")
    assert beside == tiny_config()


def test_folder_of_a_checkpoint_will_do(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published(tmp_path / "published" / "ckpt")
    assert run(tmp_path / "published", "--config", config, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["is_exact"] is True
    assert document["written"] is None


def test_half_precision_halves_the_file(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    sizes = []
    for options in ([], ["--half"]):
        output = tmp_path / f"ours{len(options)}" / "ckpt"
        assert run(prefix, "--config", config, "--output", output, *options) == 0
        sizes.append(output.with_name("ckpt.data-00000-of-00001").stat().st_size)
    assert sizes[1] < 0.75 * sizes[0]  # vectors stay whole, and weigh much here
    model = build_tiny()
    load_weights(model, output)
    for path, variable in variable_paths(model).items():
        np.testing.assert_allclose(variable, weights()[path], rtol=1e-3, atol=1e-6)


def test_missing_variables_are_listed_and_nothing_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(
        tmp_path / "published" / "ckpt", without="instance_regression_head_last_layer"
    )
    output = tmp_path / "ours" / "ckpt"
    assert run(prefix, "--config", config, "--output", output, "--json") == 2
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["missing"] == [
        "instance_regression_head_last_layer/bias",
        "instance_regression_head_last_layer/kernel",
    ]
    assert "nothing was written" in printed.err
    assert "only heads are missing: `import-checkpoint --partial`" in printed.err
    assert not output.parent.exists()


def test_other_shapes_are_listed(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(
        tmp_path / "published" / "ckpt", reshape="semantic_last_layer/kernel"
    )
    assert run(prefix, "--config", config) == 2
    printed = capsys.readouterr().out
    assert "mismatching      1" in printed
    assert "semantic_last_layer/kernel: found (1, 1, 8, 10)" in printed


def test_unexpected_variables_are_listed_and_left_behind(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(
        tmp_path / "published" / "ckpt", extra="depth_head_last_layer/bias"
    )
    output = tmp_path / "ours" / "ckpt"
    assert run(prefix, "--config", config, "--output", output) == 0
    assert "depth_head_last_layer/bias" in capsys.readouterr().out
    keys = tf.train.load_checkpoint(str(output)).get_variable_to_shape_map()
    assert not [key for key in keys if key.startswith("depth")]


def test_damaged_checkpoint_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = Path(write_published(tmp_path / "published" / "ckpt"))
    prefix.with_name(prefix.name + ".index").write_bytes(b"no index")
    assert run(prefix, "--config", config) == 2
    assert str(prefix) in capsys.readouterr().err


def test_missing_checkpoint_is_named(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "none", "--config", config) == 2
    assert "no checkpoint here" in capsys.readouterr().err


def test_output_must_be_a_prefix(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    assert run(prefix, "--config", config, "--output", tmp_path) == 2
    assert "folder and base name" in capsys.readouterr().err


def test_an_archive_is_imported_as_it_was_downloaded(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    archive = pack(prefix, tmp_path / "tiny.tar.gz")
    output = tmp_path / "ours" / "ckpt"
    assert run(archive, "--config", config, "--output", output) == 0
    assert "Panoptic-DeepLab, an unknown encoder (7 rows)" in capsys.readouterr().out
    model = build_tiny()
    assert load_weights(model, output.parent).is_exact
    assert load_weights(model, f"{archive}/tiny/ckpt-1").is_exact


def test_an_archive_may_bring_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    archive = pack(prefix, tmp_path / "x.tar.gz", config=format_config(tiny_config()))
    assert run(archive, "--json") == 0
    assert json.loads(capsys.readouterr().out)["is_exact"] is True


def test_a_configuration_is_asked_for_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    name = "mobilenet_v3_small_os16_panoptic_deeplab_cityscapes_dwo.tar.gz"
    assert run(pack(prefix, tmp_path / name)) == 2
    error = capsys.readouterr().err
    assert "--config" in error
    assert "cityscapes_panoptic_mobilenet_v3_small_os16" in error


def test_an_encoder_alone_is_told_so(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = ("semantic", "instance")
    prefix = write_published(tmp_path / "published" / "ckpt", without=items)
    assert run(prefix, "--config", config) == 2
    printed = capsys.readouterr()
    assert "encoder alone" in printed.err
    assert "initial_checkpoint" in printed.err


def test_classes_are_kept_and_a_part_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(
        tmp_path / "published" / "ckpt", without="instance_center_head"
    )
    output = tmp_path / "start" / "ckpt"
    classes = "model_options.panoptic_deeplab.semantic_head.output_channels=3"
    options = ["--config", config, "--output", output, "--set", classes]
    assert run(prefix, *options, "--keep-classes", "7,0,10") == 2
    assert "instance_center_head" in capsys.readouterr().out
    assert run(prefix, *options, "--keep-classes", "7,0,10", "--partial") == 0
    reader = tf.train.load_checkpoint(str(output))
    for name in ("kernel", "bias"):
        path = f"semantic_last_layer/{name}"
        np.testing.assert_array_equal(
            reader.get_tensor(f"{path}/.ATTRIBUTES/VARIABLE_VALUE"),
            weights()[path][..., [7, 0, 10]],
        )
    keys = reader.get_variable_to_shape_map()
    assert not [key for key in keys if key.startswith("instance_center_head")]
    assert not (output.parent / "config.textproto").exists()


def test_a_part_must_match_somewhere(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tf.train.Checkpoint(model=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    assert run(prefix, "--config", config, "--partial") == 2
    assert "does not hold the model" in capsys.readouterr().err


def test_a_first_layer_that_needs_no_widening_is_told_so(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    assert run(prefix, "--config", config, "--widen-first-layer") == 2
    assert "both take 3 channels; leave it out" in capsys.readouterr().err


def test_another_family_is_told_in_short_lines_with_recipes(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(
        tmp_path / "published" / "ckpt", extra="motion_regression_head_last_layer/bias"
    )
    name = "resnet50_os32_motion_deeplab_kitti_step.tar.gz"
    assert run(pack(prefix, tmp_path / name), "--config", config) == 0
    prefix = write_published(
        tmp_path / "other" / "ckpt",
        without="instance_regression_head_last_layer",
        extra="motion_regression_head_last_layer/bias",
    )
    assert run(pack(prefix, tmp_path / name), "--config", config) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.endswith(f"does not hold the model of {config}; see above")
    assert "it holds motion_deeplab items" in lines[0]
    assert "--partial" in lines[1]
    assert lines[2].startswith("  recipes like it: kitti_motion_resnet50_os32")
    assert len(lines) == 3


def test_fewer_classes_name_the_choice(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    classes = "model_options.panoptic_deeplab.semantic_head.output_channels=3"
    assert run(prefix, "--config", config, "--set", classes) == 2
    error = capsys.readouterr().err
    assert "it has 11 classes, the configuration 3" in error
    assert "`import-checkpoint --keep-classes N,...` keeps 3" in error


@pytest.mark.parametrize(
    ("source", "recipe", "name"),
    [
        ("tiny_os16.tar.gz", "my_os4.5.textproto", "my_os4.5"),
        ("tiny_os16.tar.gz", "config.textproto", "tiny_os16"),
        ("tiny_os16.tar.gz", None, "tiny_os16"),
        ("published", "config.textproto", "published"),
    ],
)
def test_an_experiment_without_a_name_gets_one(
    source: str, recipe: str | None, name: str, tmp_path: Path
) -> None:
    prefix = write_published(tmp_path / "published" / "ckpt")
    text = format_config(tiny_config().replace(experiment_name="${EXPERIMENT_NAME}"))
    texts = {} if recipe else {"config": text}
    pack(prefix, tmp_path / "tiny_os16.tar.gz", **texts)
    output = tmp_path / "ours" / "ckpt"
    words = ["--output", output]
    if recipe:
        (tmp_path / recipe).write_text(text)
        words += ["--config", tmp_path / recipe]
    assert run(tmp_path / source, *words) == 0
    beside = load_config(output.parent / "config.textproto")
    assert beside.experiment_name == name


def test_a_damaged_index_in_an_archive_is_named_as_the_user_named_it(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = Path(write_published(tmp_path / "published" / "ckpt"))
    prefix.with_name(prefix.name + ".index").write_bytes(b"no index")
    archive = pack(str(prefix), tmp_path / "tiny.tar.gz")
    assert run(archive, "--config", config) == 2
    error = capsys.readouterr().err
    assert f"{archive}/tiny/ckpt-1.index: cannot be read" in error
    assert "cache" not in error


def test_classes_must_be_numbers(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, "--config", config, "--keep-classes", "car,road")
    assert "expected numbers of classes" in capsys.readouterr().err
