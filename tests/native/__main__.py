"""Fuzzes the native core: with libFuzzer where clang++ is, else with random strings.

python -m tests.native --seconds 600
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.native.programs import MEMORY, STRICT, build_program, find_compiler


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    clang, other = find_compiler("clang++"), find_compiler("g++")
    compiler = clang or other
    if compiler is None:
        parser.exit(1, "no C++ compiler; install clang or g++\n")
    kind = "-fsanitize=fuzzer" if clang else "-DDLE_OWN_LOOP"
    with tempfile.TemporaryDirectory() as folder:
        program = build_program(
            "fuzz.cpp", Path(folder), *MEMORY, *STRICT, kind, compiler=compiler
        )
        command = [str(program), str(arguments.seed), str(arguments.seconds)]
        if clang:
            command = [
                str(program),
                f"-seed={arguments.seed}",
                f"-max_total_time={arguments.seconds}",
                "-max_len=4096",
                "-len_control=0",
                "-verbosity=0",
                "-print_funcs=0",
                "-print_final_stats=1",
                # What failed stays, to be run again.
                "-artifact_prefix=fuzz-native-",
            ]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
