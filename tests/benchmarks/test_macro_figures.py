"""What the macro benchmark makes of its samples."""

from typing import Any

from rich.console import Console

from benchmarks.macro import GATE, GATE_RATIO_MAX, METRICS, gate, rows_of

NODES, SHAPE, LOAD = GATE


def samples(*costs: float) -> list[dict[str, Any]]:
    return [dict.fromkeys(METRICS, cost) | {"operations": 10} for cost in costs]


def test_a_ratio_is_that_of_two_measurements_in_one_round() -> None:
    """The machine is half as fast in the last two rounds; that is no matter of the nodes'."""
    limit, measured = rows_of(
        {
            ("limit", SHAPE, LOAD): samples(10, 20, 20),
            (NODES, SHAPE, LOAD): samples(40, 82, 84),
        }
    )
    assert limit["ratio"] == limit["ratio_lowest"] == limit["ratio_highest"] == 1
    assert (measured["ratio"], measured["ratio_lowest"], measured["ratio_highest"]) == (4.1, 4, 4.2)
    assert measured["server_cpu_us_per_op"] == 82
    assert measured["operations"] == 30


def test_the_gate_is_the_median_and_says_how_far_the_rounds_were_apart() -> None:
    for cost, holds in ((GATE_RATIO_MAX, True), (GATE_RATIO_MAX + 0.01, False)):
        rows = rows_of(
            {
                ("limit", SHAPE, LOAD): samples(1, 1, 1),
                (NODES, SHAPE, LOAD): samples(3, cost, 9),
            }
        )
        console = Console(width=200)
        with console.capture() as printed:
            assert gate(rows, console) is holds
        assert "(3.00 to 9.00 in 3 rounds)" in printed.get()
        assert ("holds" if holds else "BROKEN") in printed.get()
