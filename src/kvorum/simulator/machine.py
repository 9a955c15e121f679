"""One member's computer: what outlives its processes, and what can befall it.

Disk and engine outlive every process; a power loss takes what was not synced. The clock that
people see can be wrong and can jump. A process that dies is started again by whoever decides
so, a fault or the end of the run.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from kvorum.model.hashing import SPACE_RECORDS
from kvorum.simulator.disk import Disk
from kvorum.simulator.points import SimulatedFaults
from kvorum.simulator.process import Process
from kvorum.storage.engine import EngineFull, StorageError
from kvorum.storage.memory import MemoryEngine
from kvorum.storage.replay import segment_number
from kvorum.storage.store import open_store

if TYPE_CHECKING:
    from kvorum.simulator.key_history import Copy
    from kvorum.simulator.world import World

EPOCH: Final = 1_767_225_600_000_000  # wall time when a world begins: 2026-01-01
START_RETRY: Final = 300_000  # a supervisor's pause after a start that failed
PLENTY: Final = 1 << 40


class SimulatedEngine(MemoryEngine):
    """An engine that may have no room for a while."""

    __slots__ = ("full",)

    def __init__(self, durable: bool) -> None:
        super().__init__(durable)
        self.full = False

    def commit(
        self,
        drops: list[tuple[bytes, bytes]],
        deletes: list[bytes],
        puts: list[tuple[bytes, bytes]],
    ) -> None:
        if self.full and self.capabilities.durable:  # Memory is not what runs out here.
            raise EngineFull("the engine has no room")
        super().commit(drops, deletes, puts)


class Snapshot:
    """What a machine's disk held of all up to one moment, to be restored later."""

    __slots__ = ("disk", "losses", "records", "taken_at")

    def __init__(
        self, disk: Disk, records: dict[bytes, bytes], taken_at: int, losses: list[tuple[int, int]]
    ) -> None:
        self.disk = disk
        self.records = records
        self.taken_at = taken_at
        self.losses = losses  # that the disk had suffered by then


