"""Frames for a live view: a car on a road, and at times a person beside it."""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from deeplab2_edge.runtime.classes import ClassTable
from deeplab2_edge.runtime.results import PanopticResult, result_from_maps
from deeplab2_edge.runtime.serve import LiveView

SOURCE = "camera 0"

CLASSES = ClassTable(
    name="tiny",
    class_names=("sky", "road", "car", "person"),
    colors=((70, 130, 180), (128, 64, 128), (0, 0, 142), (220, 20, 60)),
    thing_ids=(2, 3),
    label_divisor=1000,
    ignore_label=255,
)
SKY, ROAD, CAR, PERSON = 0, 1000, 2001, 3001


def make_result(number: int, *, size: tuple[int, int] = (60, 120)) -> PanopticResult:
    """Gives a frame whose car moves; every other one has a person, too."""
    height, width = size
    panoptic = np.full(size, SKY, np.int32)
    panoptic[height // 2 :] = ROAD
    left = number * 7 % (width - 20)
    panoptic[height // 2 : height // 2 + 10, left : left + 20] = CAR
    if number % 2:
        panoptic[5:20, 5:10] = PERSON
    image = np.full((*size, 3), number * 40 % 256, np.uint8)
    return result_from_maps(
        image,
        panoptic,
        CLASSES,
        scores={CAR: 0.9, PERSON: 0.25},
        timings_ms={"wait": 9.0, "preprocess": 1.0, "network": 30.5, "merge": 2.0},
    )


def publish(live: LiveView, number: int, *, size: tuple[int, int] = (60, 120)) -> None:
    """Shows a frame."""
    result = make_result(number, size=size)
    live.publish(result, result.image, SOURCE, number)


@contextlib.contextmanager
def publishing(
    live: LiveView, *, every_s: float = 0.005, size: tuple[int, int] = (60, 120)
) -> Iterator[None]:
    """Shows frame after frame from a thread of its own, from number 1."""
    stop = threading.Event()

    def work() -> None:
        number = 1
        while not stop.wait(every_s):
            publish(live, number, size=size)
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
