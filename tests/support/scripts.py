"""Golden scripts: short stories of a few nodes, with everything they say to each other.

A script is blocks of commands and, below a line of dashes, what they made happen; blank lines
part the blocks. Every hop takes one millisecond and every sync five, so the stories are the same
on every machine. The commands:

    cluster a b c  n=3 r=2 w=2 durability=one     nodes that know each other; first of all
                           [hints=200]            the bytes of hints that each of them keeps
    table latest lww                              one more table; then keys are latest:k
    put a k=1 [with X] [as Y] [w=3] [durability=all]     through node a; stops when a has begun
    get a k [as X] [r=3]                          X is the context that it brings
    delete a k [with X]                           without X the node reads first
    again X                                       asks once more for the put X, under its id
    deliver                                       lets four milliseconds pass
    pass 50ms | pass 2s | pass 30m                or as long as told
    cut a b | cut a | cut a > b                   between two, around one, one way
    heal | heal a > b                             all cuts and full disks, or the cut one way
    kill a | power a | stop a | wipe a            processes and machines
    start a | start a 60ms                        lets 900 milliseconds pass, or as long as told
    pause a | resume a | full a | rot a k         what else befalls them
    save a | restore a                            its disk is copied; and put back, the node is down
    show k                                        what each node holds, or keeps for others
    gossip                                        from here on, what members say of each other too
"""

from dataclasses import dataclass, field
from pathlib import Path

from kvorum.client.requests import Put
from kvorum.config import NodeConfig
from kvorum.model.hashing import engine_key
from kvorum.model.holding import record_of
from kvorum.model.quorum import Durability
from kvorum.model.tables import DEFAULT_TABLE_ID
from kvorum.simulator.machine import PLENTY, Snapshot
from kvorum.simulator.plan import Plan, TablePlan
from kvorum.simulator.run import Run
from kvorum.simulator.story import Story
from kvorum.simulator.workload import Operation, SimulatedClient
from kvorum.simulator.world import World

MILLISECOND = 1_000
BEGIN = 1_500  # microseconds in which a request reaches its node, and the node acts
DELIVER = 4_000
MEET = 300_000  # in which nodes connect
DASHES = "----"
NAMES = "abcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True)
class Block:
    """Some commands, and what is written below them."""

    comments: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def parse(text: str) -> list[Block]:
    blocks: list[Block] = []
    block = Block()
    below = False
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if block.commands or block.comments:
                blocks.append(block)
            block, below = Block(), False
        elif line == DASHES:
            below = True
        elif below:
            block.told.append(line)
        elif line.startswith("#"):
            block.comments.append(line)
        else:
            block.commands.append(line)
    return blocks


def render(blocks: list[Block]) -> str:
    parts = []
    for block in blocks:
        lines = [*block.comments, *block.commands]
        if block.commands:
            lines += [DASHES, *block.told]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def played(path: Path) -> str:
    """The script as it would be written now."""
    blocks = parse(path.read_text())
    stage = Stage()
    for block in blocks:
        if block.commands:
            for command in block.commands:
                stage.do(command)
            block.told = stage.take_lines()
    assert not stage.world.failures, stage.world.failures
    return render(blocks)


