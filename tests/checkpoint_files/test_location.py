"""Whatever a user calls a checkpoint leads to one, or to what to write instead."""

import io
import tarfile
from pathlib import Path

import pytest

from deeplab2_edge import assets
from deeplab2_edge.checkpoint_files import find_checkpoint, resolve_checkpoint
from deeplab2_edge.errors import CheckpointError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPLAB2_EDGE_CACHE", str(tmp_path / "cache"))


def touch(folder: Path, *names: str, latest: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.index").write_bytes(b"")
        (folder / f"{name}.data-00000-of-00001").write_bytes(b"")
    if latest is not None:
        (folder / "checkpoint").write_text(
            f'all_model_checkpoint_paths: "old"\nmodel_checkpoint_path: "{latest}"\n'
        )
    return folder


def pack(path: Path, *names: str, latest: dict[str, str] | None = None) -> Path:
    files = {f"{name}.index": b"" for name in names}
    files |= {
        f"{folder}/checkpoint": f'model_checkpoint_path: "{name}"'.encode()
        for folder, name in (latest or {}).items()
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_every_name_of_a_checkpoint_leads_to_its_prefix(tmp_path: Path) -> None:
    folder = touch(tmp_path / "run", "ckpt-5")
    prefix = str(folder / "ckpt-5")
    for name in (
        prefix,
        f"{prefix}.index",
        f"{prefix}.data-00000-of-00001",
        folder,
        f"{folder}/",
        tmp_path,  # the only sub-folder with checkpoints
    ):
        assert resolve_checkpoint(name) == prefix
    assert resolve_checkpoint("demo") == assets.demo_checkpoint_prefix()


def test_the_latest_of_a_folder_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "ckpt-5", "ckpt-10", latest="ckpt-5")
    assert resolve_checkpoint(tmp_path) == str(tmp_path / "ckpt-5")


def test_a_path_of_another_machine_in_the_state_file_is_understood(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "ckpt-5", "ckpt-10", latest="/cns/xx/train/ckpt-10")
    assert resolve_checkpoint(tmp_path) == str(tmp_path / "ckpt-10")


@pytest.mark.parametrize("latest", ["ckpt-7", "..", "", "\\377\\000"])
def test_a_state_file_that_names_nothing_is_passed_over(
    latest: str, tmp_path: Path
) -> None:
    touch(tmp_path, "ckpt-5", latest=latest)
    assert resolve_checkpoint(tmp_path) == str(tmp_path / "ckpt-5")


def test_many_without_a_latest_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "ckpt-5", "ckpt-10")
    with pytest.raises(
        CheckpointError,
        match=r"holds 2 checkpoints.*: ckpt-5, ckpt-10; give one, as in .*/ckpt-10$",
    ):
        resolve_checkpoint(tmp_path)


def test_an_archive_is_as_good_as_its_folder(tmp_path: Path) -> None:
    path = pack(tmp_path / "weights.tar.gz", "a/b/ckpt-5")
    prefix = resolve_checkpoint(path)
    assert prefix.endswith("a/b/ckpt-5")
    assert Path(f"{prefix}.index").is_file()
    for inside in ("a", "a/b", "a/b/ckpt-5", "a/b/ckpt-5.index"):
        assert resolve_checkpoint(f"{path}/{inside}") == prefix
    found = find_checkpoint(path)
    assert found.name == f"{path}/a/b/ckpt-5"
    assert found.folders[0].name == "b"
    assert found.folders[1].name.startswith("weights-")


def test_an_archive_of_many_says_how_to_pick_one(tmp_path: Path) -> None:
    path = pack(tmp_path / "weights.tgz", "a/ckpt-5", "b/ckpt-5")
    with pytest.raises(
        CheckpointError,
        match=r"holds 2 checkpoints.*: a/ckpt-5, b/ckpt-5; give one, as in "
        r".*weights\.tgz/b/ckpt-5$",
    ):
        resolve_checkpoint(path)
    assert resolve_checkpoint(f"{path}/a/ckpt-5").endswith("a/ckpt-5")
    with pytest.raises(CheckpointError, match=r"not in the archive; it holds a/ckpt-5"):
        resolve_checkpoint(f"{path}/c")


def test_the_latest_of_an_archive_is_taken(tmp_path: Path) -> None:
    path = pack(tmp_path / "weights.tgz", "a/c-5", "a/c-6", latest={"a": "/x/c-5"})
    assert resolve_checkpoint(path).endswith("a/c-5")


def test_a_path_inside_cannot_leave_the_archive(tmp_path: Path) -> None:
    path = pack(tmp_path / "weights.tgz", "ckpt-5")
    touch(tmp_path / "cache" / "checkpoints", "other")
    with pytest.raises(CheckpointError, match="leads out of the archive"):
        resolve_checkpoint(f"{path}/../other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ckpt-7", "no checkpoint here; expected an archive, a folder, or a prefix"),
        ("weights.tar.gz", "no such archive"),
        ("weights.zip", "unpack it and give the folder"),
        ("old.meta", "not a TensorFlow 2 checkpoint"),
        ("old", "not a TensorFlow 2 checkpoint"),
        ("keras.h5", "not a TensorFlow 2 checkpoint"),
        ("served", "a SavedModel, .* give the checkpoint it was made of"),
        ("served/variables", "a SavedModel, "),
        ("served/saved_model.pb", "a SavedModel, "),
        ("empty", "holds no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_told_so(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "weights.zip").write_bytes(b"PK")
    (tmp_path / "old.meta").write_bytes(b"")
    touch(tmp_path / "served" / "variables", "variables")
    (tmp_path / "served" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=rf"{name}: {message}"):
        resolve_checkpoint(tmp_path / name)
