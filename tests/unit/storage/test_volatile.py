"""The write path of a node that keeps nothing."""

from kvorum.storage.memory import MemoryEngine
from kvorum.storage.volatile import VolatileBuffer


def filled() -> VolatileBuffer:
    buffer = VolatileBuffer(MemoryEngine())
    for key in (b"\x01a", b"\x01b", b"\x01c", b"\x01d"):
        buffer.put(key, b"holding of " + key)
    return buffer


def test_everything_lies_in_the_engine_at_once() -> None:
    buffer = filled()
    assert buffer.engine.get(b"\x01b") == buffer.get(b"\x01b") == b"holding of \x01b"
    assert buffer.get(b"\x01x") is None
    assert buffer.empty
    assert not buffer.wants_freeze
    assert not buffer.freeze()


def test_positions_count_and_none_is_ever_durable() -> None:
    buffer = filled()
    assert buffer.end_turn()
    assert (buffer.position, buffer.durable_position) == (4, 0)


def test_it_never_fills_up_by_itself() -> None:
    buffer = VolatileBuffer(MemoryEngine())
    buffer.put(b"\x01a", bytes(buffer.limit_bytes + 1))
    assert buffer.bytes == 0
    assert not buffer.refusal


def test_keys_go_one_by_one_or_by_range() -> None:
    buffer = filled()
    buffer.delete(b"\x01a")
    buffer.drop_range(b"\x01c", b"\x01d")
    assert buffer.scan(b"", b"\xff", 10) == [
        (b"\x01b", b"holding of \x01b"),
        (b"\x01d", b"holding of \x01d"),
    ]
    assert buffer.position == 6
