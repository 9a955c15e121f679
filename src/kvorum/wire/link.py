"""Puts and gets between two nodes: batches, their numbers, answers in order, durability marks.

Whatever a node asks of a peer within one turn travels as one batch, and the peer answers a
batch by one frame at the end of its own turn, after that turn's write to the log; so an answer
means ``os``. Entries need no ids: the answers stand in the batch's order. Each batch has a
number, echoed with its count; a mismatch ends the connection. Later the peer sends marks: all
that your batches up to this number hold is on disk now. Numbers and marks belong to one
connection.

    BATCH    u8 kind | u8 flags | u16 count | u32 number | entries
    entry    u8 op | u8 zero | u16 key length | u32 body length | u32 epoch | u64 generation |
             engine key | body
    hint     u16 owner | u8 w | u8 disks | holding                  (the body of a hint)
    ANSWERS  u8 kind | u8 zero | u16 count | u32 number | one status byte per entry |
             for each status but OK, in order: u32 length | u64 generation | payload
    MARK     u8 kind | u8 zero | u16 zero | u32 number

``Link`` is the asking end, ``BatchServer`` the answering one. Both are run by the server and by
the simulator alike; neither knows a socket. (Numbers wrap; only their distance is looked at.)
"""

from collections import deque
from struct import Struct
from typing import Final

from kvorum.model.latency import Latency
from kvorum.wire.framing import FrameInvalid, pack_length
from kvorum.wire.kinds import ANSWERS, BATCH, MARK

OP_PUT: Final = 1  # merge this holding into your own; body: the holding
OP_GET: Final = 2  # what do you hold; no body
OP_HINT: Final = 3  # keep this holding for an owner that does not answer

WANTS_MARK: Final = 1  # batch flag: somebody waits for the disk

OK: Final = 0  # put: held. get: nothing is held here
RECORD: Final = 1  # get: the payload is the record, read under the generation
LATER: Final = 2  # cannot be answered in this turn; ask again
FAILED_HERE: Final = 3  # the copy here is damaged; it is not "not found"
OVERLOADED: Final = 4  # a bound was reached here
UNWRITABLE: Final = 5  # the disk here is full or has failed
STALE_GENERATION: Final = 6  # payload u64, u64: the receiver's higher one, the last that dropped
OTHER_EPOCH: Final = 7  # payload u32: the receiver's epoch of the partition, which is newer
NOT_TAKEN: Final = 8  # the receiver may not hold this: not an owner, or a dropped table
ELSEWHERE: Final = 9  # get: the record is large; ask on the large connection
MALFORMED: Final = 10
NOT_READY: Final = 11  # the receiver has no generation for the partition yet; ask others
RECORD_BEHIND: Final = 12  # as RECORD, of an owner that may lack what was acknowledged
NOTHING_BEHIND: Final = 13  # get: such an owner holds nothing

COUNT_MAX: Final = 65_535
MUTE_AFTER: Final = 2_000_000  # without any answer, a peer is no longer believed alive
_NUMBERS: Final = 0xFFFFFFFF

_head = Struct("<BBHI")
_pack_head = _head.pack
_unpack_head = _head.unpack_from
HEAD_BYTES: Final = _head.size
_entry = Struct("<BBHIIQ")
_pack_entry = _entry.pack
_unpack_entry = _entry.unpack_from
ENTRY_BYTES: Final = _entry.size
_hint = Struct("<HBB")
_pack_hint = _hint.pack
unpack_hint = _hint.unpack_from
HINT_BYTES: Final = _hint.size
_extra = Struct("<IQ")
_pack_extra = _extra.pack
_unpack_extra = _extra.unpack_from
EXTRA_BYTES: Final = _extra.size


def pack_put(key: bytes, holding: bytes, epoch: int, generation: int) -> bytes:
    """One put, as an entry of a batch."""
    return _pack_entry(OP_PUT, 0, len(key), len(holding), epoch, generation) + key + holding


