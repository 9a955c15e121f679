"""Batches between two nodes: what goes into one, and what becomes of everything that was asked."""

from collections.abc import Callable

import pytest

from kvorum.wire import link as module
from kvorum.wire.framing import LENGTH_BYTES, FrameInvalid
from kvorum.wire.link import (
    ENTRY_BYTES,
    FAILED_HERE,
    HEAD_BYTES,
    LATER,
    MUTE_AFTER,
    NOT_TAKEN,
    OK,
    OP_GET,
    OP_PUT,
    RECORD,
    Answers,
    BatchServer,
    Link,
    _pack_entry,
    _pack_head,
)
from tests.support.recording import (
    RecordingAsker,
    answers_payload,
    entries_of,
    mark_payload,
    number_of,
)

KEY = b"\1" + b"k" * 32
PEER = 2


class Asking:
    """One link that stands, and what it has sent."""

    def __init__(self, batch_bytes_max: int = 1 << 20, queue_bytes_max: int = 1 << 20) -> None:
        self.dirty: list[Link] = []
        self.link = Link(PEER, self.dirty, batch_bytes_max, queue_bytes_max)
        self.link.open(0)

    def put(self, asker: RecordingAsker, holding: bytes = b"holding") -> bool:
        return self.link.put(KEY, holding, 5, 6, asker)

    def get(self, asker: RecordingAsker) -> bool:
        return self.link.get(KEY, 5, 6, asker)

    def take(self, now: int = 0) -> list[bytes]:
        self.dirty.clear()
        return [frame[LENGTH_BYTES:] for frame in self.link.take(now)]


def test_a_turns_puts_and_gets_travel_as_one_batch() -> None:
    asking = Asking()
    first, second = RecordingAsker(), RecordingAsker()
    assert asking.put(first)
    assert asking.get(second)
    assert asking.dirty == [asking.link], "once on the driver's list"
    (batch,) = asking.take()
    assert number_of(batch) == 1
    assert batch[1] == 0, "nobody waits for a disk"
    assert [(entry.op, entry.key, entry.body) for entry in entries_of(batch)] == [
        (OP_PUT, KEY, b"holding"),
        (OP_GET, KEY, b""),
    ]
    assert asking.take() == []
    asking.link.on_answers(answers_payload(1, [OK, (RECORD, b"record")]), 10)
    assert first.told == [("ok", PEER)]
    assert second.told == [("record", PEER, 0, b"record")]
    assert asking.link.owed_bytes == 0


def test_whoever_waits_for_the_disk_is_told_by_a_mark() -> None:
    asking = Asking()
    patient, other = RecordingAsker(wants_disk=True), RecordingAsker()
    asking.put(patient)
    asking.put(other)
    (batch,) = asking.take()
    assert batch[1] == 1
    asking.link.on_answers(answers_payload(1, [OK, OK]), 10)
    asking.link.on_mark(mark_payload(1))
    asking.link.on_mark(mark_payload(1))
    assert patient.told == [("ok", PEER), ("disk", PEER)]
    assert other.told == [("ok", PEER)]


def test_a_mark_covers_all_batches_before_it_and_none_behind() -> None:
    asking = Asking()
    askers = [RecordingAsker(wants_disk=True) for _ in range(3)]
    for asker in askers:
        asking.put(asker)
        (batch,) = asking.take()
        asking.link.on_answers(answers_payload(number_of(batch), [OK]), 10)
    asking.link.on_mark(mark_payload(2))
    assert [asker.told[-1][0] for asker in askers] == ["disk", "disk", "ok"]


def test_a_refused_put_gets_no_mark() -> None:
    asking = Asking()
    refused, acked = RecordingAsker(wants_disk=True), RecordingAsker(wants_disk=True)
    asking.put(refused)
    asking.put(acked)
    asking.take()
    asking.link.on_answers(answers_payload(1, [(NOT_TAKEN, b"why"), OK]), 10)
    asking.link.on_mark(mark_payload(1))
    assert refused.told == [("refusal", PEER, NOT_TAKEN, b"why")]
    assert acked.told == [("ok", PEER), ("disk", PEER)]


