"""Builders, records and STEP maps against stored results of the published system.

The committed cases are a part; `make test-functions REFERENCE=DIR` runs every case of
`DIR/functions/tfrecord.npz`, with the record files in `DIR/functions/tfrecord_data`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.datasets.step_maps import encode_step_map, merge_step_maps
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import decode_image, read_label_png
from tests.functions import reference
from tests.functions.reference import Case

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
records = pytest.importorskip("deeplab2_edge.records")
builders = pytest.importorskip("deeplab2_edge.train.data.builders")

pytestmark = pytest.mark.tf

# Record files of the committed cases and of the stored ones.
RECORD_DIRS = (
    reference.COMMITTED.parent / "records",
    reference.REFERENCE / "tfrecord_data",
)

LABEL_KEYS = tuple(
    f"{frame}image/segmentation/class/encoded" for frame in ("", "prev_", "next_")
)
IMAGE_KEYS = tuple(f"{frame}image/encoded" for frame in ("", "prev_", "next_"))
# JPEG coders differ in rounding and in the bytes they write.
MAX_JPEG_DIFFERENCE = 3


def write_sources(case: Case, root: Path) -> None:
    for key, data in case.inputs.items():
        path = root / key.removeprefix("file:")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())


def stored_records(case: Case) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns file -> record -> feature (or `decoded.<key>`) -> value."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key, value in case.outputs.items():
        file, record, name = key.split(".", 2)
        found.setdefault(file, {}).setdefault(record, {})[name] = value
    return found


def features_of(record: bytes) -> dict[str, Any]:
    features = tf.train.Example.FromString(record).features.feature
    return {
        key: (feature.bytes_list.value or feature.int64_list.value)[0]
        for key, feature in features.items()
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("case", reference.params("tfrecord"))
def test_case(case: Case, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if "kernel_size" in case.config:
        check_step_map(case)
        return
    write_sources(case, tmp_path)
    check_builder(case, tmp_path)
    is_stored = request.node.get_closest_marker("slow") is not None
    check_reader(case, RECORD_DIRS[is_stored])


def check_step_map(case: Case) -> None:
    panoptic = merge_step_maps(
        case.inputs["semantic"],
        case.inputs["instance"],
        dataset=case.config["dataset_name"].replace("-", "_"),
        kernel_size=case.config["kernel_size"],
    )
    assert panoptic.dtype == np.int32
    np.testing.assert_array_equal(panoptic, case.outputs["panoptic"])
    encoded = encode_step_map(panoptic)
    np.testing.assert_array_equal(encoded, case.outputs["encoded_rgb"])


def open_case(case: Case, root: Path) -> tuple[Any, Any]:
    """Opens the source tree as the settings say; returns it and its split."""
    config = case.config
    shards = config["original_shard_names"]
    split = config.get("split", shards[0].partition("-")[0])
    options = {"allows_unlabelled": True}
    match str(config["builder"]).split()[0]:
        case "cityscapes" | "coco" | "ade20k" as kind:
            dataset = f"{kind}_panoptic"
            keeps_crowd = not config.get("treat_crowd_as_ignore", True)
            options = {"keeps_crowd": keeps_crowd}
            if not config.get("create_panoptic_data", True):
                options["semantic_only"] = True
        case "step":
            is_mot = case.name.startswith("mot")
            dataset = "motchallenge_step" if is_mot else "kitti_step"
            options["two_frames"] = config["use_two_frames"]
        case "dvps":
            # 0: one value, class * 1000 + instance.
            divisor = config["panoptic_divisor"]
            dataset = "semkitti_dvps" if divisor == 65536 else "cityscapes_dvps"
            assert divisor in (0, 1000, 65536)
        case kind:
            raise AssertionError(f"{case.name}: unknown builder {kind!r}")
    return builders.open_split(
        dataset,
        root,
        split,
        builders.LayoutOptions(**options),
        num_shards=config.get("num_shards_requested", len(shards)),
        is_partial=True,
    ), split


def check_builder(case: Case, root: Path) -> None:
    opened, split = open_case(case, root)
    output = root / "records"
    summary = builders.build_records(
        opened.source, output, split, num_shards=1, slices=opened.slices, quiet=True
    )
    files = records.list_record_files(output, split)
    assert [path.name for path in files] == case.config["original_shard_names"]
    expected = stored_records(case)
    assert summary.num_records == sum(map(len, expected.values()))
    for number, path in enumerate(files):
        found = list(records.read_records(path))
        stored = expected.get(str(number), {})
        assert len(found) == len(stored)
        for index, record in enumerate(found):
            check_features(features_of(record), stored[str(index)], opened)


def check_features(
    found: dict[str, Any], stored: Mapping[str, Any], opened: Any
) -> None:
    expected = {k: v for k, v in stored.items() if not k.startswith("decoded.")}
    assert {name.removesuffix("#sha256") for name in expected} == set(found)
    is_semantic = str(expected.get("image/segmentation/class/format")) == "png"
    for name, value in expected.items():
        key = name.removesuffix("#sha256")
        actual = found[key]
        if key in IMAGE_KEYS and sha256(actual) != value:
            assert found["image/format"] in (b"jpeg", b"jpg"), key  # coded anew
            image = stored[f"decoded.{key.partition('/')[0]}"]
            assert decode_image(actual, where=key).shape == image.shape
        elif is_semantic and key in LABEL_KEYS:
            # Ours are raw, so that they can be trained on; the classes are the same.
            check_semantic(actual, str(value), found, opened)
        elif is_semantic and key.endswith("class/format"):
            assert actual == b"raw"
        elif name != key:
            assert sha256(actual) == value, key
        elif isinstance(actual, bytes):
            assert actual.decode() == str(value), key
        else:
            assert actual == int(np.asarray(value).reshape(())), key


def check_semantic(
    raw: bytes, stored_sha256: str, found: Mapping[str, Any], opened: Any
) -> None:
    name = found["image/filename"].decode()
    (sample,) = (s for s in opened.source.dataset.samples if s.name == name)
    assert sha256(sample.label.path.read_bytes()) == stored_sha256
    classes = read_label_png(sample.label.path).astype("<i4")
    assert raw == (classes * opened.source.info.label_divisor).tobytes()


def check_reader(case: Case, record_dir: Path) -> None:
    expected = stored_records(case)
    for number, name in enumerate(case.config["tfrecord_files"]):
        stored = expected.get(str(number), {})
        count = 0
        for count, record in enumerate(records.read_records(record_dir / name), 1):
            where = f"{name}[{count - 1}]"
            if features_of(record).get("image/segmentation/class/format") == b"png":
                with pytest.raises(DataError, match="only raw panoptic labels"):
                    records.decode_example(record, where=where)
                continue
            decoded = records.decode_example(record, where=where)
            check_decoded(decoded, stored[str(count - 1)], where)
        assert count == len(stored)


def check_decoded(
    decoded: dict[str, Any], stored: Mapping[str, Any], where: str
) -> None:
    expected = {
        key.removeprefix("decoded."): value
        for key, value in stored.items()
        if key.startswith("decoded.")
    }
    assert set(expected) == set(decoded) - {"frame"}, where
    for key, value in expected.items():
        actual = decoded[key]
        if isinstance(actual, str):
            assert actual == str(value), key
        elif key.endswith("image") and str(stored["image/format"]) in ("jpeg", "jpg"):
            difference = np.abs(actual.astype(int) - value)
            assert difference.max() <= MAX_JPEG_DIFFERENCE, key
        else:
            np.testing.assert_array_equal(actual, value, err_msg=key)
            assert "label" not in key or actual.dtype == np.int32


def test_unknown_builders_fail(tmp_path: Path) -> None:
    config = {"builder": "new", "original_shard_names": ["train-00000-of-00001"]}
    with pytest.raises(AssertionError, match="x: unknown builder 'new'"):
        open_case(Case("x", config, {}, {}), tmp_path)
