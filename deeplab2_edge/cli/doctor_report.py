"""Prints what `deeplab2-edge doctor` found, for people."""

import math
from typing import Any

from deeplab2_edge.wording import counted


def print_board(
    *,
    board: dict[str, Any],
    runtimes: list[dict[str, Any]],
    delegates: list[dict[str, Any]],
    native_core: dict[str, Any],
) -> None:
    """Prints the board and what there is to compute with."""
    print("board")
    for name, text in _board_lines(board):
        _print_line(name, text)
    print("engines")
    for runtime in runtimes:
        if runtime["version"] is not None:
            use = f"runs {runtime['format']} files"
            if not runtime["is_default"]:
                use = f"also {use}: --runtime {runtime['name']}"
            _print_line(
                runtime["name"], f"{runtime['version']}, {runtime['problem'] or use}"
            )
    for delegate in delegates:
        _print_line(delegate["name"], _delegate(delegate))
    _print_line("native core", native_core["library"] or native_core["problem"])


def print_model(model: dict[str, Any]) -> None:
    """Prints what a model would use, and how it did."""
    engine, test = model["engine"], model["self_test"]
    print(model["path"])
    threads = counted(engine["threads"], "thread")
    name = f"{engine['runtime']} {engine['version']}"
    _print_line("runs in", f"{name}, {engine['delegate']}, {threads}")
    for number, reason in enumerate(model["why"]):
        _print_line("" if number else "because", reason)
    _print_line("self test", _self_test(test))
    if model["run_ms"] is None:
        _print_line("one run", "not measured: this processor is emulated")
    else:
        _print_line(
            "one run",
            f"{model['run_ms']:.2f} ms of the network, after {model['load_ms']:.0f} ms "
            "to open the file; see deeplab2-edge benchmark",
        )


def _delegate(delegate: dict[str, Any]) -> str:
    library, devices = delegate["library"], ", ".join(delegate["devices"])
    text = delegate["problem"] or f"{library} can be loaded"
    if devices:
        return f"{devices}; {text}"
    # Nobody asked for it, so that is not a problem.
    return f"no device; no {library}" if f"({library}: " in text else "no device"


def _self_test(test: dict[str, Any]) -> str:
    broken = [m for m in test["measurements"] if not m["kept"]]
    if broken:
        found = broken[0]["found"]
        share = "not finite" if found is None else f"{found:.2%}"
        return (
            f"FAILED: {broken[0]['output']}, {broken[0]['kind']} {share}, at most "
            f"{broken[0]['limit']:.2%} is right; see deeplab2-edge verify"
        )
    if not test["has_golden"]:
        return "none in this file; it ran and its values are finite, no more"
    worst = max((m["found"] for m in test["measurements"]), default=math.nan)
    return f"passed, at most {100 * worst:.2g} % off"


def _board_lines(board: dict[str, Any]) -> list[tuple[str, str]]:
    processor = board["board"] or board["cpu"] or "unknown"
    bits = f"{board['architecture']}, {board['bits']}-bit Python"
    if board["page_bytes"]:
        bits += f", pages of {board['page_bytes'] // 1024} KiB"
    dot = {True: "", False: " (no int8 dot products: int8 gains less)", None: ""}
    emulated = (
        "yes: no time measured here means anything" if board["emulated"] else "no"
    )
    celsius = board["temperature_c"]
    lines = [
        ("processor", processor),
        ("architecture", bits),
        ("emulated", emulated),
        (
            "cores",
            f"{board['usable_cores']} of {board['cores']} usable; "
            f"{counted(board['default_threads'], 'thread')} by default",
        ),
        ("governor", board["governor"] or ""),
        ("temperature", "" if celsius is None else f"{celsius:.0f} C"),
        (
            "instructions",
            (", ".join(board["instructions"]) or "unknown")
            + dot[board["int8_dot_products"]],
        ),
        ("memory", _memory(board["memory"])),
        ("cameras", _cameras(board)),
        ("windows", _windows(board)),
        (
            "live view",
            "in a browser, with --serve" if board["live_view"] else "no: cannot listen",
        ),
    ]
    return [(name, text) for name, text in lines if text]


def _memory(memory: dict[str, int | None]) -> str:
    total, available = memory["total_bytes"], memory["available_bytes"]
    if total is None:
        return "unknown"
    text = f"{total / 2**30:.1f} GiB"
    if available is not None:
        text += f", {available / 2**30:.1f} GiB free"
    limit = memory["limit_bytes"]
    if limit is not None and limit < total:
        text += f", limited to {limit / 2**30:.1f} GiB"
    return text


def _cameras(board: dict[str, Any]) -> str:
    found = [
        f"{c['device']} ({c['problem'] or c['name'] or 'no name'})"
        for c in board["cameras"]
    ]
    if board["picamera2"]:
        found.append("picamera2 is installed")
    return ", ".join(found) or "none"


def _windows(board: dict[str, Any]) -> str:
    if not board["display"]:
        return "no screen"
    if not board["windows"]:
        return f"{board['display']}, but this OpenCV opens none (opencv-python does)"
    return str(board["display"])


def _print_line(name: str, text: str) -> None:
    # Names of boards and cameras come from outside.
    plain = "".join(c if c.isprintable() else "?" for c in text)
    print(f"  {name:<16}{plain}")
