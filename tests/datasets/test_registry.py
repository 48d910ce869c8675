import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from deeplab2_edge.datasets.info import default_color
from deeplab2_edge.datasets.registry import (
    DatasetInfo,
    dataset_names,
    get_dataset,
    load_description,
    register_dataset,
    save_description,
)
from deeplab2_edge.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "classes", "ignore", "divisor", "things", "is_video", "is_depth"),
    [
        ("cityscapes_panoptic", 19, 255, 1000, range(11, 19), False, False),
        ("kitti_step", 19, 255, 1000, (11, 13), True, False),
        ("motchallenge_step", 7, 255, 1000, (4,), True, False),
        ("cityscapes_dvps", 19, 32, 1000, range(11, 19), True, True),
        ("semkitti_dvps", 19, 255, 65536, range(8), True, True),
        ("coco_panoptic", 134, 0, 256, range(1, 81), False, False),
        ("synthetic_street", 11, 255, 1000, (8, 9, 10), True, True),
        ("camvid", 11, 255, 1000, (8, 9, 10), False, False),
    ],
)
def test_registered_data_sets(
    name: str,
    classes: int,
    ignore: int,
    divisor: int,
    things: Any,
    is_video: bool,
    is_depth: bool,
) -> None:
    info = get_dataset(name)
    assert info.name == name
    assert info.num_classes == classes
    assert info.ignore_label == ignore
    assert info.label_divisor == divisor
    assert info.ignored_panoptic_id == ignore * divisor
    assert info.thing_ids == tuple(things)
    assert (info.is_video, info.is_depth) == (is_video, is_depth)
    assert info.ignore_depth == (0 if is_depth else None)


def test_ade20k() -> None:
    info = get_dataset("ade20k_panoptic")
    assert (info.num_classes, len(info.thing_ids), len(info.stuff_ids)) == (
        151,
        100,
        50,
    )
    assert info.class_names[13] == "person" and 13 in info.thing_ids
    assert info.category_ids is not None
    assert info.category_ids[:3] == (255, 0, 1)


def test_coco_category_ids_have_the_published_gaps() -> None:
    info = get_dataset("coco_panoptic")
    assert info.category_ids is not None
    assert [info.category_ids[i] for i in (0, 11, 12, 80, 133)] == [0, 11, 13, 90, 200]
    assert info.class_names[133] == "rug-merged"
    assert info.colors[117] == (0x6B, 0x8E, 0x23)
    assert info.stuff_ids == tuple(range(81, 134))


def test_cityscapes_categories_are_its_label_ids() -> None:
    info = get_dataset("cityscapes_panoptic")
    assert info.category_ids == (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)
    assert info.class_names[13] == "car" and info.colors[13] == (0, 0, 142)
    assert info.split_sizes["val_fine"] == 500


def test_camvid_and_rendered_streets_share_their_classes() -> None:
    camvid, synthetic = get_dataset("camvid"), get_dataset("synthetic_street")
    assert camvid.class_names == synthetic.class_names
    assert camvid.category_ids == synthetic.category_ids == tuple(range(1, 12))


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        get_dataset("cityscape_panoptic")
    assert "'cityscape_panoptic' is not registered" in str(caught.value)
    assert "did you mean cityscapes_panoptic" in str(caught.value)
    with pytest.raises(ConfigError, match="known are ade20k_panoptic, camvid"):
        get_dataset("???")