def pack_hint(
    key: bytes, owner: int, w: int, disks: int, holding: bytes, epoch: int, generation: int
) -> bytes:
    """One hint, as an entry of a batch."""
    size = HINT_BYTES + len(holding)
    head = _pack_entry(OP_HINT, 0, len(key), size, epoch, generation)
    return b"".join((head, key, _pack_hint(owner, w, disks), holding))


class Asker:
    """Whoever asks peers and is told what became of it; one object per request.

    For each entry exactly one of ``on_ok``, ``on_record``, ``on_behind``, ``on_refusal``,
    ``on_later`` and ``on_lost`` is called; ``on_slow`` and ``on_silence`` may come before it,
    ``on_disk`` after ``on_ok``, and ``on_lost`` once more in its place when the connection ends
    before the mark.
    """

    __slots__ = ("wants_disk",)

    def __init__(self) -> None:
        self.wants_disk = False

    def on_ok(self, peer: int) -> None:
        raise NotImplementedError

    def on_record(self, peer: int, generation: int, record: bytes) -> None:
        raise NotImplementedError

    def on_refusal(self, peer: int, status: int, payload: bytes) -> None:
        raise NotImplementedError

    def on_behind(self, peer: int, generation: int, record: bytes) -> None:
        """What an owner holds (empty: nothing) that may lack what was acknowledged."""
        self.on_refusal(peer, RECORD_BEHIND, record)

    def on_later(self, peer: int) -> None:
        """The peer could not answer in its turn. A moment has passed since: ask it again."""
        self.on_refusal(peer, LATER, b"")

    def on_disk(self, peer: int) -> None:
        """What the peer acked before is on its disk."""

    def on_slow(self, peer: int) -> None:
        """The peer takes longer than it does in 19 of 20 cases."""

    def on_silence(self, peer: int) -> None:
        """The peer's adaptive timeout has passed; its answer may still come."""

    def on_lost(self, peer: int) -> None:
        """The connection ended, or could take no more: no answer will come."""


class Batch:
    """One batch on its way, until it is answered and, where wanted, marked."""

    __slots__ = ("abandoned", "askers", "hedged", "number", "sent_at", "size", "wants_mark")

    def __init__(self, number: int, askers: list[Asker], size: int, wants_mark: bool) -> None:
        self.number = number
        self.askers = askers
        self.size = size
        self.wants_mark = wants_mark
        self.sent_at = 0
        self.hedged = False
        self.abandoned = False


