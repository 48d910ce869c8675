"""Writes a check as text and as JSON."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from deeplab2_edge.targets.compiler_log import (
    CompilerLog,
    Difference,
    is_of_same_network,
)
from deeplab2_edge.targets.verdict import Check, JudgedOp, Verdict
from deeplab2_edge.tflite_file.graph import Op, Tensor
from deeplab2_edge.wording import counted

NAMES = {
    "cpu": "XNNPACK (CPU)",
    "gpu": "the GPU delegate",
    "edgetpu": "the Edge TPU",
}
_ORDER = (
    Verdict.FALLS_BACK,
    Verdict.UNKNOWN,
    Verdict.DEPENDS,
    Verdict.BEHIND,
    Verdict.MAPS,
)
# With these the reason of each group is told.
_REASONED = _ORDER[:3]


def check_document(check: Check) -> dict[str, Any]:
    """Gives plain JSON values."""
    counts = {
        verdict.name.lower(): sum(judged.verdict is verdict for judged in check.ops)
        for verdict in Verdict
    }
    return {
        "target": check.target,
        "is_clean": check.is_clean,
        "num_ops": len(check.ops),
        **counts,
        "multiply_adds": check.total_multiply_adds,
        "mapped_share": round(check.mapped_share, 6),
        "possible_share": round(check.possible_share, 6),
        "first_cut": check.first_cut,
        "constant_bytes": check.graph.constant_bytes,
        "notes": list(check.notes),
        "ops": [_op_document(judged) for judged in check.ops],
    }


def log_document(
    check: Check, log: CompilerLog, differences: Sequence[Difference]
) -> dict[str, Any]:
    """Gives plain JSON values of a compiler log beside a check."""
    return {
        "version": log.version,
        "is_of_same_network": is_of_same_network(check, log),
        "num_on_tpu": log.num_on_tpu,
        "num_on_cpu": log.num_on_cpu,
        "num_subgraphs": log.num_subgraphs,
        "cached_bytes": log.cached_bytes,
        "remaining_bytes": log.remaining_bytes,
        "streamed_bytes": log.streamed_bytes,
        "errors": list(log.errors),
        "rows": [[row.op, row.count, row.status] for row in log.rows],
        "differences": [
            {
                "op": difference.op,
                "predicted": difference.predicted,
                "possible": difference.possible,
                "mapped": difference.mapped,
                "statuses": list(difference.statuses),
            }
            for difference in differences
        ],
    }


def format_check(check: Check, *, every_op: bool = False) -> str:
    """Writes a table: by kind of op and reason, or of every op; then notes and advice.

    Args:
        check: What is predicted.
        every_op: Whether each op has its row.
    """
    total = check.total_multiply_adds
    lines = [
        f"{check.num_mapped} of {len(check.ops)} ops map to "
        f"{NAMES[check.target]}: {_percent(check.mapped_share)} of {total / 1e9:.2f} G "
        "multiply-adds"
    ]
    if check.num_unknown:
        lines.append(
            f"up to {_percent(check.possible_share)} with the "
            f"{counted(check.num_unknown, 'op')} of unknown fate"
        )
    if check.first_cut is not None:
        lines.append(
            f"the partition ends at op {check.first_cut}, "
            f"{check.ops[check.first_cut].op.name}; all behind it runs on the CPU"
        )
    rows = _op_rows(check) if every_op else _kind_rows(check)
    lines += ["", *_table(rows)]
    advice = dict.fromkeys(
        f"{judged.op.name}: {judged.judgement.advice}"
        for judged in check.findings
        if judged.judgement.advice
    )
    if advice or check.notes:
        lines.append("")
    lines += [f"note: {note}" for note in check.notes]
    lines += [f"advice: {text}" for text in advice]
    return "\n".join(lines)


def format_log(
    check: Check, log: CompilerLog, differences: Sequence[Difference]
) -> str:
    """Writes what the compiler made of a network, beside what was predicted."""
    lines = [
        f"compiler {log.version or 'of unknown version'}: {log.num_on_tpu} ops on the "
        f"Edge TPU, {log.num_on_cpu} on the CPU"
    ]
    if log.cached_bytes is not None:
        sizes = [f"{log.cached_bytes / 2**20:.2f} MiB of parameters cached"]
        if log.streamed_bytes is not None:
            sizes.append(f"{log.streamed_bytes / 2**20:.2f} MiB sent for every image")
        lines.append(f"compiler: {', '.join(sizes)}")
    lines += [f"compiler: {error}" for error in log.errors]
    if log.rows and not is_of_same_network(check, log):
        lines.append(
            "the log counts other ops than this file has: is it of another file?"
        )
    for difference in differences:
        text = f"{difference.predicted} predicted to map"
        if difference.possible:
            text += f" and {difference.possible} perhaps"
        said = "; ".join(difference.statuses)
        lines.append(
            f"{difference.op}: {text}, {difference.mapped} did"
            + (f" ({said})" if said else "")
        )
    if log.rows and not differences:
        lines.append("prediction and compiler agree")
    return "\n".join(lines)


def _kind_rows(check: Check) -> list[list[str]]:
    groups: dict[tuple[Verdict, str, str], list[JudgedOp]] = defaultdict(list)
    for judged in check.ops:
        reason = judged.judgement.reason if judged.verdict in _REASONED else ""
        groups[judged.verdict, judged.op.name, reason].append(judged)
    ordered = sorted(groups.items(), key=lambda item: _rank(item[0], item[1]))
    rows = [["count", "op", "verdict", "first", "share", "why"]]
    total = max(check.total_multiply_adds, 1)
    for (verdict, name, reason), members in ordered:
        share = sum(judged.multiply_adds for judged in members) / total
        rows.append(
            [
                str(len(members)),
                name,
                verdict.value,
                str(members[0].op.index),
                _percent(share) if share else "",
                reason,
            ]
        )
    return rows


def _rank(key: tuple[Verdict, str, str], members: list[JudgedOp]) -> tuple[int, int]:
    return _ORDER.index(key[0]), -len(members)


def _op_rows(check: Check) -> list[list[str]]:
    rows = [["op", "name", "verdict", "type", "from", "to", "M mult-adds", "why"]]
    for judged in check.ops:
        op = judged.op
        first = op.computed[0] if op.computed else None
        result = op.outputs[0] if op.outputs else None
        rows.append(
            [
                str(op.index),
                f"{op.name} v{op.version}",
                judged.verdict.value,
                result.dtype if result else "",
                _sides(first),
                _sides(result),
                f"{judged.multiply_adds / 1e6:.2f}" if judged.multiply_adds else "",
                judged.judgement.reason,
            ]
        )
    return rows


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    is_number = [
        all(
            row[i].rstrip("%. ").replace(".", "").isdigit()
            for row in rows[1:]
            if row[i]
        )
        for i in range(len(rows[0]))
    ]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in rows
    ]


def _op_document(judged: JudgedOp) -> dict[str, Any]:
    op: Op = judged.op
    return {
        "index": op.index,
        "name": op.name,
        "version": op.version,
        "verdict": judged.verdict.value,
        "rule": judged.judgement.rule,
        "reason": judged.judgement.reason,
        "advice": judged.judgement.advice,
        "multiply_adds": judged.multiply_adds,
        "inputs": [_tensor_document(tensor) for tensor in op.computed],
        "outputs": [_tensor_document(tensor) for tensor in op.outputs],
    }


def _tensor_document(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "dtype": tensor.dtype}


def _sides(tensor: Tensor | None) -> str:
    return "" if tensor is None else "x".join(map(str, tensor.shape))


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")
