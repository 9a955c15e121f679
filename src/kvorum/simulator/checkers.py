"""What must be true, judged while a world runs and once more when it has been healed.

The checkers judge by promises. An answer says which replicas hold a write and how durably; from
that and from the faults that happened follows whether a copy must still be there. Only losing
such a write is a failure. Losing another one (the only synced disk was wiped, say, while the
rest crashed unsynced) is counted as outside the promise.

Each failure begins with the name of its checker:

- ``hollow ack``: a put was answered ok without as many holders, or disks, as the answer says;
- ``stale``: a get missed a write that one of the replicas it names held for certain;
- ``undead``: a get showed a value that another one it knows of had superseded, a store took again
  what had been reaped, or a record of a dropped table is still there;
- ``vanished``: a context covers a write that is not shown and that nothing known superseded;
- ``siblings``: more values stand side by side than writers left there;
- ``lost``: a promised write is gone at the end;
- ``unhealed``: some time after everything is healed, without a read, replicas still differ, or
  what a node knows of its records is not what can be counted in them;
- ``missed``: a get that admits no doubt misses a write that more owners have acknowledged than it
  left out, and that one of them still holds;
- ``unequal``: replicas differ after every key has been read and mended;
- ``strict``: a fallback was counted for a put that allows none;
- ``hint dropped``: a hint was let go before its owner had it on its disk;
- ``hint shed``: a hint was let go for want of room, and too few owners have it;
- ``hint bounds``: a node holds more hints than its bounds allow;
- ``hints left``: hints are still held though their owners have been back for long;
- ``endless``: a request never ended;
- ``unbelieved``: a member that runs is not believed alive by all others, half a minute after
  everything was healed;
- ``unavailable``: a cluster in which nothing is wrong, not yet or not any more, does not answer;

and from the history, as the records are written: ``dot twice``, ``unseen destroyed``,
``backwards``, ``refused appears``, ``strange value``, ``strange dot``, ``reaped alive``,
``reaped unproven``, ``set aside``.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kvorum.client.store import Found, Sibling, Stored
from kvorum.errors import KvorumError, Overloaded, TooManySiblings
from kvorum.model.context import context_clock, context_seen
from kvorum.model.hashing import SPACE_HINTS, SPACE_RECORDS
from kvorum.model.holding import record_of
from kvorum.model.merkle import Trees
from kvorum.model.record import Value, order_of, split_values
from kvorum.model.siblings import alive, seen_of
from kvorum.simulator.history import History
from kvorum.simulator.key_history import Copy, KeyHistory, Mint, Write
from kvorum.simulator.plan import TablePlan
from kvorum.wire.kinds import PUT_OK, REFUSED, UNKNOWN
from kvorum.wire.requests import (
    ACK_BYTES,
    LEVEL_DISK,
    LEVEL_OS,
    PUT_OK_HEAD_BYTES,
    unpack_ack,
    unpack_put_ok,
    unpack_request_number,
)

if TYPE_CHECKING:
    from kvorum.simulator.connections import AnswerPort
    from kvorum.simulator.machine import Machine
    from kvorum.simulator.process import Process
    from kvorum.simulator.world import World

FRAME_HEAD: Final = 4


class Checks:
    """The judge of one world."""

    def __init__(self, world: "World", history: History) -> None:
        self._world = world
        self._history = history
        self.dropped_at: dict[str, int] = {}  # tables, since when every node knows
        self.drop_begun: dict[str, None] = {}  # tables whose records may vanish now
        self.lost_tables: dict[str, None] = {}  # nobody knows them any more, outside the promise

    # Answers to puts, as they leave the coordinator.

    def on_answer_leaves(self, process: "Process", port: "AnswerPort", frame: bytes) -> None:
        kind = frame[FRAME_HEAD]
        if kind not in (PUT_OK, REFUSED, UNKNOWN):
            return
        request = unpack_request_number(frame, FRAME_HEAD + 4)[0]
        put_id = port.puts.pop(request, None)
        if kind != PUT_OK or put_id is None:
            return
        payload = frame[FRAME_HEAD:]
        _, _, ack_count, _, coordinator, _, _ = unpack_put_ok(payload, 0)
        if coordinator != process.machine.member:
            return  # Relayed; it was judged where it was made.
        write = self._history.writes[put_id]
        context = payload[PUT_OK_HEAD_BYTES + ACK_BYTES * ack_count :]
        mint = self._answered_for(coordinator, write, context)
        if mint is None:
            self._world.fail(f"hollow ack: {write.text} is answered ok and was never written")
            return
        acks = [
            unpack_ack(payload, PUT_OK_HEAD_BYTES + ACK_BYTES * index) for index in range(ack_count)
        ]
        self._count_acks(write, acks)
        if write.table.name in self.drop_begun:
            return
        for member, level, fallback in acks:
            machine = self._world.machines[member]
            if fallback and self._take_copies_of_owners(write, mint, machine):
                continue
            self._take_copy(write, mint, machine, level)

    def _answered_for(self, member: int, write: Write, context: bytes) -> Mint | None:
        """The dot of a write of which a coordinator tells: its own, or one that it has found.

        The context that it gives carries that value's clock.
        """
        clock = context_clock(context)
        told = [mint for mint in write.mints if mint.order[0] == clock]
        own = [mint for mint in told if mint.member == member]
        found = own or told
        return found[-1] if found else None

    def _take_copies_of_owners(self, write: Write, mint: Mint, machine: "Machine") -> bool:
        """Note the owners to whom a fallback has given the write since it acknowledged it."""
        process = machine.process
        if process is not None and self._history.holds(process, mint):
            return False
        taken = False
        for owner, record, at in self._history.went_home.get((machine.member, write.key), ()):
            if self._history.covers(record, mint):
                taken = True
                if owner is not None and owner.destroyed_at < at:  # Else it may be lost again.
                    self._history.take_home(mint, owner)
        return taken

    def _count_acks(self, write: Write, acks: list[tuple[int, int, int]]) -> None:
        if not write.sloppy and any(fallback for _, _, fallback in acks):
            self._world.fail(f"strict: {write.text} allows no fallbacks, and counts {acks}")
        holders = dict.fromkeys(member for member, _, _ in acks)
        on_disk = sum(level == LEVEL_DISK for _, level, _ in acks)
        if len(holders) < write.w or on_disk < write.disk_needed:
            self._world.fail(
                f"hollow ack: {write.text} needed {write.w} holders and {write.disk_needed} "
                f"disks, and was answered ok with {acks}"
            )

    def _take_copy(self, write: Write, mint: Mint, machine: "Machine", level: int) -> None:
        """Note one acknowledged copy, after a look whether it is there."""
        world = self._world
        process = machine.process
        now = world.schedule.now
        if machine.touched_at >= mint.minted_at or machine.destroyed_at >= mint.minted_at:
            self._take_touched_copy(write, mint, machine, level)
            return
        position = -1
        if process is not None and self._history.holds(process, mint):
            store = process.store
            # Covered without ever having been alive here: something later came in its place.
            position = process.held.get(mint.dot, store.position)
            missing = (
                level == LEVEL_DISK
                and store.durable_position < process.held.get(mint.dot, 0)
                and not machine.volatile
            ) or (level >= LEVEL_OS and store.written_position < process.held.get(mint.dot, 0))
            if level == LEVEL_DISK and machine.volatile:
                missing = True
        else:
            missing = True
        if missing:
            world.fail(
                f"hollow ack: {machine.name} is said to hold {write.text} at level {level}, "
                "which it does not"
            )
            return
        copy = Copy(machine, mint, position, level == LEVEL_DISK, now)
        copy.unbroken = True
        machine.copies.append(copy)
        write.copies.append(copy)

    def _take_touched_copy(self, write: Write, mint: Mint, machine: "Machine", level: int) -> None:
        """The holder has been down since the put began: find out what is left of its copy."""
        process = machine.process
        if machine.volatile or machine.destroyed_at >= mint.minted_at:
            return
        copy = Copy(machine, mint, -1, True, self._world.schedule.now)
        if process is not None:
            if not self._history.holds(process, mint):
                if level == LEVEL_DISK:
                    self._world.fail(
                        f"hollow ack: {machine.name} has lost {write.text}, which was on its disk"
                    )
                return
            copy.position = self._history.position_of(process, mint)
            copy.durable = copy.position < 0
        elif level != LEVEL_DISK:
            if level != LEVEL_OS or machine.power_lost_at >= mint.minted_at:
                return
            copy.durable = False
        machine.copies.append(copy)
        write.copies.append(copy)

    # Answers as clients see them.

    def judge_put(self, write: Write, stored: Stored) -> None:
        history = self._history.keys.get(write.key)
        if history is None or not write.mints:
            self._world.fail(f"hollow ack: {write.text} is ok and was never written")
            return
        history.acked.append(write)
        if history.lww:
            return
        claimed = history.mask_of(context_seen(stored.context))
        own = 0
        for each in write.mints:
            own |= each.bit | each.past
        if claimed & ~(own | history.superseded | history.reaped):
            self._world.fail(
                f"vanished: the context of {write.text} claims what nobody has superseded: "
                f"{history.names_of(claimed & ~(own | history.superseded | history.reaped))}"
            )
        if not any(claimed & mint.bit for mint in write.mints):
            self._world.fail(f"vanished: the context of {write.text} lacks its own write")

    def judge_get(
        self, key: bytes, table: TablePlan, name: str, started_at: int, found: Found
    ) -> None:
        dropped_at = self.dropped_at.get(table.name, started_at)
        if started_at > dropped_at and not self._world.may_forget_tables:
            self._world.fail(f"undead: {name} is read though its table has been dropped everywhere")
        history = self._history.keys.get(key)
        siblings = found.siblings
        if history is None:
            if siblings:
                self._world.fail(f"strange value: a get of {name} shows {siblings}")
            return
        shown = self._shown(history, name, siblings)
        if history.lww:
            self._judge_lww(history, name, started_at, found, siblings)
            return
        known = history.mask_of(context_seen(found.context))
        covered = known | history.reaped_before(started_at)
        reaped = history.reaped_since(started_at)
        if table.name in self.drop_begun:
            return
        self._judge_shown(history, name, covered, shown)
        if len(siblings) > history.loose:
            self._world.fail(
                f"siblings: {name} shows {len(siblings)} values; its writers left {history.loose}"
            )
        if not found.may_miss_acknowledged:
            self._judge_missed(history, name, started_at, found.replicas, known | reaped)
        for copy in _held_before(history, started_at, found.replicas):
            if not (known | reaped) & copy.mint.bit:
                self._world.fail(
                    f"stale: a get of {name} at {found.replicas} misses {copy.mint.write.text}, "
                    f"which {copy.machine.name} holds"
                )

    def _judge_missed(
        self, history: KeyHistory, name: str, started_at: int, replicas: tuple[int, ...],
        covered: int,
    ) -> None:  # fmt: skip
        """One of the replicas has acknowledged the write, be it that it has lost it since."""
        if self._world.may_lie_about_disks:
            return
        owners = self._world.ring.owners_of_engine_key(history.key)
        asked = sum(member in owners for member in replicas)
        for write in history.acked:
            if write.acked_at > started_at:
                continue
            for mint in write.mints:
                # A twin of the write may be acknowledged later than the write, to nobody.
                copies = [
                    copy
                    for copy in write.copies
                    if copy.mint is mint and copy.unbroken and copy.taken_at <= started_at
                ]
                holders = {c.machine.member for c in copies if c.machine.member in owners}
                if (
                    len(holders) + asked > len(owners)
                    and not covered & mint.bit
                    and any(c.alive and c.machine.member in holders for c in copies)
                ):
                    self._world.fail(
                        f"missed: a get of {name} at {replicas} misses {write.text}, which "
                        f"{sorted(holders)} acknowledged"
                    )

    def _shown(self, history: KeyHistory, name: str, siblings: tuple[Sibling, ...]) -> int:
        mask = 0
        for sibling in siblings:
            mint = self._history.dots.get(sibling.dot)
            if mint is None or mint.write.key != history.key:
                self._world.fail(f"strange value: {name} shows {sibling.value!r}, nobody's put")
                continue
            mask |= mint.bit
            write = mint.write
            ended = sibling.value is None and sibling.expiry != 0
            if not ended and (sibling.value or b"") != write.value:
                self._world.fail(f"strange value: {name} shows {sibling.value!r} for {write.text}")
        return mask

    def _judge_shown(self, history: KeyHistory, name: str, covered: int, shown: int) -> None:
        expected = history.expected(covered)
        undead = shown & ~expected & ~history.brought_back
        if undead:
            self._world.fail(
                f"undead: {name} shows {history.names_of(undead)} beside what superseded it"
            )
        hidden = expected & ~shown & ~history.reaped
        for mint in history.mints:
            if hidden & mint.bit and any(shown & twin.bit for twin in mint.write.mints):
                hidden &= ~mint.bit  # One put that was written twice is shown once.
        if hidden:
            self._world.fail(
                f"vanished: the context of {name} covers {history.names_of(hidden)}, which is not "
                "shown and which nothing known superseded"
            )

    def _judge_lww(
        self, history: KeyHistory, name: str, started_at: int, found: Found,
        siblings: tuple[Sibling, ...],
    ) -> None:  # fmt: skip
        if len(siblings) > 1:
            self._world.fail(f"siblings: {name} keeps one winner and shows {len(siblings)} values")
        order = (siblings[0].clock, siblings[0].dot) if siblings else (0, b"")
        for copy in _held_before(history, started_at, found.replicas):
            if copy.mint.order > order and not history.reaped_since(started_at) & copy.mint.bit:
                self._world.fail(
                    f"stale: a get of {name} at {found.replicas} shows less than "
                    f"{copy.mint.write.text}, which {copy.machine.name} holds"
                )

    def judge_error(self, what: str, error: KvorumError) -> None:
        """Before the first fault everything must succeed, but for bounds and missing disks."""
        world = self._world
        # A table that is being dropped fails what was under way on it, in more than one manner.
        meant = isinstance(error, Overloaded | TooManySiblings) or bool(self.drop_begun)
        if world.plan.patient and not (world.struck or meant or world.plan.volatile):
            world.fail(f"unavailable: {what} failed though nothing is wrong: {error}")

    # Hints.

    def judge_bounds(self, process: "Process") -> None:
        """Look whether a node holds more hints than it may."""
        config = self._world.plan.config
        hints = process.node.hints
        most = max(hints.owed_bytes.values(), default=0)
        if hints.bytes > config.hint_bytes_max or most > config.hint_bytes_per_peer_max:
            self._world.fail(
                f"hint bounds: {process.machine.name} holds {hints.bytes} bytes of hints, {most} "
                "of them for one owner"
            )

    def judge_hints(self) -> None:
        """Everybody has been back for long: nothing may wait for anybody any more."""
        for machine in self._world.machines.values():
            process = machine.process
            if process is not None and process.node.hints.count:
                owed = {owner: len(keys) for owner, keys in process.node.hints.owed.items() if keys}
                self._world.fail(f"hints left: {machine.name} still holds hints for {owed}")

    # Healing without a client.

    def unequal(self) -> list[str]:
        """What still differs between owners, or is still owed; nothing is read through nodes."""
        found: list[str] = []
        for key in sorted(self._history.keys):
            history = self._history.keys[key]
            records = {
                machine.name: self._record_at(machine, key) for machine in self._owners(history)
            }
            if len(set(records.values())) > 1:
                name = history.mints[0].write.name
                found.append(f"{name} differs between {' and '.join(_grouped(records))}")
        for machine in self._world.machines.values():
            process = machine.process
            if process is None:
                found.append(f"{machine.name} does not run")
            else:
                found += self._unsettled(machine, process)
        return found

    def _record_at(self, machine: "Machine", key: bytes) -> bytes:
        holding = machine.process.store.get(key) if machine.process else None
        return record_of(holding) if holding else b""

    def _unsettled(self, machine: "Machine", process: "Process") -> list[str]:
        """What one node has yet to find out."""
        node = process.node
        found: list[str] = []
        if node.catch_up.count:
            found.append(f"{machine.name} is behind in {node.catch_up.count} partitions")
        trees = node.holdings.trees
        if trees.stale_count:
            found.append(f"{machine.name} has {trees.stale_count} leaves to count")
        else:
            counted = Trees()
            start = SPACE_RECORDS
            while rows := process.store.scan(start, SPACE_HINTS, 1 << 30):
                for key, holding in rows:
                    counted.change(key, None, holding)
                start = rows[-1][0] + b"\0"  # A list ends early where values are large.
            if counted.leaves != trees.leaves:
                found.append(f"the leaves of {machine.name} are not what its records make")
        if process.env.counters.leaves_mended:
            found.append(f"{machine.name} had leaves that were wrong, and did not know it")
        for talk in node.exchange.talks.values():
            if talk.equal_since < 0:
                other = self._world.machines[talk.peer.member].name
                found.append(f"{machine.name} does not know itself equal to {other}")
        return found

    # The end.

    def judge_end(self) -> int:
        """Judge the healed world; return how many writes were lost outside the promise."""
        outside = 0
        for key in sorted(self._history.keys):
            history = self._history.keys[key]
            first = history.mints[0].write
            if first.table.doomed:
                continue
            if first.table.name in self.lost_tables or self.is_rotten(first.name):
                outside += len(history.acked)
                continue
            record = self._judge_equality(history)
            for write in history.acked:
                outside += self._judge_survival(write, record)
        return outside

    def _judge_survival(self, write: Write, record: bytes) -> bool:
        """Look for one acknowledged write in the final record; True if it went as it might."""
        reaped = self._history.keys[write.key].reaped
        covered = [
            mint
            for mint in write.mints
            if reaped & mint.bit or (record and self._history.covers(record, mint))
        ]
        for copy in write.copies:
            if copy.alive and copy.mint not in covered:
                self._world.fail(
                    f"lost: {write.text} was acknowledged, and {copy.machine.name} held it"
                )
                return False
        return not covered

    def is_rotten(self, name: str) -> bool:
        """Whether no owner has a good copy of a key and at least one a damaged one.

        Such a key stays unreadable by all its owners until it is written again.
        """
        for history in self._history.keys.values():
            if history.mints[0].write.name == name:
                held = [
                    machine.process.store.get(history.key)
                    for machine in self._owners(history)
                    if machine.process is not None
                ]
                return b"" in held and not any(held)
        return False

    def _owners(self, history: KeyHistory) -> "list[Machine]":
        owners = self._world.ring.owners_of_engine_key(history.key)
        return [self._world.machines[owner] for owner in owners]

    def judge_drop(self, name: str) -> None:
        """Nothing may be left anywhere of a table that was dropped, if somebody still knows it."""
        if self._world.may_forget_tables:
            return
        for history in self._history.keys.values():
            first = history.mints[0].write
            if first.table.name != name:
                continue
            for machine in self._owners(history):
                process = machine.process
                if process is not None and process.store.get(history.key) is not None:
                    self._world.fail(f"undead: {machine.name} still holds {first.name}")

    def _judge_equality(self, history: KeyHistory) -> bytes:
        """Compare all owners' records of one key; return the record."""
        world = self._world
        groups: dict[tuple[bytes, ...], list[str]] = {}
        record = b""
        for machine in self._owners(history):
            holding = machine.process.store.get(history.key) if machine.process else None
            held = record_of(holding) if holding else b""
            record = record or held
            groups.setdefault(self._worth(history, held), []).append(machine.name)
        name = history.mints[0].write.name
        if len(groups) > 1:
            sides = "; ".join(", ".join(names) for names in groups.values())
            world.fail(f"unequal: after all was read and mended {name} differs between {sides}")
        if record and history.lww:
            self._judge_winner(history, name, record)
        elif record:
            covered = history.mask_of(seen_of(record)) | history.reaped
            shown = 0
            for dot in alive(record):
                mint = self._history.dots.get(dot)
                shown |= mint.bit if mint is not None else 0
            self._judge_shown(history, name, covered, shown)
        return record

    def _worth(self, history: KeyHistory, record: bytes) -> tuple[bytes, ...]:
        """What a record says beyond what some owner has let go of; usually all of it.

        Rounds go from owner to owner, and one may be under way when the judge looks.
        """
        if not history.reaped or not record:
            return (record,) if record else ()
        seen = history.mask_of_record(record) & ~history.reaped
        values = split_values(record)
        if not seen and all(end.tombstone or end.expiry for end in map(Value, values)):
            return ()
        return (b"%x" % seen, *values)

    def _judge_winner(self, history: KeyHistory, name: str, record: bytes) -> None:
        order = order_of(record)
        mint = self._history.dots.get(order[1])
        if mint is None or mint.write.key != history.key:
            self._world.fail(f"strange value: {name} ends as a value that nobody wrote")


def _grouped(records: dict[str, bytes]) -> list[str]:
    """The names of those that hold the same, group by group."""
    groups: dict[bytes, list[str]] = {}
    for name, record in records.items():
        groups.setdefault(record, []).append(name)
    return [", ".join(names) for names in groups.values()]


def _held_before(history: KeyHistory, started_at: int, replicas: tuple[int, ...]) -> Iterator[Copy]:
    """Copies that were acknowledged to a client before a get began, and that it must have met."""
    for write in history.acked:
        if write.acked_at <= started_at:
            for copy in write.copies:
                if copy.alive and copy.machine.member in replicas and copy.taken_at <= started_at:
                    yield copy
