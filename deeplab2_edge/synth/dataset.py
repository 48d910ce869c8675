"""Scenes as data-set samples, and many scenes at once on several processes."""

import concurrent.futures
import functools
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.street import SYNTHETIC_STREET
from deeplab2_edge.errors import UsageError
from deeplab2_edge.synth.render import DEFAULT_SIZE, render_scene
from deeplab2_edge.synth.scene import Scene

TRAIN_SEED_START = 0
VALIDATION_SEED_START = 1_000_000
_JOBS_PER_WORKER = 4  # scenes in flight for each process; bounds the memory


@dataclass(frozen=True)
class SynthSample:
    """Is a sample of the synthetic data set, rendered when asked for.

    The last few scenes are kept, so that loading image and labels of a sample one
    after the other renders it once.

    Attributes:
        seed: Of the scene.
        size: `(height, width)`.
    """

    seed: int
    size: tuple[int, int] = DEFAULT_SIZE

    @property
    def name(self) -> str:
        return f"synth_{self.seed:08d}"

    def load_scene(self) -> Scene:
        """Returns the whole scene, with depth and intrinsics; do not write to it."""
        return _recent_scene(self.seed, self.size)

    def load_image(self) -> NDArray[np.uint8]:
        """Returns the picture, `[H, W, 3]` uint8 RGB."""
        return self.load_scene().image.copy()

    def load_panoptic(self) -> NDArray[np.int32]:
        """Returns the labels, `[H, W]` int32, `class * 1000 + instance`."""
        return self.load_scene().panoptic.copy()


@functools.lru_cache(maxsize=8)
def _recent_scene(seed: int, size: tuple[int, int]) -> Scene:
    return render_scene(seed, size=size)


def synthetic_samples(
    seeds: Iterable[int], size: tuple[int, int] = DEFAULT_SIZE
) -> Sequence[SynthSample]:
    """Returns one lazily rendered sample per seed."""
    return [SynthSample(seed, size) for seed in seeds]


@dataclass(frozen=True)
class SynthDataset:
    """Pairs samples with the description of their classes, as a folder does.

    Attributes:
        samples: Rendered when asked for.
        info: Classes, things, colors and label rules.
    """

    samples: Sequence[SynthSample]
    info: DatasetInfo = SYNTHETIC_STREET


def render_many(
    seeds: Iterable[int],
    size: tuple[int, int] = DEFAULT_SIZE,
    num_workers: int = 1,
) -> Iterator[Scene]:
    """Renders scenes in the order of their seeds.

    Args:
        seeds: Seeds, read as needed.
        size: `(height, width)`.
        num_workers: Processes to render on; up to 1 renders in this one. Processes
            are spawned, not forked, so threads of this one (TensorFlow's) cannot
            block them; a script that calls this needs the usual
            `if __name__ == "__main__":` guard.

    Raises:
        UsageError: If `num_workers` is negative, or as `render_scene`.
    """
    if num_workers < 0:
        raise UsageError(f"num_workers is {num_workers}; must be 0 or more")
    if num_workers <= 1:
        return (render_scene(seed, size=size) for seed in seeds)
    return _render_in_processes(iter(seeds), size, num_workers)


def _render_in_processes(
    seeds: Iterator[int], size: tuple[int, int], num_workers: int
) -> Iterator[Scene]:
    executor = concurrent.futures.ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_use_one_thread,
    )
    waiting: deque[concurrent.futures.Future[Scene]] = deque()
    try:
        for seed in seeds:
            waiting.append(executor.submit(render_scene, seed, size=size))
            if len(waiting) >= num_workers * _JOBS_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _use_one_thread() -> None:
    cv2.setNumThreads(1)