class Machine:
    """One computer; ``process`` is what runs on it now."""

    def __init__(self, world: "World", member: int, volatile: bool) -> None:
        self.world = world
        self.member = member
        known = world.ring.member(member)
        assert known is not None
        self.name = known.name
        self.volatile = volatile
        self.random = world.schedule.random_for(f"machine/{member}")
        self.disk = Disk()
        self.engine = SimulatedEngine(durable=True)
        self.faults = SimulatedFaults(self)
        self.process: Process | None = None
        self.wanted = True  # it shall run; after a death somebody starts it again
        self.paused = False
        self.when_resumed: list[Callable[[], None]] = []
        self.skew = 0  # microseconds that the wall clock here is ahead
        self.slowness = 1  # of the disk
        self.copies: list[Copy] = []
        self.touched_at = -1  # when a process of ours last ended
        self.power_lost_at = -1
        self.log_damaged = False  # a bit of the log was flipped
        self.losses: list[tuple[int, int]] = []  # what came after a moment was gone at another
        self.destroyed_at = -1  # when something that was on the disk was last taken away

    def draw(self, size: int) -> bytes:
        return self.world.schedule.random_for(f"ids/{self.member}").randbytes(size)

    def wall(self) -> int:
        return EPOCH + self.world.schedule.now + self.skew

    def tell(self, text: str) -> None:
        self.world.schedule.tell(f"{self.name}: {text}")

    def sync_delay(self) -> int:
        base = self.world.plan.disk_delay
        if self.world.plan.steady:
            return base * self.slowness
        delay = base // 2 + self.random.randrange(base)
        if self.random.random() < 0.02:
            delay *= 10
        return delay * self.slowness

    # Starts and stops.

    def start(self) -> None:
        """Start the node, if it is not running; try again later if the disk will not have it."""
        if self.process is not None or not self.wanted:
            return
        world = self.world
        plan = world.plan
        world.network.power_on(self.member)
        if self.volatile:
            self.engine = SimulatedEngine(durable=False)
        try:
            store = open_store(
                None if self.volatile else self.disk,
                self.engine,
                cluster_id=world.ring.cluster_id,
                member_id=self.member,
                member_name=self.name,
                draw=self.draw,
                freeze_bytes=plan.freeze_bytes,
                limit_bytes=plan.limit_bytes,
                faults=self.faults,
            )
        except OSError as error:
            self.tell(f"cannot start: {error}")
            world.count("starts that failed")
            world.schedule.after(START_RETRY, self.start)
            return
        except StorageError as error:
            if self.log_damaged:
                self.tell(f"gets a new disk: {error}")
                world.count("damaged logs noticed")
                self.wipe()
                self.start()
                return
            world.fail(f"no start: {self.name}: {error}")
            self.wanted = False
            return
        self.tell(
            f"starts as {store.store_id.hex()} ({'clean' if store.clean_start else 'new id'})"
        )
        self.log_damaged = False
        world.history.on_start(self)
        self.process = process = Process(self, store, plan.config)
        process.begin()

    def kill(self) -> None:
        """The process dies at once; what it wrote to its files stays."""
        self._end(power=False)

    def restart_if_failed(self) -> None:
        """Somebody has seen that the node will not go on."""
        if self.process is not None and self.process.store.failed:
            self.kill()
        self.start()

    def lose_power(self) -> None:
        """The machine stops; what was not synced is gone, in whole or in part."""
        self._end(power=True)
        self.disk.crash(self.random)
        self.world.network.power_off(self.member)

    def _end(self, power: bool) -> None:
        process = self.process
        self.resume()
        self.world.history.on_death(self, power)
        self.touched_at = self.world.schedule.now
        if power:
            self.power_lost_at = self.world.schedule.now
        if process is None:
            return
        self.tell("loses power" if power else "is killed")
        process.leave(power)
        process.store.close_abruptly()
        self.process = None

    def stop_clean(self) -> bool:
        """Stop as an operator would; False if it could not leave its marker."""
        process = self.process
        if process is None or self.paused:
            return False
        clean = process.stop_clean()
        self.tell("stops cleanly" if clean else "stops, without a marker")
        self.world.history.on_death(self, False)
        self.touched_at = self.world.schedule.now
        self.process = None
        return clean

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            jobs, self.when_resumed = self.when_resumed, []
            if self.process is not None:
                self.process.wake(self.world.schedule.now)
            for job in jobs:
                job()

    # What befalls the disk.

    def wipe(self) -> None:
        """A new, empty disk; the process must not be running."""
        assert self.process is None
        self.disk = Disk()
        self.log_damaged = False
        self.engine = SimulatedEngine(durable=True)
        self._destroyed()

    def snapshot(self) -> Snapshot:
        """The disk as it is now. What the log has refused, or is yet to be given, is not on it."""
        moment = self.world.schedule.now
        process = self.process
        if process is not None and process.store.written_position < process.store.position:
            moment = process.logged_at
        return Snapshot(self.disk.copied(), dict(self.engine.records), moment, self.losses[:])

    def restore(self, snapshot: Snapshot) -> None:
        """Put an older state of the disk back, as a restored backup would."""
        assert self.process is None
        self.disk = snapshot.disk
        self.log_damaged = False
        self.disk.free_bytes = PLENTY
        self.engine = SimulatedEngine(durable=True)
        self.engine.commit([], [], sorted(snapshot.records.items()))
        self.losses = snapshot.losses[:]  # What was lost since then, the backup may have.
        self._destroyed(snapshot.taken_at)

    def flip_log_bit(self, random: Random) -> str:
        """Flip a bit somewhere in the log of a node that is down; return where."""
        assert self.process is None
        names = [name for name in self.disk.names() if segment_number(name) >= 0]
        if not names:
            return ""
        name = random.choice(names)
        at = self.disk.flip(name, random)
        self.log_damaged = True
        self._destroyed()
        return f"{name} at {at}"

    def _destroyed(self, since: int = -1) -> None:
        """What came to this disk after a moment is gone."""
        now = self.world.schedule.now
        self.destroyed_at = now
        self.losses.append((since, now))
        self.world.history.on_destroyed(self, since=since)

    def has_lost(self, moment: int) -> bool:
        """What its disk held of this moment is gone again."""
        return any(since < moment <= until for since, until in self.losses)

    def rot(self, key: bytes) -> None:
        """Flip a bit of one record where it lies in the engine."""
        stored = bytearray(self.engine.records[key])
        at = self.random.randrange(len(stored))
        stored[at] ^= 1 << self.random.randrange(8)
        self.engine.records[key] = bytes(stored)
        self.destroyed_at = self.world.schedule.now
        self.world.history.on_destroyed(self, SPACE_RECORDS + key[1:])