def test_numbers_wrap() -> None:
    asking = Asking()
    asking.link._number = 0xFFFFFFFE
    askers = [RecordingAsker(wants_disk=True) for _ in range(2)]
    numbers = []
    for asker in askers:
        asking.put(asker)
        (batch,) = asking.take()
        numbers.append(number_of(batch))
        asking.link.on_answers(answers_payload(numbers[-1], [OK]), 10)
    assert numbers == [0xFFFFFFFF, 0]
    asking.link.on_mark(mark_payload(0xFFFFFFFF))
    assert [asker.told[-1][0] for asker in askers] == ["disk", "ok"]
    asking.link.on_mark(mark_payload(0))
    assert askers[1].told[-1] == ("disk", PEER)


@pytest.mark.parametrize("ask", [Asking.put, Asking.get])
def test_a_batch_is_closed_when_it_is_large_enough(ask: Callable[..., bool]) -> None:
    asking = Asking(batch_bytes_max=2 * (ENTRY_BYTES + len(KEY)))
    for _ in range(5):
        assert ask(asking, RecordingAsker())
    sizes = [len(entries_of(batch)) for batch in asking.take()]
    assert sum(sizes) == 5
    assert max(sizes) <= 2


def test_a_batch_is_closed_at_as_many_entries_as_it_can_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "COUNT_MAX", 3)
    asking = Asking()
    for _ in range(4):
        asking.put(RecordingAsker())
        asking.get(RecordingAsker())
    assert [len(entries_of(batch)) for batch in asking.take()] == [3, 3, 2]


@pytest.mark.parametrize("ask", [Asking.put, Asking.get])
def test_what_is_owed_is_bounded(ask: Callable[..., bool]) -> None:
    asking = Asking(queue_bytes_max=2 * (ENTRY_BYTES + len(KEY) + 7))
    assert ask(asking, RecordingAsker())
    assert ask(asking, RecordingAsker())
    refused = RecordingAsker()
    assert not asking.put(refused)
    asking.take()
    assert not asking.put(refused), "sent is owed until it is answered"
    asking.link.on_answers(answers_payload(1, [OK, OK]), 10)
    assert asking.put(refused)
    assert refused.told == []


def test_nobody_can_be_asked_without_a_connection() -> None:
    asking = Asking()
    asking.link.close()
    assert not asking.put(RecordingAsker())
    assert not asking.get(RecordingAsker())
    assert asking.dirty == []
    asking.link.probe()
    assert asking.dirty == []
    asking.link.close()


def test_the_end_of_a_connection_is_told_to_all_that_lack_an_answer_or_a_mark() -> None:
    asking = Asking()
    marked, unmarked, sent, unsent, open_ = (RecordingAsker(wants_disk=True) for _ in range(5))
    for asker in (marked, unmarked):
        asking.put(asker)
        (batch,) = asking.take()
        asking.link.on_answers(answers_payload(number_of(batch), [OK]), 10)
    asking.link.on_mark(mark_payload(1))
    asking.put(sent)
    asking.take()
    asking.link.batch_bytes_max = 1
    asking.put(unsent)
    asking.link.batch_bytes_max = 1 << 20
    asking.put(open_)
    asking.link.close()
    assert [asker.told[-1][0] for asker in (marked, unmarked, sent, unsent, open_)] == [
        "disk", "lost", "lost", "lost", "lost"
    ]  # fmt: skip
    assert asking.link.owed_bytes == 0
    assert asking.take() == [], "nothing of it goes out on the next connection"
    asking.link.open(50)
    asking.put(RecordingAsker())
    (batch,) = asking.take()
    assert number_of(batch) == 1, "numbers belong to one connection"


def test_a_probe_is_an_empty_batch_and_only_sent_when_nothing_else_is() -> None:
    asking = Asking()
    asking.link.probe()
    asking.link.probe()
    (batch,) = asking.take()
    assert entries_of(batch) == []
    asking.link.probe()
    assert asking.take() == []
    asking.link.on_answers(answers_payload(1, []), 300)
    assert asking.link.heard_at == 300
    asking.put(RecordingAsker())
    asking.link.probe()
    assert len(asking.take()) == 1


