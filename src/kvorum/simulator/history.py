"""What truly happened in a world, as no node in it can know: the ground that checkers stand on.

Every write to every store is watched. So the history knows each dot when it is minted, for
which put, and what that put's writer had seen (its context); which copies of an acknowledged
write exist, where, and how durable they are in fact; and what each fault has destroyed.
What is told of one key stands in ``key_history.py``.
"""

from typing import TYPE_CHECKING

from kvorum.model.context import context_seen
from kvorum.model.hashing import SPACE_HINTS, SPACE_RECORDS
from kvorum.model.hint import Hint, decode_hint, hinted_holding
from kvorum.model.holding import record_of
from kvorum.model.record import LWW, Value, order_of, split_values, supersedes
from kvorum.model.siblings import alive, seen_of
from kvorum.protocol.generations import SPACE_GENERATIONS
from kvorum.simulator.key_history import REFUSED, Copy, KeyHistory, Mint, Write

if TYPE_CHECKING:
    from kvorum.simulator.machine import Machine
    from kvorum.simulator.process import Process
    from kvorum.simulator.world import World


class History:
    """The truth about one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.writes: dict[bytes, Write] = {}
        self.keys: dict[bytes, KeyHistory] = {}
        self.dots: dict[bytes, Mint] = {}
        self._records: dict[bytes, tuple[bytes, ...]] = {}  # seen before -> its dots alive
        self._entered: dict[bytes, int] = {}  # partition and generation -> when first entered
        # (member, key) -> what of its hints has gone to which owner (None: promises nothing), when.
        self.went_home: dict[tuple[int, bytes], list[tuple[Machine | None, bytes, int]]] = {}

    def sent(self, write: Write) -> None:
        self.writes[write.put_id] = write

    # Watching stores.

    def watch(self, process: "Process") -> None:
        """See every record that this process writes from now on."""
        store = process.store
        put, delete = store.put, store.delete

        def watched(key: bytes, holding: bytes) -> None:
            if key[0] == 1:
                old = store.get(key)
                put(key, holding)
                self._on_record(process, key, record_of(old) if old else b"", record_of(holding))
            elif key[0] == 2:
                old = store.get(key)
                put(key, holding)
                self._on_hint(process, SPACE_RECORDS + key[1:], old, decode_hint(holding))
            else:
                put(key, holding)
                if key.startswith(SPACE_GENERATIONS):
                    partition = key[len(SPACE_GENERATIONS) :]
                    self._entered.setdefault(partition + holding[:8], self._world.schedule.now)

        def watched_delete(key: bytes) -> None:
            if key[0] == 1:
                old = store.get(key)
                delete(key)
                self._on_forgotten(process, key, record_of(old) if old else b"")
            elif key[0] == 2:
                old = store.get(key)
                delete(key)
                if old:
                    self._on_hint(process, SPACE_RECORDS + key[1:], old, None)
                process.hints_shed = process.env.counters.hints_shed  # Also of a damaged one.
            else:
                delete(key)

        store.put = watched
        store.delete = watched_delete

    def _on_forgotten(self, process: "Process", key: bytes, old: bytes) -> None:
        """A store has let go of a record: of a dropped table, set aside, or reaped by proof."""
        history = self.keys.get(key)
        if history is None or not old:
            return
        if history.mints[0].write.table.name in self._world.checks.drop_begun:
            return
        machine = process.machine
        generations = process.node.generations
        if self._world.story is not None:
            self._world.story.forgotten(machine.name, key, old)
        if generations.current[generations.partition_of(key)] < 0:
            if machine.destroyed_at < 0:
                self._world.fail(
                    f"set aside: {machine.name} puts away what it holds, and never lost anything"
                )
            self.on_destroyed(machine, key)
            return
        for value in map(Value, split_values(old)):
            if not value.tombstone and not value.expiry:
                known = self.dots[value.dot].write.text
                self._world.fail(f"reaped alive: {machine.name} lets go of {known}")
        self._judge_proof(process, key, old)
        self._world.count("records reaped")
        history.reap(history.mask_of_record(old), self._world.schedule.now)

    def _judge_proof(self, process: "Process", key: bytes, old: bytes) -> None:
        """All other owners had this version when they entered: none may know less by now.

        But for those that have let go of it before, and may have begun anew, and for those whose
        disk has lost something since.
        """
        let_go = self.keys[key].let_go
        let_go[process.machine.member, old] = None
        generations = process.node.generations
        partition = generations.partition_of(key)
        stood = partition.to_bytes(2, "big") + generations.known(partition).to_bytes(8, "little")
        stated_after = self._entered.get(stood, self._world.schedule.now)
        for owner in self._world.ring.owners_of_engine_key(key):
            machine = self._world.machines[owner]
            other = machine.process
            if machine.has_lost(stated_after):
                continue
            if machine.volatile and machine.touched_at >= stated_after:
                continue
            held = other.store.get(key) if other is not None else None
            if (owner, old) not in let_go and held and not supersedes(record_of(held), old):
                self._world.fail(
                    f"reaped unproven: {process.machine.name} lets go of a record that "
                    f"{machine.name} has never seen"
                )

    def _on_hint(
        self, process: "Process", key: bytes, old: bytes | None, hint: Hint | None
    ) -> None:
        """A hint was written, or is gone (None); whom it is no longer owed to must have it."""
        self._world.checks.judge_bounds(process)
        before = decode_hint(old) if old else None
        record = record_of(before.holding) if before is not None else b""
        if hint is not None:
            note = ", ".join(self._world.machines[owner].name for owner in hint.owners)
            self._on_record(process, key, record, record_of(hint.holding), f"  (hint for {note})")
        if before is None:
            return
        generations = process.node.generations
        if hint is None and generations.current[generations.partition_of(key)] < 0:
            self.on_destroyed(process.machine, key)  # Set aside, with all else of the partition.
            return
        if hint is None and process.env.counters.hints_shed != process.hints_shed:
            self._judge_shed(process, key, before)
            return
        for owner in before.owners:
            if hint is None or owner not in hint.owners:
                self._on_gone_home(process, key, record, self._world.machines[owner])
        if hint is None:
            process.machine.copies = [
                copy for copy in process.machine.copies if not self._ends_with_hint(copy, key)
            ]

    def _judge_shed(self, process: "Process", key: bytes, hint: Hint) -> None:
        """A hint was let go for want of room: owners must hold it as was promised."""
        record = record_of(hint.holding)
        write = self.keys[key].mints[0].write
        asked_at = process.moment_of(process.node.shedding.asked_at)
        held = on_disk = 0
        for owner in self._world.ring.owners_of_engine_key(key):
            machine = self._world.machines[owner]
            running = machine.process
            if running is None or machine.destroyed_at >= 0:
                held, on_disk = held + 1, on_disk + 1  # It may well have had it when it was asked.
                continue
            if self._missing_at(running, key, record):
                # A volatile one may have had it when it was asked, and have forgotten it since.
                held += machine.volatile and running.began_at > asked_at
                continue
            held += 1
            if not machine.volatile and not self._is_unsynced(running, record):
                on_disk += 1
                for copy in process.machine.copies:
                    if copy.mint.write.key == key and self.covers(record, copy.mint):
                        self.take_home(copy.mint, machine)
        too_few = held < hint.w or on_disk < hint.disks
        if too_few and write.table.name not in self._world.checks.drop_begun:
            self._world.fail(
                f"hint shed: {process.machine.name} let go of {write.name}, promised to {hint.w} "
                f"nodes and {hint.disks} disks; {held} owners have it, {on_disk} on a disk"
            )
        gone = self.went_home.setdefault((process.machine.member, key), [])
        gone.append((None, record, 0))
        process.machine.copies = [
            copy for copy in process.machine.copies if not self._ends_with_hint(copy, key)
        ]

    def _ends_with_hint(self, copy: Copy, key: bytes) -> bool:
        if copy.mint.write.key != key:
            return False
        copy.alive = False
        return True

    def _on_gone_home(
        self, process: "Process", key: bytes, record: bytes, owner: "Machine"
    ) -> None:
        """A hint was let go for this owner: the owner has it now, and answers for it."""
        if self._world.story is not None:
            self._world.story.let_go(process.machine.name, key, owner.name)
        known = self.keys.get(key)
        if known is None or known.mints[0].write.table.name in self._world.checks.drop_begun:
            return
        running = owner.process
        intact = not owner.volatile and owner.destroyed_at < 0
        if (
            running is not None
            and intact
            and (self._missing_at(running, key, record) or self._is_unsynced(running, record))
        ):
            self._world.fail(
                f"hint dropped: {process.machine.name} let go of {known.mints[0].write.name} "
                f"before {owner.name} had it on its disk"
            )
            return
        gone = self.went_home.setdefault((process.machine.member, key), [])
        if not intact:
            gone.append((None, record, 0))
            return  # What it had it may have lost again; nothing is promised by it.
        gone.append((owner, record, self._world.schedule.now))
        for copy in process.machine.copies:
            if copy.mint.write.key == key and self.covers(record, copy.mint):
                self.take_home(copy.mint, owner)

    def _missing_at(self, owner: "Process", key: bytes, record: bytes) -> int:
        """The dots of a hinted record that its owner has not seen.

        What a round has let go of, a deleted key or a dead actor, is owed to nobody.
        """
        known = self.keys[key]
        held = owner.store.get(key)
        there = known.mask_of_record(record_of(held)) if held else 0
        return known.mask_of_record(record) & ~there & ~known.reaped

    def _is_unsynced(self, process: "Process", record: bytes) -> bool:
        durable = process.store.durable_position
        return any(process.held.get(dot, 0) > durable for dot in self._dots_of(record))

    def _dots_of(self, record: bytes) -> list[bytes]:
        return [encoded[:16] for encoded in split_values(record)]

    def take_home(self, mint: Mint, owner: "Machine") -> None:
        """An owner has on its disk what a fallback had acknowledged."""
        copy = Copy(owner, mint, -1, True, self._world.schedule.now)
        owner.copies.append(copy)
        mint.write.copies.append(copy)

    def _on_record(
        self, process: "Process", key: bytes, old: bytes, record: bytes, note: str = ""
    ) -> None:
        if old and not supersedes(record, old):
            self._judge_less(process, key, old, record)
        dots = self._records.get(record)
        if dots is None:
            dots = self._records[record] = self._take_record(process, key, old, record)
        if self._world.story is not None:
            self._world.story.stored(process.machine.name, key, record, note)
        position = process.store.position
        held = process.held
        before = self._records.get(old, ())
        for dot in dots:
            if dot not in before:  # Else it came in earlier, perhaps in an earlier run.
                held.setdefault(dot, position)

    def _judge_less(self, process: "Process", key: bytes, old: bytes, record: bytes) -> None:
        """A record may know less than before only of actors that a round has retired."""
        history = self.keys[key]
        if not history.lww and alive(old) == alive(record):
            self._world.count("records with retired actors")
            missing = history.mask_of_record(old) & ~history.mask_of_record(record)
            history.reap(missing, self._world.schedule.now)
            return
        self._world.fail(
            f"backwards: {process.machine.name} replaced a record by one that knows less"
        )

    def _take_record(
        self, process: "Process", key: bytes, old: bytes, record: bytes
    ) -> tuple[bytes, ...]:
        dots: list[bytes] = []
        for encoded in split_values(record):
            dot = encoded[:16]
            dots.append(dot)
            known = self.dots.get(dot)
            if known is not None:
                self._judge_return(process, key, known)
            if known is None:
                self._on_mint(process, key, old, record, dot, encoded)
            elif known.encoded != encoded or known.write.key != key:
                self._world.fail(
                    f"dot twice: {process.machine.name} holds {dot.hex()} with another value than "
                    f"{known.write.text}"
                )
        return tuple(dots)

    def _judge_return(self, process: "Process", key: bytes, mint: Mint) -> None:
        """What was reaped must not be written again anywhere: that is what rounds are for."""
        history = self.keys.get(key)
        ends = Value(mint.encoded)
        if history and history.reaped & mint.bit and not ends.tombstone and not ends.expiry:
            self._world.fail(
                f"undead: {process.machine.name} takes {mint.write.text}, which was reaped"
            )

    def _on_mint(
        self, process: "Process", key: bytes, old: bytes, record: bytes, dot: bytes, encoded: bytes
    ) -> None:
        world = self._world
        value = Value(encoded)
        write = self.writes.get(value.put_id)
        if write is None or value.data != write.value or value.tombstone != write.tombstone:
            world.fail(f"strange value: {process.machine.name} wrote {value.data!r}, nobody's put")
            return
        if dot[:8] != process.store.store_id:
            world.fail(
                f"strange dot: {process.machine.name} brings in {dot.hex()} for the first time"
            )
        if write.outcome == REFUSED:
            world.fail(f"refused appears: {write.text} was refused and is written now")
        history = self.keys.get(key)
        if history is None:
            history = self.keys[key] = KeyHistory(key, bool(record[1] & LWW))
        mint = Mint(
            dot, len(history.mints), encoded, write, process.machine.member, world.schedule.now
        )
        history.mints.append(mint)
        self.dots[dot] = mint
        write.key = key
        write.mints.append(mint)
        if not history.lww:
            self._note_past(process, history, mint, old, record)
        world.schedule.tell(f"{process.machine.name} mints {dot.hex()} for {write.text}")

    def _note_past(
        self, process: "Process", history: KeyHistory, mint: Mint, old: bytes, record: bytes
    ) -> None:
        write = mint.write
        if write.read_first:
            # The node itself has read, so only its record tells what it had seen.
            past = history.mask_of(seen_of(record)) & ~mint.bit
            for dot in alive(record):
                known = self.dots.get(dot)
                if known is not None:
                    past &= ~known.bit
            mint.past = past
        elif write.context:
            mint.past = history.mask_of(context_seen(write.context)) & ~mint.bit
        history.superseded |= mint.past
        if old:
            kept = alive(record)
            for dot in alive(old):
                known = self.dots.get(dot)
                if dot not in kept and known is not None and not mint.past & known.bit:
                    self._world.fail(
                        f"unseen destroyed: {write.text} at {process.machine.name} removed "
                        f"{known.write.text}, which its writer had not seen"
                    )
        own = history.past_of_client.get(write.client, 0)
        if own & ~mint.past or not own:
            history.loose += 1
        history.past_of_client[write.client] = own | mint.bit

    # Copies that were acknowledged, and what becomes of them.

    def covers(self, record: bytes, mint: Mint) -> bool:
        """Whether a record has seen this dot, alive in it or not."""
        if record[1] & LWW:
            return order_of(record) >= mint.order
        return seen_of(record).covers(mint.dot)

    def holds(self, process: "Process", mint: Mint) -> bool:
        holding = process.store.get(mint.write.key)
        if self.keys[mint.write.key].reaped & mint.bit:
            return True  # What it stood for has been proven to hold everywhere.
        if holding and self.covers(record_of(holding), mint):
            return True
        hint = process.store.get(SPACE_HINTS + mint.write.key[1:])
        return bool(hint) and self.covers(record_of(hinted_holding(hint or b"")), mint)

    def position_of(self, process: "Process", mint: Mint) -> int:
        """How far the log must be on the disk for this copy to be; -1: it was there at the start.

        What was never alive here is covered by what came in its place.
        """
        if mint.dot in process.held:
            return process.held[mint.dot]
        held = process.store.get(mint.write.key)
        hint = process.store.get(SPACE_HINTS + mint.write.key[1:])
        records = [record_of(held)] if held else []
        if hint:
            records.append(record_of(hinted_holding(hint)))
        return max(
            (
                process.held.get(dot, -1)
                for record in records
                if self.covers(record, mint)
                for dot in self._dots_of(record)
            ),
            default=-1,
        )

    def on_start(self, machine: "Machine") -> None:
        """The log has been replayed and synced: what is there is durable."""
        for copy in machine.copies:
            copy.durable = True
            copy.position = -1

    def on_death(self, machine: "Machine", power: bool) -> None:
        """A process ended; with ``power``, everything unsynced went with it."""
        process = machine.process
        for copy in machine.copies:
            if machine.volatile:
                copy.alive = False
            elif copy.durable:
                continue
            elif process is None or copy.position < 0:
                # Written by an earlier run and never synced since.
                copy.alive = copy.alive and not power
            else:
                store = process.store
                reached = store.durable_position if power else store.written_position
                copy.alive = reached >= copy.position
                copy.durable = power
                copy.position = -1
        self._forget_dead(machine)

    def on_destroyed(self, machine: "Machine", key: bytes = b"", since: int = -1) -> None:
        """What a machine held is gone: all of it, one key, or what came after a moment."""
        for copy in machine.copies:
            if (not key or copy.mint.write.key == key) and copy.taken_at > since:
                copy.alive = False
        self._forget_dead(machine)
        if key:
            return
        for one in self.keys.values():
            owners = self._world.ring.owners_of_engine_key(one.key)
            if machine.member in owners:
                machines = [self._world.machines[owner] for owner in owners]
                one.forget_reaps(machines, self._world.schedule.now)

    def _forget_dead(self, machine: "Machine") -> None:
        machine.copies = [copy for copy in machine.copies if copy.alive]