def tiny(**changes: Any) -> DatasetInfo:
    info = DatasetInfo(
        name="tiny",
        num_classes=2,
        ignore_label=255,
        label_divisor=1000,
        thing_ids=(1,),
        class_names=("road", "car"),
        colors=((0, 0, 0), (0, 0, 142)),
    )
    return dataclasses.replace(info, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": " "}, "found an empty name"),
        (
            {"num_classes": 0, "class_names": (), "colors": (), "thing_ids": ()},
            "found 0 classes, expected at least one",
        ),
        ({"class_names": ("road",)}, "found 1 class names, expected 2, one per class"),
        ({"class_names": ("a", "a")}, "found class name a twice"),
        ({"class_names": ("a", "")}, "found an empty class name"),
        ({"colors": ((0, 0, 0),)}, "found 1 class colors, expected 2"),
        ({"colors": ((0, 0, 0), (0, 0, 256))}, "not three numbers in 0..255"),
        ({"ignore_label": 1000}, "expected 0 <= ignore_label < label_divisor"),
        ({"ignore_label": -1}, "expected 0 <= ignore_label < label_divisor"),
        ({"label_divisor": 2**24}, "choose a smaller label_divisor"),
        ({"thing_ids": (1, 0)}, r"found thing_ids \[1, 0\], expected ascending"),
        ({"thing_ids": (2,)}, r"expected ascending class ids in 0\.\.1"),
        ({"ignore_label": 1}, "found ignore_label 1 among thing_ids"),
        ({"split_sizes": {"train": -1}}, "found a negative split size"),
        ({"category_ids": (1, 1)}, "found 1 different category ids, expected 2"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="data set 'tiny': .*name.*; .*thing_ids"):
        tiny(class_names=("a",), thing_ids=(7,))


def test_information_can_be_hashed_and_pickled() -> None:
    for name in dataset_names():
        info = get_dataset(name)
        assert pickle.loads(pickle.dumps(info)) == info
        assert hash(info) == hash(dataclasses.replace(info))


@pytest.mark.parametrize("name", dataset_names())
def test_descriptions_read_back_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    save_description(get_dataset(name), path)
    assert load_description(path) == get_dataset(name)
    assert get_dataset(str(path)) == get_dataset(name)


MINIMAL = {
    "name": "mine",
    "classes": [{"name": "road", "thing": False}, {"name": "car", "thing": True}],
}


def test_a_minimal_description(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(MINIMAL))
    info = get_dataset(path)
    assert (info.ignore_label, info.label_divisor) == (255, 1000)
    assert info.thing_ids == (1,)
    assert info.colors == (default_color(0), default_color(1))
    assert info.category_ids is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n\n]", ":3: found Expecting property name"),
        ("[" * 100_000, "found deep nesting"),
        ('{"name": "a", "name": "b"}', "key 'name' stands twice in one object"),
        ("[]", r"found \[\]; expected an object"),
        ({"clases": []}, "unknown key 'clases'; did you mean classes"),
        ({"x": 1}, "unknown key 'x'; known are name, classes"),
        ({"name": "a"}, "key 'classes' is missing"),
        (
            {"name": "a", "classes": [], "ignore_depth": 65535},
            "ignore_depth is 65535; depth that is not known is stored as 0",
        ),
        ({**MINIMAL, "name": 1}, "name: found 1; expected a text"),
        ({**MINIMAL, "ignore_label": True}, "ignore_label: found true; expected an"),
        ({**MINIMAL, "label_divisor": 1e3}, "label_divisor: found 1000.0; expected an"),
        ({**MINIMAL, "split_sizes": {"a": "b"}}, "split_sizes.a: found"),
        ({**MINIMAL, "classes": [1]}, r"classes\[0\]: found 1; expected an object"),
        ({**MINIMAL, "classes": [{"name": "a"}]}, r"classes\[0\]: key 'thing' is"),
        ({**MINIMAL, "ignore_label": 1000}, "expected 0 <= ignore_label"),
        (
            {
                **MINIMAL,
                "classes": [{"name": "a", "thing": True, "color": [1, "x", 2]}],
            },
            r"classes\[0\].color: found .x.; expected an integer",
        ),
        (
            {**MINIMAL, "classes": [{"name": "a", "thing": True, "color": [1, 2]}]},
            "a color that is not three numbers",
        ),
        (
            {
                **MINIMAL,
                "classes": [
                    {"name": "a", "thing": True, "category_id": 1},
                    {"name": "b", "thing": True},
                ],
            },
            "found category_id for 1 of 2 classes; expected it for all or none",
        ),
        ({**MINIMAL, "name": ["x"] * 100}, r"expected a text"),
    ],
)
def test_a_faulty_description_is_refused(
    content: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "faulty.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError, match=message) as caught:
        load_description(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_description_is_told() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json: cannot be read"):
        get_dataset("nowhere.json")


def test_registering_makes_a_name_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from deeplab2_edge.datasets import registry

    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    register_dataset(tiny())
    register_dataset(tiny())
    assert get_dataset("tiny") == tiny()
    assert "tiny" in dataset_names()
    with pytest.raises(ConfigError, match="'tiny' is registered with other values"):
        register_dataset(tiny(ignore_label=254))


def test_default_colors_differ_between_neighbors() -> None:
    colors = [default_color(i) for i in range(40)]
    assert len(set(colors)) == 40


REFERENCE = Path(__file__).parents[2] / "../shared/reference/functions/datasets.json"


@pytest.mark.skipif(
    not REFERENCE.exists(), reason="needs the reference tables beside the checkout"
)
def test_tables_equal_the_reference() -> None:
    reference = json.loads(REFERENCE.read_text())
    for name, facts in reference["datasets"].items():
        if name.startswith("wod"):
            continue
        info = get_dataset(name)
        assert info.num_classes == facts["num_classes"]
        assert info.ignore_label == facts["ignore_label"]
        assert info.label_divisor == facts["label_divisor"]
        assert list(info.thing_ids) == facts["thing_class_ids"]
        assert list(info.stuff_ids) == facts["stuff_class_ids"]
        assert info.is_video == facts["is_video"]
        assert info.is_depth == facts["has_depth"]
        assert info.ignore_depth == facts["ignore_depth"]
        assert dict(info.split_sizes) == facts["split_sizes"]
        colors = reference["colormaps"][facts["colormap"]]
        assert [list(color) for color in info.colors] == colors
        if facts["class_names"]:
            assert list(info.class_names[1:]) == facts["class_names"][1:]
