"""A run as text and as a hash: two runs of one seed must not differ in a single line.

Every line goes into the hash; the text is kept only when somebody wants to read it.
"""

from hashlib import blake2b
from typing import Final

FLUSH_LINES: Final = 256


class Trace:
    """What happened, line by line, each with its time in virtual microseconds.

    Where it is kept, remarks for people stand in place of lines that only tell runs apart.
    """

    __slots__ = ("_hash", "_pending", "keep", "lines")

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.lines: list[str] = []
        self._pending: list[str] = []
        self._hash = blake2b(digest_size=16)

    def add(self, now: int, text: str) -> None:
        line = f"{now} {text}"
        self._pending.append(line)
        if len(self._pending) >= FLUSH_LINES:
            self._flush()
        if self.keep:
            self.lines.append(line)

    def stamp(self, now: int, text: str) -> None:
        """A line for machines alone: it is hashed and not kept."""
        self._pending.append(f"{now} {text}")
        if len(self._pending) >= FLUSH_LINES:
            self._flush()

    def remark(self, now: int, text: str) -> None:
        """A line for people alone: it is kept and not hashed."""
        self.lines.append(f"{now} {text}")

    def _flush(self) -> None:
        self._hash.update("\n".join(self._pending).encode())
        self._hash.update(b"\n")
        self._pending.clear()

    @property
    def digest(self) -> str:
        """The hash of every line so far."""
        if self._pending:
            self._flush()
        return self._hash.hexdigest()

    def text(self) -> str:
        """The lines kept, with times in seconds for people."""
        shown = []
        for line in self.lines:
            time, _, rest = line.partition(" ")
            seconds, micros = divmod(int(time), 1_000_000)
            shown.append(f"{seconds:4d}.{micros:06d}  {rest}")
        return "\n".join(shown)
