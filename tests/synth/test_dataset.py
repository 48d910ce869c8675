"""Samples render once for image and labels; processes keep the order of seeds."""

import numpy as np
import pytest

from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import UsageError
from deeplab2_edge.synth import (
    TRAIN_SEED_START,
    VALIDATION_SEED_START,
    SynthDataset,
    dataset,
    render_many,
    render_scene,
    synthetic_samples,
)
from deeplab2_edge.synth.scene import CLASS_NAMES, THING_IDS, VOID

SMALL = (65, 129)


def test_sample_renders_once_for_image_and_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def counted(seed: int, *, size: tuple[int, int]) -> object:
        calls.append(seed)
        return render_scene(seed, size=size)

    monkeypatch.setattr(dataset, "render_scene", counted)
    dataset._recent_scene.cache_clear()
    (sample,) = synthetic_samples(range(7, 8), SMALL)
    image, panoptic = sample.load_image(), sample.load_panoptic()
    assert calls == [7]
    scene = render_scene(7, size=SMALL)
    assert np.array_equal(image, scene.image)
    assert np.array_equal(panoptic, scene.panoptic)
    panoptic[:] = 0  # what a caller does to his copy stays with him
    assert np.array_equal(sample.load_panoptic(), scene.panoptic)


def test_names_sort_like_seeds() -> None:
    samples = synthetic_samples(range(VALIDATION_SEED_START, VALIDATION_SEED_START + 3))
    assert [s.name for s in samples] == sorted(s.name for s in samples)
    assert TRAIN_SEED_START == 0 and VALIDATION_SEED_START == 1_000_000


def test_processes_give_the_same_scenes_in_order() -> None:
    one = list(render_many(range(5), SMALL, 1))
    two = list(render_many(range(5), SMALL, 2))
    assert len(two) == 5
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.panoptic, b.panoptic)


def test_negative_worker_count_is_refused() -> None:
    with pytest.raises(UsageError, match="num_workers"):
        render_many(range(1), SMALL, -1)


def test_dataset_describes_the_classes_that_are_painted() -> None:
    info = SynthDataset(synthetic_samples(range(1), SMALL)).info
    assert info.class_names == CLASS_NAMES
    assert info.thing_ids == THING_IDS
    assert info.ignored_panoptic_id == VOID
    assert info == get_dataset("synthetic_street")
