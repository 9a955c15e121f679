"""Bad input by hand: frames, handshakes, batches and requests that are wrong in one respect.

What may follow is a clear word and, where the bytes cannot be trusted any more, the end of the
connection; never a write, and never trouble for anybody else. (``test_fuzz.py`` tries the rest.)
"""

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

import kvorum
from kvorum.model.hashing import engine_key
from kvorum.model.holding import NO_OWN, pack_holding
from kvorum.wire.codec import encode
from kvorum.wire.framing import frame, pack_length
from kvorum.wire.kinds import ANSWERS, BATCH, HELLO, MARK, PUT, REFUSED
from kvorum.wire.link import MALFORMED, NOT_TAKEN, OK
from kvorum.wire.messages import (
    NODE_ROLES,
    ROLE_CLIENT,
    ROLE_CONTROL,
    ROLE_DATA,
    Hello,
    Ping,
    Pong,
    Reject,
    StatusQuery,
    StoreStart,
    TableQuery,
    Welcome,
)
from kvorum.wire.requests import (
    BAD_REQUEST,
    DEFAULT,
    TOO_LARGE,
    UNKNOWN_TABLE,
    get_frame,
    put_frame,
    unpack_failure,
)
from tests.golden.samples import RECORDS
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.processes import resident_bytes
from tests.support.stranger import START, Stranger, client_hello, member_hello

ABSENT = 4
DEFAULT_TABLE_ID = b"default\0"
CONFIG = {"partition_key_bytes_max": 200, "sort_key_bytes_max": 100, "value_bytes_max": 100_000}
_keys = count(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster(nodes=4, engine="memory", config=CONFIG) as cluster:
        cluster.processes["d"].stop()
        yield cluster


@pytest.fixture
def stranger(cluster: RunningCluster) -> Iterator[Stranger]:
    with Stranger(cluster.processes["a"].address) as stranger:
        yield stranger


@pytest.fixture
def client(cluster: RunningCluster) -> Iterator[kvorum.Client]:
    with kvorum.connect(cluster.addresses) as client:
        yield client


@pytest.fixture
def table(client: kvorum.Client) -> Any:
    return client.table("default")


@pytest.fixture
def key() -> str:
    return f"key-{next(_keys)}"


def is_untouched(cluster: RunningCluster, key: str) -> bool:
    """Whether no owner that runs holds anything of the key."""
    with cluster.connect() as client:
        return all(held.record is None for held in client.explain("default", key).replicas)


@pytest.fixture(autouse=True)
def _the_node_goes_on(cluster: RunningCluster) -> Iterator[None]:
    yield
    began = time.monotonic()
    with kvorum.Client(cluster.processes["a"].address, only_given=True) as client:
        assert client.status("a").writable
    assert time.monotonic() - began < 1.0
    for name in "abc":
        assert cluster.processes[name].running
        assert "Traceback" not in cluster.processes[name].log.read_text()


# Handshakes.


def hello_of_a_member(cluster: RunningCluster, **changes: Any) -> Hello:
    good = member_hello(cluster.topology, ABSENT, 1, ROLE_DATA)
    fields = {name: getattr(good, name) for name in Hello.__struct_fields__}
    return Hello(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"version_min": 7, "version_max": 9}, "version", "1 to 1, the caller 7 to 9; upgrade"),
        ({"version_min": 0, "version_max": 0}, "version", "1 to 1, the caller 0 to 0; upgrade"),
        ({"cluster_id": b"another!"}, "cluster", "check the topology files"),
        ({"cluster_id": b""}, "malformed", "names its cluster"),
        ({"target": 2}, "target", "this is member 1 (a), not member 2"),
        ({"target": 0}, "target", "this is member 1 (a), not member 0"),
        ({"member": 77}, "target", "member 77 is not in this node's topology"),
        ({"member": 1}, "twice", "member 1 is this very process's place"),
        ({"member": 2}, "twice", "another process is running as member 2"),
        ({"start": None}, "malformed", "its store's start"),
        ({"start": StoreStart(b"short", 1, b"no nonce")}, "malformed", "its store's start"),
        ({"start": StoreStart(b"stranger", -1, b"no nonce")}, "malformed", "its store's start"),
        ({"role": "emperor"}, "role", "role 'emperor' is unknown here"),
    ],
)
def test_a_handshake_that_is_refused(
    cluster: RunningCluster, stranger: Stranger, changes: dict[str, Any], code: str, text: str
) -> None:
    answer = stranger.greet(hello_of_a_member(cluster, **changes))
    assert isinstance(answer, Reject)
    assert answer.code == code
    assert text in answer.text
    assert stranger.is_cut_off()


