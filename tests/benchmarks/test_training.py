"""The benchmark of training measures steps, waiting, memory, and parts of a step."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import training
from benchmarks.step_profile import PARTS, part_of, profile_step
from benchmarks.training_tables import format_families, format_training

_MACHINE = {
    "machine": {
        **{"board": None, "cpu": "some CPU", "usable_cores": 2, "governor": None},
        **{"memory_bytes": 2**34, "system": "Linux", "python": "3.11", "versions": {}},
    }
}


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("net/encoder/_conv/Conv2D", "_MklNativeConv2D", "network: convolutions"),
        ("net/encoder/_bn/Add", "AddV2", "network: rest"),
        ("Mean_3", "Mean", "losses, both ways"),
        ("gradient_tape/ResizeBilinearGrad", "ResizeBilinearGrad", "losses, both ways"),
        ("gradient_tape/network_loss/mul", "Mul", "losses, both ways"),
        (
            "gradient_tape/net/_conv/DepthwiseConv2dNative",
            "DepthwiseConv2dNativeBackpropFilter",
            "gradient: convolutions",
        ),
        ("gradient_tape/net/encoder/Mul", "Mul", "gradient: rest"),
        ("cond/Adam/Sqrt", "Sqrt", "update"),
        ("clip_by_global_norm/mul", "Mul", "update"),
    ],
)
def test_every_operation_belongs_to_a_part(name: str, kind: str, part: str) -> None:
    assert part_of(name, kind, "net") == part
    assert part in PARTS


@pytest.mark.tf
def test_a_trace_tells_the_parts_of_a_step() -> None:
    tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    import tf_keras

    image = tf_keras.Input((16, 16, 3), batch_size=1)
    out = tf_keras.layers.Conv2D(8, 3)(tf_keras.layers.Conv2D(8, 3)(image))
    model = tf_keras.Model(image, out, name="net")

    @tf.function  # type: ignore[untyped-decorator]
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x)))
        return tape.gradient(loss, model.trainable_variables)

    x = tf.ones(image.shape)
    step(x)
    shares = profile_step(lambda: step(x), "net")
    assert tuple(shares) == PARTS
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    for part in PARTS[0], PARTS[2], PARTS[3]:
        assert shares[part] > 0
    assert shares["update"] == 0


def test_memory_of_an_image_is_what_it_adds_to_the_peak(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = []

    def tried(*arguments: str) -> str:
        commands.append(arguments)
        batch_size = int(arguments[-1].rpartition("=")[2])
        of_image = 40 if "--recompute" in arguments else 100
        return json.dumps(
            {
                "peak_memory_bytes": 7000 + batch_size * of_image,
                "memory_bytes_per_image": 90,
            }
        )

    monkeypatch.setattr(training, "run_command", tried)
    rows = training.measure_memory(tmp_path / "some.textproto")
    assert {row["variant"]: row["bytes_per_image"] for row in rows} == {
        "float32": 100,
        "recompute": 40,
    }
    assert all("--dry-run" in command for command in commands)


def test_a_step_is_compared_with_the_plain_one_of_its_round() -> None:
    time = training._Time
    plain = [time(0.0, 1.0, 1.0), time(0.0, 2.0, 1.0), time(0.0, 4.0, 1.0)]
    mine = [time(0.5, 1.5, 2.0), time(0.0, 3.0, 4.0), time(0.5, 6.0, 3.0)]
    found = training._summarize(mine, plain, batch_size=2)
    assert found["ratio"] == 1.5 and found["cpu_seconds"] == 3
    assert found["steps_per_second"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["images_per_second"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["input_wait_fraction"] == pytest.approx(1 / 11.5, abs=1e-4)


def test_published_networks_learn_rendered_scenes() -> None:
    for recipe, batch_size in training.BATCH_SIZES.items():
        config = training.experiment(recipe, "x.tfrecord", (513, 513), batch_size)
        assert config.train_dataset_options.crop_size == (513, 513)
        head = config.model_options.panoptic_deeplab.semantic_head
        assert (head.output_channels, head.head_channels) == (11, 256)


def test_the_table_of_training_shows_time_waiting_and_memory() -> None:
    step = {"steps_per_second": 0.5, "images_per_second": 1.0, "ratio": 1.0}
    row = {
        **{"recipe": "some", "batch_size": 2, "tensorflow": "2.21", "device": "CPU"},
        "input_pipeline": {"images_per_second": 30.0, "cpu_ms_per_image": 20.0},
        "steps": [
            {"variant": "float32", **step, "input_wait_fraction": 0.004},
            {"variant": "bfloat16", **step, "input_wait_fraction": 0.0},
        ],
        "profile": {"network: rest": 0.25, "update": 0.75},
        "memory": [
            {
                "variant": "float32",
                "bytes_per_image": 7e8,
                "computed_bytes_per_image": 5e8,
            }
        ],
    }
    document = {
        **{"command": "python -m x", "rounds": 3, "rows": [row], **_MACHINE},
        **{"crop_size": [513, 513], "image_size": [513, 1025]},
    }
    lines = format_training(document).splitlines()
    assert "| `some` | 2 | float32 | 0.500 | 1.00 | 1.00 | 0.4 % | 700 | 500 |" in lines
    assert "| `some` | 2 | bfloat16 | 0.500 | 1.00 | 1.00 | 0.0 % | | |" in lines
    assert "| `some` | 30.0 | 20.0 |" in lines
    assert "| recipe | network: rest | update |" in lines
    assert "| `some` | 25.0 | 75.0 |" in lines


def test_the_table_of_families_has_the_metrics_that_are_there() -> None:
    common = {"canvas": [129, 257], "seconds": 600, "peak_memory_bytes": 2e9}
    rows: dict[str, Any] = {
        "b": {
            **common,
            "steps": 100,
            "first_step": {"miou": 1.5},
            "trained": {"miou": 60},
        },
        "a": {
            **common,
            "steps": 200,
            "first_step": {"miou": 2, "pq": 0.1},
            "trained": {"miou": 70.04, "pq": 50},
        },
    }
    document = {"command": "python -m x", "rows": rows, **_MACHINE}
    assert format_families(document).splitlines()[-4:] == [
        "| recipe | canvas | steps | minutes | PQ | mIoU | peak MB |",
        "|---|---|---|---|---|---|---|",
        "| `a` | 129x257 | 200 | 10 | 0.1 → 50.0 | 2.0 → 70.0 | 2000 |",
        "| `b` | 129x257 | 100 | 10 | | 1.5 → 60.0 | 2000 |",
    ]


@pytest.mark.tf
@pytest.mark.slow
def test_a_small_network_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    monkeypatch.setattr(training, "VARIANTS", {training.PLAIN: {}})
    monkeypatch.setattr(training, "NUM_IMAGES", 4)
    pattern = training.render(tmp_path, (65, 129))
    recipe = "synthetic_street_mobilenet_v3_small"
    config = training.experiment(recipe, pattern, (65, 65), 2)
    found = training.measure(config, rounds=2)
    (step,) = found["steps"]
    assert step["variant"] == training.PLAIN and step["ratio"] == 1
    assert step["images_per_second"] > 0 and 0 <= step["input_wait_fraction"] < 1
    assert found["input_pipeline"]["images_per_second"] > 0
    if found["device"] == "CPU":
        assert sum(found["profile"].values()) == pytest.approx(1, abs=1e-3)
        assert found["profile"]["gradient: convolutions"] > 0.1