class Stage:
    """The cluster of one script."""

    world: World
    run: Run
    client: SimulatedClient

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._named: dict[str, Operation] = {}
        self._cuts: list[tuple[int, int]] = []  # sender, target; once for each cut
        self._saved: dict[str, Snapshot] = {}
        self._tables: dict[str, TablePlan] = {}
        self._exchange = ""  # "shown", or "off" where another repair is the story

    def take_lines(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def _tell(self, line: str) -> None:
        if " Exchange: " in line and self._exchange != "shown":
            return
        if not line.endswith("of control") and not line.endswith("of control  (cut)"):
            self._lines.append(line)

    def do(self, command: str) -> None:
        words = command.split()
        options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        plain = [word for word in words[1:] if "=" not in word]
        getattr(self, f"_do_{words[0]}")(plain, options)

    def _pass(self, microseconds: int) -> None:
        schedule = self.world.schedule
        schedule.run_until(schedule.now + microseconds)

    # The cluster.

    def _do_cluster(self, words: list[str], options: dict[str, str]) -> None:
        assert words == list(NAMES[: len(words)]), "nodes are called a, b, c, ..."
        self._exchange = options.get("exchange", "")
        n = int(options.get("n", "3"))
        table = TablePlan(
            "default", int(options.get("r", "2")), int(options.get("w", "2")),
            Durability[options.get("durability", "one").upper()], False,
        )  # fmt: skip
        config = NodeConfig()
        if "hints" in options:
            room = int(options["hints"])
            config = NodeConfig(hint_bytes_max=room, hint_bytes_per_peer_max=room)
        self._tables["default"] = table
        plan = Plan(
            seed=int(options.get("seed", "1")), members=len(words), n=n, partitions=8, volatile=(),
            tables=(table,), config=config, freeze_bytes=1 << 20, limit_bytes=4 << 20,
            delay=MILLISECOND, jitter=0, disk_delay=5 * MILLISECOND, client_timeout=20_000_000,
            steady=True,
        )  # fmt: skip
        self.run = Run(plan)
        self.world = self.run.world
        self.world.struck = True  # Whatever fails is what the script is about.
        self.world.start()
        self._pass(MEET)
        self.client = self.world.add_client()
        self.client.name = "client"
        self._pass(MEET)
        self._rest_exchange()
        self.world.story = Story(self.world, self._tell)

    def _do_table(self, words: list[str], options: dict[str, str]) -> None:
        default = self._tables["default"]
        table = TablePlan(words[0], default.r, default.w, default.durability, "lww" in words[1:])
        self._tables[table.name] = table
        assert self.run.ask(self.client, self.run.creation(table))
        self._pass(MEET)

    # Requests.

    def _operation(self, kind: str, name: str) -> Operation:
        table, _, key = name.rpartition(":")
        return Operation(self.client, kind, self._tables[table or "default"], key)

    def _member(self, name: str) -> int:
        return NAMES.index(name) + 1

    def _after(self, words: list[str], word: str) -> str:
        return words[words.index(word) + 1] if word in words else ""

    def _context(self, words: list[str]) -> bytes | None:
        name = self._after(words, "with")
        if not name:
            return None
        request = self._named[name].request
        assert request is not None
        context = request.outcome().context
        assert isinstance(context, bytes)
        return context

    def _begin(self, operation: Operation, words: list[str]) -> None:
        name = self._after(words, "as")
        if name:
            self._named[name] = operation
        self._pass(BEGIN)

    def _do_get(self, words: list[str], options: dict[str, str]) -> None:
        operation = self._operation("get", words[1])
        r = int(options["r"]) if "r" in options else None
        target = self._member(words[0])
        self.client.step(lambda session: self.client.get(operation, r, target))
        self._begin(operation, words)

    def _do_put(self, words: list[str], options: dict[str, str]) -> None:
        ((name, value),) = [
            (name, value) for name, value in options.items() if name not in ("w", "durability")
        ]
        self._write("put", words[0], name, value.encode(), words, options)

    def _do_delete(self, words: list[str], options: dict[str, str]) -> None:
        kind = "delete" if "with" in words else "remove"
        self._write(kind, words[0], words[1], b"", words, options)

    def _write(
        self, kind: str, node: str, name: str, value: bytes, words: list[str],
        options: dict[str, str],
    ) -> None:  # fmt: skip
        operation = self._operation(kind, name)
        context = self._context(words)
        w = int(options["w"]) if "w" in options else None
        target = self._member(node)
        self.client.step(
            lambda session: self.client.write(
                operation, context, value, w, options.get("durability"), False, target
            )
        )
        assert isinstance(operation.request, Put)
        operation.request.held = True
        self._begin(operation, words)

    def _do_again(self, words: list[str], options: dict[str, str]) -> None:
        operation = self._named[words[0]]
        put = operation.request
        assert isinstance(put, Put)
        self.client.pending[operation] = None
        self.client.step(lambda session: session.resubmit(put))
        self._pass(BEGIN)

    # Time.

    def _do_deliver(self, words: list[str], options: dict[str, str]) -> None:
        self._pass(DELIVER)

    def _do_pass(self, words: list[str], options: dict[str, str]) -> None:
        number = int(words[0].rstrip("ms"))
        unit = words[0].lstrip("0123456789")
        self._pass(number * {"ms": 1_000, "s": 1_000_000, "m": 60_000_000}[unit])

    # What befalls them.

    def _do_cut(self, words: list[str], options: dict[str, str]) -> None:
        here = self._member(words[0])
        others = [self._member(word) for word in words[1:] if word != ">"]
        if not others:
            others = [member for member in self.world.machines if member != here]
        pairs = [(here, other) for other in others]
        if ">" not in words:
            pairs += [(other, here) for other in others]
        self.world.network.cut(pairs)
        self._cuts += pairs

    def _do_heal(self, words: list[str], options: dict[str, str]) -> None:
        if words:
            pair = self._member(words[0]), self._member(words[2])
            self._cuts.remove(pair)
            self.world.network.heal([pair])
            return
        self.world.network.heal(self._cuts)
        self._cuts.clear()
        for machine in self.world.machines.values():
            machine.disk.free_bytes = PLENTY

    def _do_kill(self, words: list[str], options: dict[str, str]) -> None:
        self.world.machines[self._member(words[0])].kill()

    def _do_power(self, words: list[str], options: dict[str, str]) -> None:
        self.world.machines[self._member(words[0])].lose_power()

    def _do_stop(self, words: list[str], options: dict[str, str]) -> None:
        assert self.world.machines[self._member(words[0])].stop_clean()

    def _do_start(self, words: list[str], options: dict[str, str]) -> None:
        self.world.machines[self._member(words[0])].start()
        self._rest_exchange()
        if words[1:]:
            self._do_pass(words[1:], options)
        else:
            self._pass(3 * MEET)

    def _rest_exchange(self) -> None:
        if self._exchange == "off":
            for machine in self.world.machines.values():
                if machine.process is not None:
                    machine.process.node.exchange.talks.clear()

    def _do_wipe(self, words: list[str], options: dict[str, str]) -> None:
        machine = self.world.machines[self._member(words[0])]
        machine.kill()
        machine.wipe()

    def _do_save(self, words: list[str], options: dict[str, str]) -> None:
        self._saved[words[0]] = self.world.machines[self._member(words[0])].snapshot()

    def _do_restore(self, words: list[str], options: dict[str, str]) -> None:
        machine = self.world.machines[self._member(words[0])]
        machine.kill()
        machine.restore(self._saved.pop(words[0]))

    def _do_pause(self, words: list[str], options: dict[str, str]) -> None:
        self.world.machines[self._member(words[0])].pause()

    def _do_resume(self, words: list[str], options: dict[str, str]) -> None:
        self.world.machines[self._member(words[0])].resume()
        self._pass(BEGIN)

    def _do_full(self, words: list[str], options: dict[str, str]) -> None:
        self.world.machines[self._member(words[0])].disk.free_bytes = 0

    def _do_rot(self, words: list[str], options: dict[str, str]) -> None:
        """Restart cleanly, so that the record lies in the engine, and flip a bit of it."""
        machine = self.world.machines[self._member(words[0])]
        assert machine.stop_clean()
        machine.start()
        machine.rot(self._engine_key(words[1]))
        self._pass(3 * MEET)

    def _engine_key(self, name: str) -> bytes:
        return engine_key(self.world.ring.hash_key, DEFAULT_TABLE_ID, name.encode(), b"")

    def _do_gossip(self, words: list[str], options: dict[str, str]) -> None:
        assert self.world.story is not None
        self.world.story.with_gossip = True

    def _do_show(self, words: list[str], options: dict[str, str]) -> None:
        key = self._engine_key(words[0])
        story = self.world.story
        assert story is not None
        for machine in self.world.machines.values():
            if machine.process is None:
                self._lines.append(f"{machine.name}  is down")
            elif machine.member in self.world.ring.owners_of_engine_key(key):
                holding = machine.process.store.get(key)
                held = story.record(record_of(holding)) if holding else "nothing"
                held = "something damaged" if holding == b"" else held
                self._lines.append(f"{machine.name}  holds {held}")
            else:
                hint = machine.process.node.hints.hint(key)
                if hint is not None:
                    owners = ", ".join(self.world.machines[owner].name for owner in hint.owners)
                    held = story.record(record_of(hint.holding))
                    self._lines.append(f"{machine.name}  keeps {held} for {owners}")
