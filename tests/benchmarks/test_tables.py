"""The tables of the documentation are those of the JSON files of the benchmarks."""

from pathlib import Path

import pytest

from benchmarks.tables import PAGES, with_tables


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_results_that_are_there(page: Path) -> None:
    assert page.read_text() == with_tables(page), "run: python -m benchmarks.tables"
