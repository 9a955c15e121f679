"""What a coordinator remembers of puts, and for how long."""

from kvorum.protocol.ledger import SETTLED, SWEEP_STEPS, Ledger
from kvorum.wire.link import Asker

WINDOW = 60_000_000


def test_a_put_is_found_until_its_client_settles_it():
    ledger = Ledger(WINDOW, 10)
    put = Asker()
    ledger.add(b"client-a", 1, put, now=0)
    ledger.add(b"client-a", 2, Asker(), now=1)

    assert ledger.find(b"client-a", 1) is put
    assert ledger.find(b"client-b", 1) is None
    assert ledger.recall(b"client-a", 1, lowest_open=1) is put

    assert ledger.recall(b"client-a", 1, lowest_open=2) is SETTLED
    assert ledger.find(b"client-a", 1) is None
    assert ledger.recall(b"client-a", 3, lowest_open=2) is None
    assert ledger.count == 1


def test_settling_twice_or_for_a_stranger_changes_nothing():
    ledger = Ledger(WINDOW, 10)
    assert ledger.recall(b"stranger", 1, lowest_open=5) is None
    put = Asker()
    ledger.add(b"client-a", 3, put, now=0)
    assert ledger.recall(b"client-a", 3, lowest_open=3) is put
    assert ledger.recall(b"client-a", 3, lowest_open=2) is put

    assert ledger.count == 1
    assert ledger.recall(b"stranger", 1, lowest_open=0) is None


def test_it_is_full_at_its_bound():
    ledger = Ledger(WINDOW, 2)
    ledger.add(b"client-a", 1, Asker(), now=0)
    assert not ledger.full
    ledger.add(b"client-a", 2, Asker(), now=0)

    assert ledger.full


def test_what_is_older_than_two_windows_is_forgotten_and_its_client_with_it():
    ledger = Ledger(WINDOW, 10)
    ledger.add(b"client-a", 1, Asker(), now=0)
    ledger.add(b"client-b", 1, Asker(), now=5)
    ledger.recall(b"client-a", 2, lowest_open=1)
    ledger.sweep(2 * WINDOW - 1)
    assert ledger.count == 2

    ledger.sweep(2 * WINDOW)

    assert ledger.find(b"client-a", 1) is None
    assert ledger.find(b"client-b", 1) is not None
    assert ledger.count == 1
    assert ledger.recall(b"client-a", 0, lowest_open=0) is None


def test_a_silent_client_keeps_nothing_of_the_others():
    """In one queue of all puts, its last one stood in front of whatever came later."""
    ledger = Ledger(WINDOW, 1_000_000)
    ledger.add(b"silent", 1, Asker(), now=0)
    for counter in range(1, 10_000):
        ledger.recall(b"busy", counter, lowest_open=counter)
        ledger.add(b"busy", counter, Asker(), now=counter)

    assert ledger.count == 2


def test_a_sweep_is_a_bounded_slice_and_the_next_goes_on():
    ledger = Ledger(WINDOW, 1_000_000)
    for counter in range(3 * SWEEP_STEPS):
        ledger.add(b"client-a", counter, Asker(), now=0)
    ledger.add(b"client-b", 1, Asker(), now=0)

    ledger.sweep(2 * WINDOW)
    assert 2 * SWEEP_STEPS <= ledger.count <= 2 * SWEEP_STEPS + 5
    for _ in range(4):
        ledger.sweep(2 * WINDOW)

    assert ledger.count == 0


def test_what_a_client_has_settled_is_known_though_nothing_of_it_is_left():
    """Found by seed 104818: the client had gone to another node, and a late twin was written."""
    ledger = Ledger(WINDOW, 10)
    ledger.add(b"client-a", 41, Asker(), now=10)
    assert ledger.recall(b"client-a", 43, lowest_open=42) is None
    ledger.sweep(20)
    assert ledger.count == 0
    assert ledger.recall(b"client-a", 41, lowest_open=0) is SETTLED

    ledger.sweep(2 * WINDOW + 10)

    assert ledger.recall(b"client-a", 41, lowest_open=0) is None


def test_puts_of_one_client_are_found_in_whatever_order_they_came():
    ledger = Ledger(WINDOW, 10)
    puts = {counter: Asker() for counter in (7, 5, 6)}
    for counter, put in puts.items():
        ledger.add(b"client-a", counter, put, now=0)

    for counter, put in puts.items():
        assert ledger.find(b"client-a", counter) is put
        assert ledger.recall(b"client-a", counter, lowest_open=5) is put
    assert ledger.recall(b"client-a", 8, lowest_open=5) is None
    assert ledger.recall(b"client-a", 4, lowest_open=5) is SETTLED


def test_settling_the_latest_put_leaves_an_earlier_one_of_a_higher_number():
    ledger = Ledger(WINDOW, 10)
    high = Asker()
    ledger.add(b"client-a", 7, high, now=0)
    ledger.add(b"client-a", 5, Asker(), now=0)

    assert ledger.recall(b"client-a", 5, lowest_open=6) is SETTLED
    assert ledger.recall(b"client-a", 7, lowest_open=6) is high
    assert ledger.count == 1
    ledger.add(b"client-a", 8, Asker(), now=1)

    assert ledger.recall(b"client-a", 7, lowest_open=6) is high
    assert ledger.count == 2


def test_a_client_is_forgotten_with_its_latest_put_and_all_are_counted():
    ledger = Ledger(WINDOW, 10)
    for counter, now in ((1, 0), (2, 3), (3, 5)):
        ledger.add(b"client-a", counter, Asker(), now)

    ledger.sweep(2 * WINDOW + 3)
    assert ledger.count == 1
    assert ledger.recall(b"client-a", 2, lowest_open=0) is None
    ledger.sweep(2 * WINDOW + 5)

    assert ledger.count == 0
    assert ledger.recall(b"client-a", 3, lowest_open=0) is None