@pytest.mark.parametrize(("low", "high"), [(2, 5), (0, 0)], ids=["too new", "too old"])
def test_a_client_of_another_version_is_told_so(stranger: Stranger, low: int, high: int) -> None:
    answer = stranger.greet(Hello(low, high, ROLE_CLIENT))
    assert isinstance(answer, Reject)
    assert "upgrade the older side" in answer.text


def test_a_client_that_can_speak_more_is_answered_in_what_both_know(stranger: Stranger) -> None:
    answer = stranger.greet(Hello(1, 99, ROLE_CLIENT))
    assert isinstance(answer, Welcome)
    assert answer.version == 1


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (encode(Ping(1, 1)), "begins with a Hello"),
        (frame(bytes((HELLO,)) + b"\xc1garbage"), "the Hello is malformed"),
        (frame(bytes((HELLO,)) + b"\x91" * 5000), "the Hello is malformed"),
        (pack_length(0), "0 bytes"),
        (pack_length((1 << 32) - 1), "4294967295 bytes"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "bytes; 1 to"),
    ],
    ids=["no hello", "garbage", "nested", "empty", "huge", "ssh"],
)
def test_a_first_frame_that_is_none(stranger: Stranger, sent: bytes, text: str) -> None:
    stranger.send(sent)
    payload = stranger.next_payload()
    assert payload is not None
    assert text in payload.decode("utf-8", "replace")
    assert stranger.is_cut_off()


