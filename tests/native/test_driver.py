"""The native core called from C++: plainly, and under sanitizers."""

from pathlib import Path

import pytest

from deeplab2_edge.errors import MissingExtraError
from deeplab2_edge.runtime import native
from tests.native.programs import (
    MEMORY,
    STRICT,
    THREADS,
    build_program,
    need_compiler,
    run,
)


def test_all_functions_hold_what_they_promise(tmp_path: Path) -> None:
    compiler = need_compiler()
    try:
        library = native.find_library()
    except MissingExtraError as error:
        pytest.skip(str(error))
    program = build_program("driver.cpp", tmp_path, compiler=compiler, library=library)
    assert run(str(program), "0", "200") == "400 rounds\n"


@pytest.mark.slow
@pytest.mark.parametrize("looks_at", [MEMORY, THREADS], ids=["memory", "threads"])
def test_sanitizers_find_nothing(looks_at: tuple[str, ...], tmp_path: Path) -> None:
    program = build_program(
        "driver.cpp", tmp_path, *looks_at, *STRICT, compiler=need_compiler()
    )
    assert run(str(program), "1000", "1000") == "2000 rounds\n"


@pytest.mark.slow
def test_random_strings_break_nothing(tmp_path: Path) -> None:
    program = build_program(
        "fuzz.cpp",
        tmp_path,
        *MEMORY,
        *STRICT,
        "-DDLE_OWN_LOOP",
        compiler=need_compiler(),
    )
    assert "inputs" in run(str(program), "0", "20")
