"""A training run of seconds: rendered records and a narrow network."""

from pathlib import Path

import numpy as np

from deeplab2_edge import records, synth
from deeplab2_edge.config import ExperimentOptions, load_config
from deeplab2_edge.images import encode_png

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "train" / "recipes" / "synthetic_street_mobilenet_v3_small.textproto"
SIZE = (33, 65)


def write_scenes(folder: Path, count: int) -> str:
    """Renders scenes into a record file and returns its pattern."""
    scenes = [synth.render_scene(seed, size=SIZE) for seed in range(count)]
    records.write_records(
        folder / "train-00000-of-00001.tfrecord",
        (
            records.encode_example(
                records.Frame(encode_png(scene.image), scene.panoptic),
                filename=f"scene{number}",
            )
            for number, scene in enumerate(scenes)
        ),
    )
    return f"{folder}/train-*.tfrecord"


def write_video(folder: Path, count: int) -> str:
    """Renders a video into records of three frames with depth."""
    scenes = list(synth.render_video(0, num_frames=count + 2, size=SIZE))
    frames = [records.Frame(encode_png(s.image), s.panoptic) for s in scenes]
    records.write_records(
        folder / "video-00000-of-00001.tfrecord",
        (
            records.encode_example(
                frames[number],
                filename=f"frame{number}",
                sequence_id="0",
                frame_id=f"{number:06d}",
                previous=frames[number - 1],
                following=frames[number + 1],
                depth=(scenes[number].depth * 256).astype(np.int32),
            )
            for number in range(1, count + 1)
        ),
    )
    return f"{folder}/video-*.tfrecord"


def experiment(
    pattern: str, changes: dict[str, object] | None = None
) -> ExperimentOptions:
    """Narrows the recipe of the synthetic street; what is tested is the loop."""
    return load_config(
        RECIPE,
        overrides={
            "experiment_name": "run",
            "train_dataset_options.file_pattern": [pattern],
            "train_dataset_options.crop_size": SIZE,
            "train_dataset_options.batch_size": 2,
            "eval_dataset_options.crop_size": SIZE,
            "eval_dataset_options.file_pattern": [pattern],
            "model_options.initial_checkpoint": "",
            "model_options.backbone.output_stride": 32,
            "model_options.backbone.backbone_width_multiplier": 0.25,
            "model_options.decoder.aspp_channels": 8,
            "model_options.decoder.decoder_channels": 8,
            "trainer_options.save_checkpoints_steps": 2,
            "trainer_options.save_summaries_steps": 2,
            "trainer_options.steps_per_loop": 1,
            "trainer_options.solver_options.training_number_of_steps": 2,
            "trainer_options.solver_options.warmup_steps": 0,
            **(changes or {}),
        },
    )