@pytest.mark.parametrize("verb", [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS"])
def test_http_is_answered_in_http(stranger: Stranger, verb: bytes) -> None:
    stranger.send(verb + b" /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = stranger.rest()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"native port" in answer


def test_who_says_nothing_is_cut_off_in_the_end(stranger: Stranger) -> None:
    stranger.socket.settimeout(8.0)
    stranger.send(encode(client_hello())[:7])
    payload = stranger.next_payload()
    assert payload is not None
    assert b"no Hello came" in payload
    assert stranger.is_cut_off()


# Frames after a good handshake.


def begin(cluster: RunningCluster, stranger: Stranger, role: str) -> None:
    hello = client_hello()
    if role != ROLE_CLIENT:
        hello = member_hello(cluster.topology, ABSENT, 1, role)
    assert isinstance(stranger.greet(hello), Welcome)


def a_batch(*entries: bytes, number: int = 1, entry_count: int = -1) -> bytes:
    size = len(entries) if entry_count < 0 else entry_count
    head = bytes((BATCH, 0)) + size.to_bytes(2, "little") + number.to_bytes(4, "little")
    return frame(head + b"".join(entries))


def an_entry(op: int, key: bytes, body: bytes = b"", cut: int = 0) -> bytes:
    head = bytes((op, 0)) + len(key).to_bytes(2, "little") + len(body).to_bytes(4, "little")
    whole = head + bytes(12) + key + body
    return whole[: len(whole) - cut]


def the_key(cluster: RunningCluster, name: bytes) -> bytes:
    """A key of that beginning which node a owns."""
    topology = cluster.topology
    for number in count(1):
        key = engine_key(topology.hash_key, DEFAULT_TABLE_ID, name + b"%d" % number, b"")
        partition = int.from_bytes(key[1:3], "big") >> 10
        if 1 in topology.partitions[partition].owners:
            return key
    raise AssertionError


HOLDING = pack_holding(NO_OWN, b"malformed", RECORDS["first"])


@pytest.mark.parametrize(
    "sent",
    [
        lambda key: a_batch(an_entry(2, key), entry_count=2),
        lambda key: a_batch(an_entry(2, key), an_entry(2, key), entry_count=1),
        lambda key: a_batch(an_entry(1, key, HOLDING, cut=1)),
        lambda key: a_batch(an_entry(9, key)),
        lambda key: a_batch(an_entry(2, key[:20])),
        lambda key: frame(bytes((BATCH, 0, 1))),
        lambda key: frame(bytes((ANSWERS, 0, 0, 0, 1, 0, 0, 0))),
        lambda key: frame(bytes((MARK, 0, 0, 0, 1, 0, 0, 0))),
        lambda key: encode(StatusQuery(1)),
        lambda key: pack_length(1 << 31),
    ],
    ids=[
        "too few entries", "too many entries", "cut short", "unknown op", "short key", "short head",
        "answers", "mark", "control", "too long",
    ],
)  # fmt: skip
def test_a_batch_that_is_malformed_ends_its_connection(
    cluster: RunningCluster, stranger: Stranger, sent: Callable[[bytes], bytes]
) -> None:
    begin(cluster, stranger, ROLE_DATA)
    stranger.send(sent(the_key(cluster, b"batch")))
    assert stranger.is_cut_off()


def test_entries_that_may_not_be_taken_are_refused_one_by_one(
    cluster: RunningCluster, stranger: Stranger
) -> None:
    begin(cluster, stranger, ROLE_DATA)
    key = the_key(cluster, b"entries")
    own = pack_holding(b"another store's!", b"malformed", RECORDS["first"])
    entries = [
        an_entry(1, key, HOLDING[:-3]),
        an_entry(1, key, own),
        an_entry(1, b"\0" + key[1:], HOLDING),
        an_entry(2, b"\0table" + key, b""),
        an_entry(2, key),
    ]
    stranger.send(a_batch(*entries))
    payload = stranger.next_payload()
    assert payload is not None
    assert payload[0] == ANSWERS
    assert list(payload[8:13]) == [MALFORMED, MALFORMED, NOT_TAKEN, NOT_TAKEN, OK]


@pytest.mark.parametrize(
    "sent",
    [
        frame(bytes((PUT,))),
        get_frame(1, 0, DEFAULT_TABLE_ID, b"key", b"", 0, DEFAULT)[:-1],
        get_frame(1, 0, DEFAULT_TABLE_ID, b"key", b"", 0, DEFAULT) + b"\0\0\0\0",
        frame(b"\x31" + b"\xff" * 40),
        frame(b"\x30" + b"\xff" * 80),
        a_batch(),
        encode(Pong(1, 2, 3)),
        frame(b"\x20\xc1"),
        frame(b"\x7f"),
    ],
    ids=[
        "short put", "get left open", "get and nothing", "long get", "long put", "batch", "pong",
        "no message", "unknown",
    ],
)  # fmt: skip
def test_a_client_that_sends_what_it_may_not_is_cut_off(
    cluster: RunningCluster, stranger: Stranger, sent: bytes
) -> None:
    begin(cluster, stranger, ROLE_CLIENT)
    stranger.send(sent)
    if sent[4:5] == b"\x31" and len(sent) == 26:  # An open frame is no error until it is closed.
        stranger.send(frame(b"\x7f"))
    assert stranger.is_cut_off()


def test_a_member_that_asks_what_only_clients_may_is_cut_off(
    cluster: RunningCluster, stranger: Stranger
) -> None:
    begin(cluster, stranger, ROLE_CONTROL)
    stranger.send(encode(TableQuery(1, "default")))
    assert stranger.is_cut_off()


@pytest.mark.parametrize("role", [ROLE_CLIENT, *NODE_ROLES])
def test_frames_left_open_cost_no_more_than_was_sent(cluster: RunningCluster, role: str) -> None:
    """Each announces the longest frame there may be, and sends little of it."""
    node = cluster.processes["a"]
    limit = max(CONFIG["value_bytes_max"] + (1 << 20), 1 << 16)
    before = resident_bytes(node.pid)
    strangers = [Stranger(node.address) for _ in range(60)]
    try:
        for stranger in strangers:
            begin(cluster, stranger, role)
            stranger.send(pack_length(limit), bytes(20_000))
        with cluster.connect("a") as client:
            client.table("default").update("open", lambda values: b"value")
        assert resident_bytes(node.pid) - before < 16 << 20
    finally:
        for stranger in strangers:
            stranger.close()


# Requests that are wrong, as raw frames: whatever a client library would have caught before.


def a_put(**changes: Any) -> bytes:
    good = {
        "request": 1, "flags": 0, "table": DEFAULT_TABLE_ID, "partition_key": b"raw",
        "sort_key": b"", "context": b"", "value": b"value", "content_type": b"",
        "client": b"stranger", "counter": next(_keys), "first_sent": time.time_ns() // 1000,
        "lowest_open": 0, "w": 0, "durability": DEFAULT, "sloppy": DEFAULT, "ttl": 0,
    }  # fmt: skip
    return put_frame(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"table": b"no table"}, UNKNOWN_TABLE, "there is no table with the id"),
        ({"w": 4}, BAD_REQUEST, "w=4: must lie between 1 and n=3"),
        ({"w": 254}, BAD_REQUEST, "w=254"),
        ({"durability": 9}, BAD_REQUEST, "durability 9 is unknown"),
        ({"partition_key": b""}, BAD_REQUEST, "the partition key is empty"),
        ({"partition_key": b"k" * 201}, TOO_LARGE, "the partition key has 201 bytes"),
        ({"sort_key": b"k" * 101}, TOO_LARGE, "the sort key has 101 bytes; the limit is 100"),
        ({"value": b"v" * 100_001}, TOO_LARGE, "the value has 100001 bytes"),
        ({"context": b"c" * ((1 << 20) + 1)}, TOO_LARGE, "the context has 1048577 bytes"),
        ({"ttl": 1 << 63}, BAD_REQUEST, "a time to live of"),
        ({"flags": 1}, BAD_REQUEST, "a delete carries no value"),
        ({"first_sent": 1 << 63}, BAD_REQUEST, "comes from the future"),
    ],
)
def test_a_put_that_is_refused_writes_nothing(
    cluster: RunningCluster, changes: dict[str, Any], code: int, text: str
) -> None:
    frame_of_put = a_put(**changes)
    for name in "abc":  # Whether it owns the key or would forward it.
        with Stranger(cluster.processes[name].address) as stranger:
            assert isinstance(stranger.greet(client_hello()), Welcome)
            stranger.send(frame_of_put)
            payload = stranger.next_payload()
        assert payload is not None
        assert payload[0] == REFUSED, payload
        assert unpack_failure(payload, 0)[1] == code
        assert text in payload.decode("utf-8", "replace")
    assert is_untouched(cluster, "raw")


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (get_frame(1, 0, b"no table", b"k", b"", 0, DEFAULT), UNKNOWN_TABLE, "no table with"),
        (get_frame(1, 0, DEFAULT_TABLE_ID, b"k", b"", 4, DEFAULT), BAD_REQUEST, "r=4: must"),
        (get_frame(1, 0, DEFAULT_TABLE_ID, b"", b"", 0, DEFAULT), BAD_REQUEST, "is empty"),
        (get_frame(1, 0, DEFAULT_TABLE_ID, b"k" * 201, b"", 0, DEFAULT), TOO_LARGE, "201 bytes"),
        (get_frame(1, 0, DEFAULT_TABLE_ID, b"k", b"s" * 101, 0, DEFAULT), TOO_LARGE, "101 bytes"),
    ],
)
def test_a_get_that_is_refused(stranger: Stranger, sent: bytes, code: int, text: str) -> None:
    assert isinstance(stranger.greet(client_hello()), Welcome)
    stranger.send(sent)
    payload = stranger.next_payload()
    assert payload is not None
    assert (payload[0], unpack_failure(payload, 0)[1]) == (REFUSED, code)
    assert text in payload.decode()


