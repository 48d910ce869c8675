"""Copy-paste: which segments are pasted, and under which ids."""

from typing import Any

import numpy as np
import pytest

from deeplab2_edge.config import PanopticCopyPasteOptions
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import ConfigError
from tests.functions.forced_draws import ForcedDraws

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
copy_paste = pytest.importorskip("deeplab2_edge.train.data.copy_paste")
draws = pytest.importorskip("deeplab2_edge.train.data.draws")
preprocessing = pytest.importorskip("deeplab2_edge.train.data.preprocessing")

pytestmark = pytest.mark.tf

INFO = get_dataset("camvid")
SKY, CAR, CROWD, VOID = 0, 8001, 8000, INFO.ignored_panoptic_id
PADDING = copy_paste.pasted_label_fill(INFO)
FIRST = [3000] * 5
SECOND = [SKY, CAR, CROWD, VOID, PADDING]


def view_of(ids: list[int], brightness: float) -> Any:
    label = tf.constant(ids, tf.int32)[tf.newaxis, :, tf.newaxis]
    return preprocessing.View(tf.fill([1, len(ids), 3], brightness), label)


def paste(chosen: Any = None, second: list[int] = SECOND, **choices: str) -> list[int]:
    found = copy_paste.paste_segments(
        view_of(FIRST, 1.0),
        view_of(second, 2.0),
        INFO,
        copy_paste.CopyPasteSettings(**choices),
        chosen or ForcedDraws("lo", 0.0),
    )
    is_pasted = found.label[0, :, 0].numpy() != 3000
    np.testing.assert_array_equal(
        found.image[0], np.where(is_pasted[:, None], [2.0] * 3, [1.0] * 3)
    )
    ids: list[int] = found.label[0, :, 0].numpy().tolist()
    return ids


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (("none", "none", "none"), FIRST),
        (("all", "none", "none"), [3000, 8998, CROWD, 3000, 3000]),
        (("none", "all", "none"), [SKY, 3000, 3000, 3000, 3000]),
        (("none", "none", "all"), [3000, 3000, 3000, VOID, 3000]),
        (("all", "all", "all"), [SKY, 8998, CROWD, VOID, 3000]),
        (("random", "random", "random"), FIRST),  # the draw is zero segments
    ],
)
def test_kinds_of_segments_are_pasted_as_asked(
    choices: tuple[str, str, str], expected: list[int]
) -> None:
    things, stuff, void = choices
    assert paste(things=things, stuff=stuff, void=void) == expected


def test_any_number_of_random_segments_is_pasted() -> None:
    counts, pasted = [], set()
    for number in range(40):
        seeded = draws.SeededDraws(tf.constant([5, number], tf.int64))
        ids = paste(seeded, things="random", stuff="random", void="random")
        counts.append(sum(found != 3000 for found in ids))
        pasted |= {place for place, found in enumerate(ids) if found != 3000}
    assert set(counts) == {0, 1, 2, 3, 4}
    assert pasted == {0, 1, 2, 3}


def test_instance_ids_that_could_collide_are_refused() -> None:
    assert paste(second=[8499] * 5, things="all") == [8500] * 5
    with pytest.raises(tf.errors.InvalidArgumentError, match="instance id 500; ids"):
        paste(second=[8500] * 5)


def test_settings_are_read_from_the_options() -> None:
    options = PanopticCopyPasteOptions(panoptic_copy_paste_void_option="all")
    found = copy_paste.CopyPasteSettings.from_options(options)
    assert (found.things, found.stuff, found.void) == ("random", "random", "all")
    with pytest.raises(ConfigError, match="panoptic_copy_paste_stuff_option is 'some'"):
        copy_paste.CopyPasteSettings(stuff="some")
