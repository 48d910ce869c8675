"""`python -m tests.fuzz --count 10000`: damages files and says what came of it.

Exit code 1 if a file got past what it must not get past.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz import harness
from tests.fuzz.corpus import write_corpus, write_images


def main() -> int:
    """Runs all kinds of damage and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="files of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=list(harness.KINDS))
    parser.add_argument("--bare", type=int, default=0, help="files for bare runtimes")
    parser.add_argument("--files", nargs="*", type=Path, help="instead of tiny ones")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--keep", type=Path, help="a folder for files that got past")
    args = parser.parse_args()
    figures: dict[str, Any] = {"seed": args.seed}
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        sources = args.files or write_corpus(Path(folder))
        for kind in args.kinds:
            figures[kind] = _run(sources, kind, "ours", args.count, args)
            failures += figures[kind]["failures"]
            if args.bare and kind != harness.METADATA:
                figures[f"{kind}, bare runtime"] = _run(
                    sources, kind, "bare", args.bare, args
                )
        if not args.files:
            images = write_images(Path(folder))
            figures["image"] = _run(images, harness.IMAGE, "image", args.count, args)
            failures += figures["image"]["failures"]
    print(json.dumps(figures, indent=1))
    if args.output is not None:
        args.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{failures} files got past", file=sys.stderr)
    return 1 if failures else 0


def _run(
    sources: list[Path], kind: str, mode: str, number: int, args: argparse.Namespace
) -> dict[str, Any]:
    start = time.monotonic()
    numbers = range(args.first, args.first + number)
    cases = harness.make_cases(sources, kind, numbers, seed=args.seed)
    found: Counter[str] = Counter()
    details: Counter[str] = Counter()
    failures = 0
    for outcome in harness.run_cases(cases, mode):
        case = outcome.case
        name = outcome.name
        if name == "different" and outcome.passed is not None:
            name += ", self test " + ("passed" if outcome.passed else "failed")
        if name == "different" and not outcome.is_finite:
            name += ", not finite"
        found[name] += 1
        if harness.is_failure(outcome):
            failures += 1
            details[f"{case.source.suffix} {outcome.message[:120]}"] += 1
            if args.keep is not None and mode != "bare":
                args.keep.mkdir(parents=True, exist_ok=True)
                stem = f"{outcome.name}_{kind}_{case.number}_{case.damage[:20]}"
                (args.keep / (stem + case.source.suffix)).write_bytes(case.content)
    seconds = time.monotonic() - start
    print(f"{kind} {mode}: {number} files, {seconds:.0f} s", file=sys.stderr)
    return {
        "files": number,
        "outcomes": dict(found.most_common()),
        "failures": failures,
        "details": dict(details.most_common(20)),
    }


if __name__ == "__main__":
    sys.exit(main())
