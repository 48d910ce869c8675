"""What counts as the model's in a checkpoint."""

from pathlib import Path

from deeplab2_edge.checkpoint_files import read_contents
from tests.checkpoint_files import tables

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = "/.OPTIMIZER_SLOT/optimizer/m"
STRING = 7


def test_training_state_is_no_part_of_the_model(tmp_path: Path) -> None:
    contents = read_contents(
        tables.write_checkpoint(
            tmp_path / "ckpt",
            {
                f"encoder/_stem/_conv/kernel{SUFFIX}": tables.entry([2]),
                f"encoder/_stem/_conv/kernel{SLOT}{SUFFIX}": tables.entry([2]),
                f"global_step{SUFFIX}": tables.entry([]),
                f"save_counter{SUFFIX}": tables.entry([]),
                f"optimizer/iter{SUFFIX}": tables.entry([]),
                f"backbone_optimizer/iter{SUFFIX}": tables.entry([]),
                "_CHECKPOINTABLE_OBJECT_GRAPH": tables.entry([], size=9, dtype=STRING),
                "resnet/conv1/weights": tables.entry([2]),
            },
        )
    )
    assert contents.shapes == {"encoder/_stem/_conv/kernel": (2,)}
    assert contents.passed_over == ("resnet/conv1/weights",)
    assert contents.num_state == 5
    assert not contents.is_foreign


def test_another_trainer_gives_its_encoder_alone(tmp_path: Path) -> None:
    keys = (
        f"backbone/_encoder/_stem/_conv/kernel{SUFFIX}",
        f"encoder/_stage2/_block1/_conv1_bn_act/_conv/kernel{SUFFIX}",
        f"semantic_last_layer/kernel{SUFFIX}",
    )
    entries = {key: tables.entry([2]) for key in keys}
    contents = read_contents(tables.write_checkpoint(tmp_path / "ckpt", entries))
    assert contents.is_foreign
    assert contents.shapes == {"encoder/_stem/_conv/kernel": (2,)}
    assert contents.variables["encoder/_stem/_conv/kernel"].key == keys[0]
    assert len(contents.passed_over) == 2
