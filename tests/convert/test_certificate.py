"""What a file says about how it was compared with its source."""

import dataclasses
import json
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.convert.certificate import (
    ANY_IMAGES,
    Certificate,
    figures_of,
    format_certificate,
    make_certificate,
    read_certificate,
)
from deeplab2_edge.convert.images import public_name
from deeplab2_edge.convert.options import ConversionOptions, DropLimit
from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.families import SEMANTIC
from deeplab2_edge.model_file import ModelMetadata
from tests.convert.test_verification import ColorEngine, Picture, compare
from tests.runtime.tiny_model import tiny_metadata

pytestmark = pytest.mark.tf

GRAPH = b"a graph"
EPOCH = "2001-09-09T01:46:40+00:00"


@pytest.fixture(autouse=True)
def _date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")


def certify(mode: str, noise: float = 0.0, **options: Any) -> Certificate:
    report = compare(ColorEngine(logit_noise=noise), [Picture("a"), Picture("b")])
    origin = {"checkpoint": "ckpt-7", "checkpoint_sha256": "ab" * 32}
    metadata = tiny_metadata(quantization=mode, provenance=origin)
    return make_certificate(metadata, GRAPH, "tflite", report, **options)


def with_certificate(certificate: Certificate, **changes: Any) -> ModelMetadata:
    document = json.loads(json.dumps(certificate.to_json())) | changes
    digest = certificate.graph_sha256
    return tiny_metadata(certificate=document, graph_sha256=digest)


def test_equal_float_files_are_called_equal() -> None:
    certificate = certify("none")
    assert certificate.passed
    assert certificate.verdict.startswith("equal to the source: heads differ by at")
    assert certificate.checkpoint == "ckpt-7"
    assert certificate.image_names == ("a", "b")
    assert certificate.num_images == 2
    assert certificate.license == "unknown"
    assert certificate.created == EPOCH
    assert certificate.figures["float.pq"] == certificate.figures["converted.pq"]
    assert set(certificate.machine) == {"architecture", "system"}


def test_a_float_file_that_differs_is_named() -> None:
    certificate = certify("none", noise=0.01)
    assert not certificate.passed
    assert certificate.verdict.startswith(
        "NOT equal to the source: semantic_logits.relative_error is 0.01; expected"
    )


def test_integers_promise_what_was_asked_and_what_was_found() -> None:
    certificate = certify("int8", noise=0.01, drop_limits=[DropLimit("pq", 1.0)])
    assert certificate.passed
    assert "pq 0.00 points worse" in certificate.verdict
    assert "promised drop.pq at most 1" in certificate.verdict
    asked = [p.figure for p in certificate.promises if p.on == ANY_IMAGES]
    assert asked == ["drop.pq"]
    found = {p.figure for p in certificate.promises if p.on != ANY_IMAGES}
    assert {"semantic_logits.snr_db", "class_agreement", "drop.miou"} <= found


def test_a_repetition_finds_what_was_promised() -> None:
    certificate = certify("int8", noise=0.01)
    pictures = [Picture("a"), Picture("b")]
    again = compare(ColorEngine(logit_noise=0.01), pictures)
    assert all(finding.is_kept for finding in certificate.findings(again))
    worse = compare(ColorEngine(logit_noise=0.3), pictures)
    broken = [f for f in certificate.findings(worse) if f.is_kept is False]
    assert [f.promise.figure for f in broken] == ["semantic_logits.snr_db"]
    assert broken[0].to_json()["kept"] is False


def test_of_other_images_only_general_promises_count() -> None:
    certificate = certify("int8", drop_limits=[DropLimit("pq", 1.0)])
    other = compare(ColorEngine(blind_to_cars=True), [Picture("another")])
    findings = certificate.findings(other)
    assert [(f.promise.figure, f.is_kept) for f in findings] == [("drop.pq", False)]


def test_what_cannot_be_measured_is_neither_kept_nor_broken() -> None:
    certificate = certify("none")
    report = compare(ColorEngine(), [Picture("a"), Picture("b")])
    findings = certificate.findings(dataclasses.replace(report, heads={}))
    assert {f.is_kept for f in findings} == {None, True}


def test_a_certificate_survives_its_file() -> None:
    certificate = certify("int8", noise=0.01, weights_license="CC-BY-4.0")
    metadata = with_certificate(certificate)
    read = read_certificate(ModelMetadata.from_json(metadata.to_json()))
    assert read == certificate
    assert read is not None and read.license == "CC-BY-4.0"
    assert read_certificate(tiny_metadata()) is None


def test_a_compiled_file_keeps_the_certificate_of_its_source() -> None:
    certificate = certify("int8")
    compiled = tiny_metadata(
        certificate=certificate.to_json(),
        graph_sha256="0" * 64,
        provenance={"compiled_of_sha256": certificate.graph_sha256},
    )
    assert read_certificate(compiled) == certificate


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("version", True),
        ("figures", {"class_agreement": "much"}),
        ("figures", []),
        ("promises", [{"figure": "x", "on": "any images"}]),
        ("promises", [3]),
        ("image_names", "a"),
        ("passed", 1),
        ("machine", {"architecture": None}),
        ("graph_sha256", "0" * 64),
    ],
)
def test_a_damaged_certificate_is_refused(field: str, value: object) -> None:
    with pytest.raises(ModelFileError, match="certificate"):
        read_certificate(with_certificate(certify("int8"), **{field: value}))


def test_text_is_short_or_full() -> None:
    certificate = certify("int8", noise=0.01)
    short = format_certificate(certificate)
    assert "ab" * 8 + "..." in short and "ab" * 9 not in short
    assert "2 images of pictures" in short
    full = format_certificate(certificate, full=True)
    assert "ab" * 32 in full
    for word in ("semantic_logits", "SNR dB", "class_agreement", "promised"):
        assert word in full


def test_text_of_a_hostile_file_cannot_move_the_cursor() -> None:
    certificate = certify("int8", weights_license="\x1b[2Jfree\nverdict  fine")
    text = format_certificate(certificate, full=True)
    assert "\x1b" not in text
    assert "license ?[2Jfree?verdict" in text


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("aachen/0001", "aachen/0001"),
        ("/home/someone/val-0.tfrecord: record 3", "val-0.tfrecord: record 3"),
        ("records/val-0.tfrecord: record 3", "val-0.tfrecord: record 3"),
        ("/home/someone/image", "image"),
    ],
)
def test_names_of_images_hold_no_paths(name: str, public: str) -> None:
    assert public_name(name) == public


def test_figures_are_of_the_family() -> None:
    report = compare(ColorEngine(), [Picture()])
    assert {"pq_against_float", "centers.float", "drop.pq"} <= set(figures_of(report))
    flat = dataclasses.replace(report, has_instances=False, num_centers=None)
    figures = figures_of(flat)
    assert not any("pq" in name or "centers" in name for name in figures)
    metadata = dataclasses.replace(
        tiny_metadata(quantization="dynamic"), family=SEMANTIC, merge=None
    )
    verdict = make_certificate(metadata, GRAPH, "onnx", flat).verdict
    assert verdict == "miou 0.00 points worse (against labels)"


def test_the_license_of_the_shipped_checkpoint_is_known() -> None:
    assert ConversionOptions().license_of_weights == "Apache-2.0"
    assert ConversionOptions(checkpoint="other").license_of_weights is None
    given = ConversionOptions(checkpoint="other", weights_license="MIT")
    assert given.license_of_weights == "MIT"
