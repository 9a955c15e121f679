"""One heap for all deadlines."""

from kvorum.protocol.timers import Timed, Timers


class Named(Timed):
    def __init__(self, name: str, order: list[str], timers: Timers | None = None) -> None:
        self.name = name
        self.order = order
        self.timers = timers

    def on_timer(self) -> None:
        self.order.append(self.name)
        if self.timers is not None:
            self.timers.wake(25, Named("asked for by " + self.name, self.order))


def test_nobody_waiting_is_never_due() -> None:
    timers = Timers()
    assert timers.next_deadline() == -1
    timers.fire(1 << 60)


def test_the_earliest_is_woken_first_and_ties_in_the_order_of_asking() -> None:
    order: list[str] = []
    timers = Timers()
    for deadline, name in ((20, "c"), (10, "a"), (20, "d"), (10, "b"), (30, "e")):
        timers.wake(deadline, Named(name, order))
    assert timers.next_deadline() == 10
    timers.fire(20)
    assert order == ["a", "b", "c", "d"]
    assert timers.next_deadline() == 30


def test_whoever_is_woken_may_ask_for_more() -> None:
    order: list[str] = []
    timers = Timers()
    timers.wake(20, Named("a", order, timers))
    timers.fire(30)
    assert order == ["a", "asked for by a"]