class Link:
    """What this node asks of one peer over one connection at a time.

    It outlives its connections: between two of them ``connected`` is False and asking fails.
    The first entry of a turn puts the link on the driver's list of dirty links; at the turn's
    end the driver takes the frames and writes them at once.
    """

    __slots__ = (
        "_askers", "_bytes", "_dirty", "_frames", "_number", "_parts", "_room", "_unsent",
        "_wants_mark", "again", "alive", "batch_bytes_max", "connected", "heard_at",
        "hints_refused_until", "in_flight", "latency", "peer", "queue_bytes_max", "silent",
        "unmarked",
    )  # fmt: skip

    def __init__(
        self, peer: int, dirty: list["Link"], batch_bytes_max: int, queue_bytes_max: int
    ) -> None:
        self.peer = peer
        self.batch_bytes_max = batch_bytes_max
        self.queue_bytes_max = queue_bytes_max
        self.latency = Latency()
        self.connected = False
        self.silent = False  # an adaptive timeout has passed without any answer: ask others first
        # Connected, and not mute: not for so long without any answer that it is given up.
        self.alive = False
        self.heard_at = 0
        self.hints_refused_until = 0  # the peer had no room for hints; until then none is offered
        # What this turn's batch may grow to: the bound of the queue, less what is in closed batches
        # that lack their answers; less than nought while there is no connection.
        self._room = -1
        self.in_flight: deque[Batch] = deque()
        self.unmarked: deque[Batch] = deque()
        self.again: list[Asker] = []  # put off by the peer; they ask again at the next sweep
        self._dirty = dirty
        self._number = 0
        self._unsent: list[Batch] = []
        self._frames: list[bytes] = []
        self._parts: list[bytes] = []
        self._askers: list[Asker] = []
        self._bytes = 0
        self._wants_mark = False

    @property
    def owed_bytes(self) -> int:
        """Of entries that lack their answer."""
        return self.queue_bytes_max - self._room + self._bytes if self.connected else 0

    def open(self, now: int) -> None:
        """A new connection stands."""
        assert not self.connected
        self._room = self.queue_bytes_max
        self.connected = True
        self.alive = True
        self.silent = False
        self.heard_at = now
        self.hints_refused_until = 0
        self._number = 0

    def put(self, key: bytes, holding: bytes, epoch: int, generation: int, asker: Asker) -> bool:
        """Ask the peer to merge ``holding``; False if it cannot be asked now."""
        return self.put_entry(pack_put(key, holding, epoch, generation), asker)

    def put_entry(self, entry: bytes, asker: Asker) -> bool:
        """``put``, of an entry packed once for several peers."""
        size = self._bytes + len(entry)
        if size > self._room:
            return False
        askers = self._askers
        if not askers:
            self._dirty.append(self)
        self._parts.append(entry)
        askers.append(asker)
        if asker.wants_disk:
            self._wants_mark = True
        self._bytes = size
        if size >= self.batch_bytes_max or len(askers) >= COUNT_MAX:
            self._close_batch()
        return True

    def get(self, key: bytes, epoch: int, generation: int, asker: Asker) -> bool:
        """Ask what the peer holds; False if it cannot be asked now."""
        size = self._bytes + ENTRY_BYTES + len(key)
        if size > self._room:
            return False
        askers = self._askers
        if not askers:
            self._dirty.append(self)
        self._parts += (_pack_entry(OP_GET, 0, len(key), 0, epoch, generation), key)
        askers.append(asker)
        self._bytes = size
        if size >= self.batch_bytes_max or len(askers) >= COUNT_MAX:
            self._close_batch()
        return True

    def divert(self, asker: Asker, to: Asker) -> bool:
        """Let ``to`` be told of what ``asker`` has asked in this turn; False if that is nothing."""
        found = False
        for askers in (self._askers, *(batch.askers for batch in self._unsent)):
            for index, each in enumerate(askers):
                if each is asker:
                    askers[index] = to
                    found = True
        return found

    def probe(self) -> None:
        """Send an empty batch, if nothing else is under way: is the peer there, and how fast?"""
        if self.connected and not self.in_flight and not self._askers and not self._unsent:
            self._dirty.append(self)
            self._close_batch()

    def _close_batch(self) -> None:
        count = len(self._askers)
        self._number = (self._number + 1) & _NUMBERS
        flags = WANTS_MARK if self._wants_mark else 0
        batch = Batch(self._number, self._askers, self._bytes, self._wants_mark)
        head = _pack_head(BATCH, flags, count, self._number)
        self._frames.append(b"".join([pack_length(HEAD_BYTES + self._bytes), head, *self._parts]))
        self._unsent.append(batch)
        self._room -= self._bytes
        self._parts = []
        self._askers = []
        self._bytes = 0
        self._wants_mark = False

    def take(self, now: int) -> list[bytes]:
        """The frames of this turn, for the connection. At the end of the turn."""
        if self._askers:
            self._close_batch()
        for batch in self._unsent:
            batch.sent_at = now
            self.in_flight.append(batch)
        frames = self._frames
        if frames:
            self._unsent = []
            self._frames = []
        return frames

    def on_answers(self, payload: bytes, now: int) -> None:
        """Match one ANSWERS payload; ``FrameInvalid`` if it answers nothing we asked."""
        if len(payload) < HEAD_BYTES or not self.in_flight:
            raise FrameInvalid("answers came that were not asked for")
        _, _, count, number = _unpack_head(payload, 0)
        batch = self.in_flight.popleft()
        askers = batch.askers
        statuses = payload[HEAD_BYTES : HEAD_BYTES + count]
        if number != batch.number or count != len(askers) or len(statuses) != count:
            self.in_flight.appendleft(batch)
            raise FrameInvalid(
                f"answers to batch {number} ({count}) came where batch {batch.number} "
                f"({len(askers)}) was due"
            )
        self._room += batch.size
        self.alive = True
        self.silent = False
        self.heard_at = now
        self.latency.observe(now - batch.sent_at)
        if batch.wants_mark:
            self.unmarked.append(batch)
        peer = self.peer
        if statuses.count(0) == count:
            for asker in askers:
                asker.on_ok(peer)
            return
        self._on_mixed_answers(payload, batch, statuses)

    def _on_mixed_answers(self, payload: bytes, batch: Batch, statuses: bytes) -> None:
        peer = self.peer
        askers = batch.askers
        position = HEAD_BYTES + len(statuses)
        size = len(payload)
        acked: list[Asker] = []  # those whose mark may still come
        index = 0
        for status in statuses:
            asker = askers[index]
            index += 1
            if status == OK:
                acked.append(asker)
                asker.on_ok(peer)
                continue
            end = position + EXTRA_BYTES
            if end <= size:
                length, generation = _unpack_extra(payload, position)
                end += length
            if end > size:
                self._put_back(batch, acked, index - 1)
                raise FrameInvalid("answers are cut short")
            position += EXTRA_BYTES
            if status == RECORD:
                asker.on_record(peer, generation, payload[position:end])
            elif status == LATER:
                self.again.append(asker)
            elif status in (RECORD_BEHIND, NOTHING_BEHIND):
                asker.on_behind(peer, generation, payload[position:end])
            else:
                asker.on_refusal(peer, status, payload[position:end])
            position = end
        batch.askers = acked
        if position != size:
            raise FrameInvalid("bytes follow the last of a batch's answers")

    def _put_back(self, batch: Batch, acked: list[Asker], first: int) -> None:
        """Let those whose answers were garbage, or whose mark is due, learn of the close."""
        if batch.wants_mark:
            self.unmarked.pop()
        batch.askers = [asker for asker in acked if asker.wants_disk] + batch.askers[first:]
        self._room -= batch.size
        self.in_flight.appendleft(batch)

    def on_mark(self, payload: bytes) -> None:
        """What the peer acked up to a batch is on its disk."""
        if len(payload) != HEAD_BYTES:
            raise FrameInvalid("a mark has the wrong length")
        number = int(_unpack_head(payload, 0)[3])
        unmarked = self.unmarked
        peer = self.peer
        while unmarked and ((number - unmarked[0].number) & _NUMBERS) < 0x80000000:
            for asker in unmarked.popleft().askers:
                if asker.wants_disk:
                    asker.on_disk(peer)

    def sweep(self, now: int) -> None:
        """Tell the askers of batches that are slow or overdue. Some hundred times a second."""
        if self.again:
            put_off, self.again = self.again, []
            for asker in put_off:
                asker.on_later(self.peer)
        if not self.in_flight:
            return
        hedge_after = self.latency.hedge_after
        timeout = self.latency.timeout
        for batch in list(self.in_flight):
            elapsed = now - batch.sent_at
            if elapsed < hedge_after:
                return
            if not batch.hedged:
                batch.hedged = True
                for asker in batch.askers:
                    asker.on_slow(self.peer)
            if elapsed >= MUTE_AFTER and now - self.heard_at >= MUTE_AFTER:
                self.alive = False
            if elapsed >= timeout and not batch.abandoned:
                batch.abandoned = True
                self.silent = True
                for asker in batch.askers:
                    asker.on_silence(self.peer)

    def close(self) -> None:
        """The connection has ended: nothing that lacks its answer or its mark will get it."""
        if not self.connected:
            return
        self.connected = False
        self.alive = False
        batches = [*self.unmarked, *self.in_flight, *self._unsent]
        askers = self.again + self._askers
        self.again = []
        self.unmarked.clear()
        self.in_flight.clear()
        self._unsent = []
        self._frames = []
        self._parts = []
        self._askers = []
        self._bytes = 0
        self._wants_mark = False
        self._room = -1
        for batch in batches:
            for asker in batch.askers:
                asker.on_lost(self.peer)
        for asker in askers:
            asker.on_lost(self.peer)