def test_slowness_silence_and_muteness_come_one_after_the_other_and_once() -> None:
    asking = Asking()
    asker, other = RecordingAsker(), RecordingAsker()
    link = asking.link
    asking.get(asker)
    asking.take(1_000)
    hedge, timeout = link.latency.hedge_after, link.latency.timeout
    link.sweep(1_000 + hedge - 1)
    assert asker.told == []
    asking.get(other)
    asking.take(1_000 + hedge)
    for now in (hedge, hedge + 1, timeout - 1):
        link.sweep(1_000 + now)
    assert asker.told == [("slow", PEER)]
    assert not link.silent
    for now in (timeout, timeout + 1):
        link.sweep(1_000 + now)
    assert asker.told == [("slow", PEER), ("silence", PEER)]
    assert link.silent
    assert link.alive
    link.sweep(1_000 + MUTE_AFTER)
    assert not link.alive
    assert other.told == [("slow", PEER), ("silence", PEER)]
    link.on_answers(answers_payload(1, [OK]), MUTE_AFTER)
    assert not link.silent
    assert link.alive
    assert asker.told[-1] == ("ok", PEER), "a late answer is an answer"
    link.on_answers(answers_payload(2, [OK]), MUTE_AFTER)
    link.sweep(10 * MUTE_AFTER)


def test_a_peer_that_still_answers_is_not_mute() -> None:
    asking = Asking()
    for _ in range(2):
        asking.get(RecordingAsker())
        asking.take(0)
    asking.link.on_answers(answers_payload(1, [OK]), MUTE_AFTER - 1)
    asking.link.sweep(MUTE_AFTER)
    assert asking.link.alive


INVALID = {
    "nothing": b"",
    "another number": answers_payload(2, [OK, OK]),
    "another count": answers_payload(1, [OK]),
    "statuses cut short": answers_payload(1, [OK, OK])[:-1],
}


@pytest.mark.parametrize("payload", INVALID.values(), ids=INVALID.keys())
def test_answers_to_something_else_end_the_connection_and_answer_nobody(payload: bytes) -> None:
    asking = Asking()
    askers = [RecordingAsker(), RecordingAsker()]
    for asker in askers:
        asking.get(asker)
    asking.take()
    with pytest.raises(FrameInvalid):
        asking.link.on_answers(payload, 10)
    asking.link.close()
    assert [asker.told for asker in askers] == [[("lost", PEER)]] * 2


def test_answers_that_nobody_asked_for_end_the_connection() -> None:
    with pytest.raises(FrameInvalid, match="not asked for"):
        Asking().link.on_answers(answers_payload(1, []), 10)


CUT = {
    "its length": answers_payload(1, [OK, OK, (FAILED_HERE, b"why"), OK])[:-14],
    "its text": answers_payload(1, [OK, OK, (FAILED_HERE, b"why"), OK])[:-1],
    "the record": answers_payload(1, [OK, OK, (RECORD, b"record"), OK])[:-1],
}


@pytest.mark.parametrize("wants_disk", [True, False])
@pytest.mark.parametrize("payload", CUT.values(), ids=CUT.keys())
def test_answers_that_are_cut_short_are_lost_from_there_on(
    payload: bytes, wants_disk: bool
) -> None:
    asking = Asking()
    askers = [RecordingAsker(), RecordingAsker(wants_disk), RecordingAsker(), RecordingAsker()]
    for asker in askers:
        asking.put(asker)
    asking.take()
    with pytest.raises(FrameInvalid, match="cut short"):
        asking.link.on_answers(payload, 10)
    asking.link.close()
    acked = [("ok", PEER)]
    lost = [("lost", PEER)]
    assert [asker.told for asker in askers] == [
        acked, acked + lost if wants_disk else acked, lost, lost
    ]  # fmt: skip


def test_bytes_behind_the_last_answer_end_the_connection() -> None:
    asking = Asking()
    asking.get(RecordingAsker())
    asking.take()
    with pytest.raises(FrameInvalid, match="bytes follow"):
        asking.link.on_answers(answers_payload(1, [(LATER, b"")]) + b"x", 10)


