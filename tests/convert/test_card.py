"""The model card: one dictionary of facts, written as Markdown and HTML."""

import dataclasses
import html.parser
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.convert.card.facts import (
    card_paths,
    collect_facts,
    make_page,
    write_card,
)
from deeplab2_edge.convert.card.pages import (
    Code,
    Page,
    Section,
    Table,
    Text,
    to_html,
    to_markdown,
)
from deeplab2_edge.convert.card.pictures import draw_classes, draw_comparison
from deeplab2_edge.convert.certificate import make_certificate
from deeplab2_edge.convert.quantization.calibration import Calibration, Outlier
from deeplab2_edge.images import decode_image
from tests.convert.test_verification import ColorEngine, Picture, compare
from tests.runtime.tiny_model import tiny_metadata

pytestmark = pytest.mark.tf

HOSTILE = '<script>alert("1")</script>|[x](javascript:0)\n# `rm`'


class Parser(html.parser.HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def facts_of(has_label: bool = True, **changes: Any) -> dict[str, Any]:
    report = compare(
        ColorEngine(logit_noise=0.01),
        [Picture("a", has_label), Picture("b", has_label)],
    )
    metadata = tiny_metadata(quantization="int8", **changes)
    certificate = make_certificate(metadata, b"graph", "tflite", report)
    metadata = dataclasses.replace(
        metadata,
        certificate=certificate.to_json(),
        graph_sha256=certificate.graph_sha256,
    )
    return collect_facts(
        file_name="my model.tflite",
        file_bytes=1_234_567,
        metadata=metadata,
        verification=report,
        op_counts={"CONV_2D": 4, "QUANTIZE": 1},
        float_ops={"SOFTMAX": 2},
        calibration=Calibration(
            ("a", "b", "/data/c"), 9, (Outlier("/data/c", 7.5, "encoder/x"),), 1.0
        ),
        notes=["see /home/someone/model.tflite: fine"],
    )


def pages_of(facts: dict[str, Any]) -> tuple[str, str]:
    page = make_page(facts)
    return to_markdown(page, pictures_in="x.card.html"), to_html(page)


def test_both_forms_say_what_matters() -> None:
    facts = facts_of()
    assert json.loads(json.dumps(facts)) == facts
    markdown, document = pages_of(facts)
    for text in (markdown, Parser(document).text):
        for word in (
            "tiny, int8",
            "1.23 MB",
            "65 x 129",
            "deeplab2-edge run 'my model.tflite' photo.jpg",
            "CONV_2D",
            "semantic_logits",
            "4682b4",
            "car",
            "thing",
            "2 of 3 images",
            "encoder/x",
            "2 ops still compute in float32",
            "against labels of 2 images only",
            "license of the weights is unknown",
            "0.9 quantile",
        ):
            assert word in text, word
        assert "/home/someone" not in text and "/data/" not in text
    assert "PQ of each class" in document and "PQ of each class" not in markdown
    assert "Pictures: x.card.html" in markdown


def test_without_labels_the_float_model_is_the_measure() -> None:
    markdown, _ = pages_of(facts_of(has_label=False))
    assert "PQ, float as ground truth" in markdown
    assert "It was not measured against labels" in markdown


def test_hostile_names_stay_text() -> None:
    facts = facts_of(name=HOSTILE, class_names=("sky", HOSTILE, "car"))
    markdown, document = pages_of(facts)
    parsed = Parser(document)
    assert "script" not in parsed.tags and "a" not in parsed.tags
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert '<script>alert("1")</script>' in parsed.text
    assert "<script" not in markdown
    rows = [line for line in markdown.splitlines() if "alert" in line]
    assert all(r"\|\[x\](javascript:0) \# \`rm\`" in row for row in rows)
    assert any(row.startswith("| 1 |") for row in rows)


def test_nothing_is_loaded_from_elsewhere() -> None:
    _, document = pages_of(facts_of())
    parsed = Parser(document)
    assert not [v for n, v in parsed.attributes if n in ("src", "href")]
    assert "default-src 'none'" in document


def test_code_with_fences_is_fenced_longer() -> None:
    page = Page("t", [Section("s", [Code("a\n```\nb")])])
    assert "````sh\na\n```\nb\n````" in to_markdown(page, pictures_in="x")


def test_tables_and_colors() -> None:
    page = Page("t", [Section("s", [Table(("a", "b"), [((255, 0, 16), "x|y")])])])
    assert r"| #ff0010 | x\|y |" in to_markdown(page, pictures_in="x").replace(
        r"\#", "#"
    )
    assert "background:#ff0010" in to_html(page)
    strong = Page("t", [Section("s", [Text("a < b", is_strong=True)])])
    assert "**a &lt; b**" in to_markdown(strong, pictures_in="x")
    assert "<strong>a &lt; b</strong>" in to_html(strong)


def test_pictures_are_small_and_side_by_side(tmp_path: Path) -> None:
    samples = [Picture(f"/somewhere/{n}") for n in range(5)]
    pictures = draw_comparison(
        ColorEngine(), ColorEngine(blind_to_cars=True), samples, "int8"
    )
    assert [picture.title for picture in pictures] == ["0", "1", "2"]
    panel = decode_image(pictures[0].content, where="panel")
    assert panel.shape[1] > 3 * 129
    model = tmp_path / "model.tflite"
    written = write_card(model, facts_of(), pictures)
    assert written == card_paths(model)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.tflite.card.md",
        "model.tflite.card.html",
    }
    document = written[1].read_text()
    assert document.count("data:image/jpeg;base64,") == 3
    assert len(document) < 1_500_000


def test_large_images_are_shrunk() -> None:
    @dataclasses.dataclass(frozen=True)
    class Large(Picture):
        def load_image(self) -> Any:
            noise = np.random.default_rng(0).integers(0, 3, (1040, 2064, 3))
            return noise.astype(np.uint8)

    (picture,) = draw_comparison(ColorEngine(), ColorEngine(), [Large()], "int8")
    assert len(picture.content) < 300_000


def test_bars_end_within_the_drawing() -> None:
    names = [f"class {n}" for n in range(100)]
    picture = draw_classes("t & u", names, [("a", [1.5] * 100), ("b", [-0.5] * 100)])
    drawing = picture.content.decode()
    assert "t &amp; u" in drawing
    assert "class 59" in drawing and "class 60" not in drawing
    assert 'width="560.0"' in drawing and 'width="-' not in drawing