# The same through a client, by its exceptions.


def test_an_unknown_table(client: kvorum.Client) -> None:
    table = client.table("nowhere")
    for attempt in (
        lambda: table.get("k"),
        lambda: table.put("k", b"v"),
        lambda: table.delete("k"),
    ):
        with pytest.raises(kvorum.UnknownTable, match="nowhere"):
            attempt()


def test_what_is_too_large(cluster: RunningCluster, table: Any, key: str) -> None:
    attempts = [
        (lambda: table.put("k" * 201, b"v"), "partition key has 201"),
        (lambda: table.put(key, b"v", sort_key="s" * 101), "sort key has 101"),
        (lambda: table.put(key, b"v" * 100_001), "value has 100001"),
        (lambda: table.get("k" * 201), "partition key has 201"),
        (lambda: table.put(key, b"v" * 3_000_000), "3000"),
        (lambda: table.put(key, b"v", context=b"c" * 1_100_000), "1100000|1100"),
    ]
    for attempt, text in attempts:
        with pytest.raises(kvorum.TooLarge, match=text):
            attempt()
    assert is_untouched(cluster, key)


@pytest.mark.parametrize("wrong", [0, 4, -1, 1000])
def test_r_and_w_out_of_range(cluster: RunningCluster, table: Any, key: str, wrong: int) -> None:
    with pytest.raises(kvorum.BadRequest, match=f"{wrong}"):
        table.get(key, r=wrong)
    with pytest.raises(kvorum.BadRequest, match=f"{wrong}"):
        table.put(key, b"value", w=wrong)
    with pytest.raises(kvorum.BadRequest, match=f"{wrong}"):
        table.delete(key, w=wrong)
    assert is_untouched(cluster, key)