def test_a_mark_of_another_length_ends_the_connection() -> None:
    with pytest.raises(FrameInvalid, match="wrong length"):
        Asking().link.on_mark(mark_payload(1) + b"x")


class Scripted(Answers):
    """Answers as it was told to; remembers what it was asked."""

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self.statuses = list(statuses)
        self.asked: list[tuple[object, ...]] = []
        self.written = 0

    def position(self) -> int:
        return self.written

    def on_put(self, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        self.asked.append((key, holding, epoch, generation))
        self.written += 1
        self.payload = b"refused"
        return self.statuses.pop(0)

    def on_get(self, key: bytes, epoch: int, generation: int, large: bool) -> int:
        self.asked.append((key, epoch, generation, large))
        self.payload = b"record"
        self.generation = 7
        return self.statuses.pop(0)


def test_both_ends_understand_each_other() -> None:
    answers = Scripted(OK, RECORD, NOT_TAKEN, OK)
    server = BatchServer(answers, large=True)
    asking = Asking()
    askers = [RecordingAsker(wants_disk=index == 0) for index in range(4)]
    asking.put(askers[0])
    asking.get(askers[1])
    asking.put(askers[2])
    asking.get(askers[3])
    (batch,) = asking.take()
    asking.link.on_answers(server.on_batch(batch)[LENGTH_BYTES:], 10)
    assert answers.asked[:2] == [(KEY, b"holding", 5, 6), (KEY, 5, 6, True)]
    assert server.mark(1) == b"", "the last of the batch stands at 2"
    asking.link.on_mark(server.mark(2)[LENGTH_BYTES:])
    assert server.mark(9) == b""
    assert askers[0].told == [("ok", PEER), ("disk", PEER)]
    assert askers[1].told == [("record", PEER, 7, b"record")]
    assert askers[2].told[0][:3] == ("refusal", PEER, NOT_TAKEN)
    assert askers[3].told == [("ok", PEER)]


def test_one_mark_speaks_for_all_batches_that_are_on_disk() -> None:
    server = BatchServer(Scripted(OK, OK, OK), large=False)
    asking = Asking()
    for _ in range(3):
        asking.put(RecordingAsker(wants_disk=True))
        (batch,) = asking.take()
        server.on_batch(batch)
    assert number_of(server.mark(2)[LENGTH_BYTES:]) == 2
    assert number_of(server.mark(3)[LENGTH_BYTES:]) == 3


def test_no_mark_comes_for_what_nobody_waits_for() -> None:
    server = BatchServer(Scripted(OK), large=False)
    asking = Asking()
    asking.put(RecordingAsker())
    (batch,) = asking.take()
    server.on_batch(batch)
    assert server.mark(1 << 40) == b""


def batch_payload(*entries: bytes, count: int = -1) -> bytes:
    head = _pack_head(0x10, 0, len(entries) if count < 0 else count, 1)
    return b"".join([head, *entries])


def entry(op: int = OP_GET, key: bytes = KEY, length: int = 0) -> bytes:
    return _pack_entry(op, 0, len(key), length, 0, 0) + key


BAD_BATCHES = {
    "no head": b"\x10",
    "an entry too few": batch_payload(entry(), count=2),
    "an entry cut short": batch_payload(entry())[:-1],
    "an entry's head cut short": batch_payload(entry())[: HEAD_BYTES + 3],
    "a body that is not there": batch_payload(entry(OP_PUT, length=9)),
    "a key too short to be one": batch_payload(entry(key=KEY[1:])),
    "an unknown kind": batch_payload(entry(op=9)),
    "more than was announced": batch_payload(entry()) + b"x",
}


@pytest.mark.parametrize("payload", BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_a_malformed_batch_ends_the_connection(payload: bytes) -> None:
    with pytest.raises(FrameInvalid):
        BatchServer(Scripted(OK, OK), large=False).on_batch(payload)


def test_an_asker_need_not_care_for_slowness_marks_and_loss() -> None:
    asker = module.Asker()
    assert not asker.wants_disk
    for told in (asker.on_disk, asker.on_slow, asker.on_silence, asker.on_lost):
        told(PEER)
    Answers().begin()
