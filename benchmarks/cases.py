"""What a micro benchmark is: a component set up, and a call of it to be repeated."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

Repeat = Callable[[int], None]


class Case(NamedTuple):
    """One figure; ``prepare`` gives a function that makes so many calls."""

    component: str
    name: str
    entries: int  # in each call; the figure is for one of them
    prepare: Callable[[], AbstractContextManager[Repeat]]


def case(
    component: str, name: str, entries: int = 1
) -> Callable[[Callable[[], Iterator[Repeat]]], Case]:
    """Make a case of a generator that sets up, yields the repeated call, and clears up."""

    def made(prepare: Callable[[], Iterator[Repeat]]) -> Case:
        return Case(component, name, entries, contextmanager(prepare))

    return made


def repeated(function: Callable[..., object], *arguments: object) -> Repeat:
    def repeat(calls: int) -> None:
        for _ in range(calls):
            function(*arguments)

    return repeat