class Answers:
    """What a node does for its peers: the part that ``replica.py`` plays towards a batch."""

    __slots__ = ("generation", "payload")

    def __init__(self) -> None:
        self.payload = b""  # what goes with the status just returned
        self.generation = 0  # under which the payload was read

    def begin(self) -> None:
        """A batch follows."""

    def position(self) -> int:
        """Of the log, after all that was written so far."""
        raise NotImplementedError

    def on_put(self, key: bytes, holding: bytes, epoch: int, generation: int) -> int:
        """Merge ``holding``; the status, with ``payload`` set where it has one."""
        raise NotImplementedError

    def on_hint(self, key: bytes, body: bytes, epoch: int, generation: int) -> int:
        """Keep a holding for an owner that does not answer; the status, as of a put."""
        raise NotImplementedError

    def on_get(self, key: bytes, epoch: int, generation: int, large: bool) -> int:
        """Read: ``RECORD``, with the record as ``payload``; ``OK`` if none is held; a refusal."""
        raise NotImplementedError


class BatchServer:
    """The answering end of one connection from a peer."""

    __slots__ = ("_answers", "_large", "_waiting")

    def __init__(self, answers: Answers, large: bool) -> None:
        self._answers = answers
        self._large = large
        self._waiting: deque[tuple[int, int]] = deque()  # batch number, log position

    def on_batch(self, payload: bytes) -> bytes:
        """Do what one BATCH payload asks; return the ANSWERS frame, to leave after the log."""
        if len(payload) < HEAD_BYTES:
            raise FrameInvalid("a batch is cut short")
        _, flags, count, number = _unpack_head(payload, 0)
        answers = self._answers
        on_put = answers.on_put
        answers.begin()
        statuses = bytearray(count)
        extras: list[bytes] = []
        extra_bytes = 0
        position = HEAD_BYTES
        size = len(payload)
        for index in range(count):
            if position + ENTRY_BYTES > size:
                raise FrameInvalid("a batch's entry is cut short")
            op, _, key_length, body_length, epoch, generation = _unpack_entry(payload, position)
            position += ENTRY_BYTES
            body = position + key_length
            end = body + body_length
            if end > size or key_length < 33:
                raise FrameInvalid("a batch's entry is cut short")
            key = payload[position:body]
            if op == OP_PUT:
                status = on_put(key, payload[body:end], epoch, generation)
            elif op == OP_GET:
                status = answers.on_get(key, epoch, generation, self._large)
            elif op == OP_HINT and body_length > HINT_BYTES:
                status = answers.on_hint(key, payload[body:end], epoch, generation)
            else:
                raise FrameInvalid(f"a batch has an entry of unknown kind {op}")
            if status:
                statuses[index] = status
                extra = answers.payload
                extras += (_pack_extra(len(extra), answers.generation), extra)
                extra_bytes += EXTRA_BYTES + len(extra)
            position = end
        if position != size:
            raise FrameInvalid("bytes follow a batch's last entry")
        if flags & WANTS_MARK:
            self._waiting.append((number, answers.position()))
        head = _pack_head(ANSWERS, 0, count, number)
        length = pack_length(HEAD_BYTES + count + extra_bytes)
        if extras:
            return b"".join([length, head, statuses, *extras])
        return b"".join((length, head, statuses))

    def mark(self, durable_position: int) -> bytes:
        """The MARK frame now due, or nothing; whenever more of the log is on disk."""
        waiting = self._waiting
        number = -1
        while waiting and waiting[0][1] <= durable_position:
            number = waiting.popleft()[0]
        if number < 0:
            return b""
        return pack_length(HEAD_BYTES) + _pack_head(MARK, 0, 0, number)
