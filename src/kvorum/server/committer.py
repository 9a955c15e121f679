"""Two threads that make writes durable and move them into the engine, off the loop.

The *syncer* runs one sync after another while there is something to sync; whatever arrived
meanwhile shares the next (group commit without a timer). The *mover* commits frozen overlays in
slices. Each works on tickets that the loop made and sends its result back to the loop, which
alone touches buffer and log; so two slow disks delay durability marks and nothing else.

No space in the engine is survived: the slice is tried again with growing pauses while the
overlay fills and the buffer refuses puts. Everything else that fails is final and is told to
the buffer, which stops acknowledging.
"""

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

from kvorum.storage.buffer import Buffer, Frozen
from kvorum.storage.commit import Commit
from kvorum.storage.engine import EngineFull
from kvorum.storage.log import SyncTicket

FIRST_PAUSE_SECONDS: Final = 0.1
LAST_PAUSE_SECONDS: Final = 5.0
DISPOSE_KEYS: Final = 256

Job = Callable[[], None]
# Run a job on the loop; safe to call from a thread, and soon.
CallLoop = Callable[[Job], object]


class Committer:
    """Keeps one buffer's log synced and its overlay small. Made, woken and stopped on the loop."""

    def __init__(
        self,
        buffer: Buffer,
        call_loop: CallLoop,
        on_change: Callable[[], None],
    ) -> None:
        """Begin. ``on_change`` is called on the loop when positions moved or something failed."""
        self._buffer = buffer
        self._call_loop = call_loop
        self._on_change = on_change
        self._syncs: SimpleQueue[Job | None] = SimpleQueue()
        self._moves: SimpleQueue[Job | None] = SimpleQueue()
        self._results: SimpleQueue[Job] = SimpleQueue()  # threads -> loop
        self._moving = False
        self._stopping = Event()
        self.engine_complaint = ""  # Why the mover is waiting; empty when it is not.
        self._threads = [
            Thread(target=_work, args=(self._syncs,), name="kvorum-syncer", daemon=True),
            Thread(target=_work, args=(self._moves,), name="kvorum-mover", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Start whatever there is to do; called at the end of every turn, after its log write."""
        if self._stopping.is_set():
            return
        buffer = self._buffer
        if buffer.wants_freeze:
            buffer.freeze()
        ticket = buffer.begin_sync()
        if ticket is not None:
            self._syncs.put(partial(self._sync, ticket))
        if buffer.frozen is not None and not self._moving and not buffer.failed:
            self._begin_move()

    def _begin_move(self) -> None:
        frozen = self._buffer.committable
        if frozen is None:
            return
        self._moving = True
        if self._buffer.engine.capabilities.instant:
            commit = Commit(self._buffer.engine, frozen)
            self._call_loop(partial(self._move_on_loop, commit, frozen))
        else:
            self._moves.put(partial(self._move, frozen))

    # On the loop, with what the threads bring back.

    def _take_results(self) -> None:
        while not self._results.empty():
            self._results.get()()

    def _synced(self, ticket: SyncTicket, error: str) -> None:
        self._buffer.finish_sync(ticket, error)
        self._on_change()
        self.wake()

    def _moved(self, frozen: Frozen, error: str) -> None:
        self._moving = False
        self.engine_complaint = ""
        if error:
            self._buffer.fail(f"the engine has failed: {error}")
        else:
            self._buffer.retire()
            self._moves.put(partial(_dispose, frozen))
        self._on_change()
        self.wake()

    def _move_on_loop(self, commit: Commit, frozen: Frozen) -> None:
        """One slice a turn, for engines whose commits cost less than a thread's wake-up."""
        if self._stopping.is_set():
            self._moving = False
            return
        if not commit.done:
            commit.step()
            self._call_loop(partial(self._move_on_loop, commit, frozen))
        else:
            self._moved(frozen, "")

    def _complain(self, text: str) -> None:
        self.engine_complaint = text
        self._on_change()

    # In the threads.

    def _sync(self, ticket: SyncTicket) -> None:
        error = ""
        try:
            ticket.run()
        except OSError as failure:
            error = str(failure) or type(failure).__name__
        self._report(partial(self._synced, ticket, error))

    def _move(self, frozen: Frozen) -> None:
        error = ""
        pause = FIRST_PAUSE_SECONDS
        try:
            commit = Commit(self._buffer.engine, frozen)
            while not commit.done and not self._stopping.is_set():
                try:
                    commit.step()
                    pause = FIRST_PAUSE_SECONDS
                except EngineFull as full:
                    self._report(partial(self._complain, str(full)))
                    self._stopping.wait(pause)
                    pause = min(pause * 2, LAST_PAUSE_SECONDS)
            if not commit.done:
                return  # Stopped half way: the log still has all of it.
        except Exception as failure:  # Whatever it is, the overlay cannot go on its way.
            error = str(failure) or type(failure).__name__
        self._report(partial(self._moved, frozen, error))

    def _report(self, result: Job) -> None:
        self._results.put(result)
        self._call_loop(self._take_results)

    def stop(self) -> None:
        """Let the work under way end and the threads with it; blocks for at most a sync or slice.

        What they did is taken in before this returns; `Store.close_clean` syncs what is left.
        """
        self._stopping.set()
        self._syncs.put(None)
        self._moves.put(None)
        for thread in self._threads:
            thread.join()
        self._take_results()


def _work(jobs: "SimpleQueue[Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job()


def _dispose(frozen: Frozen) -> None:
    """Take a retired overlay apart a few keys at a time: freeing it at once would hold the loop."""
    overlay = frozen.overlay
    while overlay:
        for _ in range(min(DISPOSE_KEYS, len(overlay))):
            overlay.popitem()
