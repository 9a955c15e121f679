"""Ids of puts over HTTP, and which of them may be forgotten."""

from itertools import count

from kvorum.server.http_put_ids import PutIds


def some_put_ids() -> PutIds:
    drawn = count(1)
    return PutIds(lambda size: next(drawn).to_bytes(size, "big"))


def test_ids_are_settled_in_any_order() -> None:
    put_ids = some_put_ids()
    first, series = put_ids.issue(10)
    second, same = put_ids.issue(20)
    third, _ = put_ids.issue(30)
    assert same is series
    assert first.client == second.client
    assert [first.counter, second.counter, third.counter] == [1, 2, 3]
    assert third.first_sent == 30
    put_ids.settle(second, series)
    assert put_ids.lowest_open(series) == 1
    put_ids.settle(first, series)
    assert put_ids.lowest_open(series) == 3
    put_ids.settle(third, series)
    assert put_ids.lowest_open(series) == 4


def test_an_id_in_doubt_is_never_settled_and_holds_up_nobody() -> None:
    put_ids = some_put_ids()
    doubtful, series = put_ids.issue(10)
    other, _ = put_ids.issue(10)
    put_ids.doubt(series)
    put_ids.settle(other, series)
    assert put_ids.lowest_open(series) == doubtful.counter
    later, new_series = put_ids.issue(20)
    assert later.client != doubtful.client
    assert put_ids.lowest_open(new_series) == later.counter
    put_ids.doubt(series)  # Another one of the old series.
    _, same = put_ids.issue(20)
    assert same is new_series
