"""The tables of the benchmarks are those of their JSON files."""

from benchmarks.tables import README, with_tables


def test_the_readme_shows_the_results_that_are_there() -> None:
    text = README.read_text()
    assert text == with_tables(text), "run: python -m benchmarks.tables"
