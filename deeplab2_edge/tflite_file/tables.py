"""The tables of the TFLite schema, all that an interpreter reads of a file.

Kinds of fields: `?bBhHiIqQf` are numbers as in the module `struct`, `text` is a string,
`[x]` a vector of numbers, `X` a table, `[X]` a vector of tables, `any` a table of
another schema for each op. A field is named by its place.

References:
    tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3 of the format.
"""

from collections.abc import Mapping

ANY = "any"
TEXT = "text"
GONE = ""  # a place that the format no longer uses

# Table -> (name, kind) of each field.
TABLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Model": (
        ("version", "I"),
        ("operator_codes", "[OperatorCode]"),
        ("subgraphs", "[SubGraph]"),
        ("description", TEXT),
        ("buffers", "[Buffer]"),
        ("metadata_buffer", "[i]"),
        ("metadata", "[Metadata]"),
        ("signatures", "[SignatureDef]"),
    ),
    "OperatorCode": (
        ("deprecated_code", "b"),
        ("custom_code", TEXT),
        ("version", "i"),
        ("code", "i"),
    ),
    "SubGraph": (
        ("tensors", "[Tensor]"),
        ("inputs", "[i]"),
        ("outputs", "[i]"),
        ("operators", "[Operator]"),
        ("name", TEXT),
        ("debug_index", "i"),
    ),
    "Buffer": (("data", "[B]"), ("offset", "Q"), ("size", "Q")),
    "Metadata": (("name", TEXT), ("buffer", "I")),
    "SignatureDef": (
        ("inputs", "[TensorMap]"),
        ("outputs", "[TensorMap]"),
        ("key", TEXT),
        ("", GONE),
        ("subgraph", "I"),
    ),
    "TensorMap": (("name", TEXT), ("tensor", "I")),
    "Tensor": (
        ("shape", "[i]"),
        ("type", "b"),
        ("buffer", "I"),
        ("name", TEXT),
        ("quantization", "Quantization"),
        ("is_variable", "?"),
        ("sparsity", ANY),
        ("signature", "[i]"),
        ("has_rank", "?"),
        ("variants", "[Tensor]"),
        ("external_buffer", "I"),
    ),
    "Quantization": (
        ("min", "[f]"),
        ("max", "[f]"),
        ("scale", "[f]"),
        ("zero_point", "[q]"),
        ("details_type", "B"),
        ("details", ANY),
        ("dimension", "i"),
    ),
    "Operator": (
        ("code", "I"),
        ("inputs", "[i]"),
        ("outputs", "[i]"),
        ("options_type", "B"),
        ("options", ANY),
        ("custom_options", "[B]"),
        ("custom_format", "b"),
        ("mutating", "[?]"),
        ("intermediates", "[i]"),
        ("large_options_offset", "Q"),
        ("large_options_size", "Q"),
        ("options_2_type", "B"),
        ("options_2", ANY),
        ("debug_index", "i"),
    ),
}