def mangled(context: bytes) -> list[bytes]:
    """Every kind of damage: bits here and there, cut short, and grown."""
    flipped = []
    for place in range(0, len(context), 3):
        one = bytearray(context)
        one[place] ^= 1 << (place % 8)
        flipped.append(bytes(one))
    return [*flipped, context[:-1], context[:10], context + b"\0", context * 2, b"\0", b"x" * 60]


def test_a_context_that_is_no_context_of_this_key(
    client: kvorum.Client, table: Any, key: str
) -> None:
    context = table.put(key, b"value").context
    of_another_key = table.put(f"{key}-other", b"value").context
    of_another_sort_key = table.put(key, b"value", sort_key="s").context
    client.create_table("other")
    of_another_table = client.table("other").put(key, b"value").context
    strange = [of_another_key, of_another_sort_key, of_another_table]
    for bad in [*mangled(context), *strange]:
        with pytest.raises(kvorum.BadContext, match="context"):
            table.put(key, b"never", context=bad)
        with pytest.raises(kvorum.BadContext, match="context"):
            table.delete(key, context=bad)
    for bad in strange:
        with pytest.raises(kvorum.BadContext, match="belongs to another key"):
            table.put(key, b"never", context=bad)
    assert table.get(key).values == (b"value",)


def test_too_many_siblings_are_refused_and_a_put_that_covers_them_passes(
    client: kvorum.Client, key: str
) -> None:
    client.create_table("few", max_siblings=3)
    few = client.table("few")
    stale = few.put(key, b"0").context
    few.put(key, b"1")
    few.put(key, b"2")
    with pytest.raises(kvorum.TooManySiblings, match="3 siblings already, its table allows 3"):
        few.put(key, b"3")
    few.put(key, b"4", context=stale)  # It takes one and adds one.
    found = few.get(key)
    assert sorted(found.values) == [b"1", b"2", b"4"]
    few.put(key, b"all", context=found.context)
    assert few.get(key).values == (b"all",)


def test_a_record_that_grows_too_large_is_refused_and_can_be_merged(
    client: kvorum.Client, key: str
) -> None:
    client.create_table("small", max_record_bytes=4000)
    small = client.table("small")
    small.put(key, b"1" * 1500)
    small.put(key, b"2" * 1500)
    with pytest.raises(kvorum.TooLarge, match="its table allows 4000"):
        small.put(key, b"3" * 1500)
    small.update(key, lambda values: b"".join(sorted(values)))
    assert small.get(key).value == b"1" * 1500 + b"2" * 1500
    small.delete(key)
    assert small.get(key).deleted


def test_settings_of_tables_that_cannot_be(client: kvorum.Client) -> None:
    for settings, text in [
        ({"r": 4}, "r=4"), ({"w": 9}, "w=9"), ({"max_siblings": 10**6}, "max_siblings"),
        ({"resolution": "newest"}, "resolution"), ({"durability": "some"}, "durability"),
        ({"ttl_seconds": 10**12}, "ttl_seconds"), ({"max_record_bytes": 3}, "max_record_bytes"),
    ]:  # fmt: skip
        with pytest.raises(kvorum.BadRequest, match=text):
            client.create_table("impossible", **settings)  # type: ignore[arg-type]
    with pytest.raises(kvorum.BadRequest, match="table name"):
        client.create_table("no/slashes")
    with pytest.raises(kvorum.BadRequest, match="cannot be dropped"):
        client.drop_table("default")
    with pytest.raises(kvorum.UnknownTable, match="impossible"):
        client.table("impossible").get("key")


def test_a_start_of_a_store_is_remembered_only_of_members(
    cluster: RunningCluster, stranger: Stranger
) -> None:
    """A client that says it is a member under this very store's id stops nobody."""
    with Stranger(cluster.processes["a"].address) as first:
        welcome = first.greet(client_hello())
    assert isinstance(welcome, Welcome)
    hello = Hello(1, 1, ROLE_CLIENT, welcome.cluster_id, 2, 1, welcome.start)
    assert isinstance(stranger.greet(hello), Welcome)
    assert START.store_id != welcome.start.store_id
