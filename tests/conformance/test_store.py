"""What every client of a cluster must do, against real node processes: one suite, both clients."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

import kvorum
from tests.support.clients import CLIENTS, connected
from tests.support.cluster import RunningCluster, running_cluster

_keys = count(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    with running_cluster(nodes=3, engine="memory") as cluster:
        yield cluster


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, cluster: RunningCluster) -> Iterator[Any]:
    with connected(request.param, cluster.addresses) as client:
        yield client


@pytest.fixture
def table(client: Any) -> Any:
    return client.table("default")


@pytest.fixture
def key() -> str:
    """A key that no other test has touched."""
    return f"key-{next(_keys)}"


@pytest.fixture
def name() -> str:
    """A name for a table of one's own."""
    return f"table-{next(_keys)}"


def test_a_key_never_written_has_no_value_and_was_not_deleted(table: Any, key: str) -> None:
    found = table.get(key)
    assert (found.values, found.value, found.deleted, found.siblings) == ((), None, False, ())


def test_put_and_get(table: Any, key: str) -> None:
    stored = table.put(key, b"book", content_type="text/plain")
    assert len(stored.acks) >= 2
    assert len(set(stored.replicas)) == len(stored.acks)
    found = table.get(key)
    assert found.value == b"book"
    assert found.siblings[0].content_type == "text/plain"
    assert found.siblings[0].put_id == stored.put_id
    assert len(found.replicas) >= 2


def test_bytes_and_text_name_the_same_key(table: Any, key: str) -> None:
    table.put(f"ü{key}", b"book")
    assert table.get(f"ü{key}".encode()).value == b"book"


def test_a_put_with_context_replaces_what_was_seen(table: Any, key: str) -> None:
    table.put(key, b"one")
    table.put(key, b"two", context=table.get(key).context)
    assert table.get(key).values == (b"two",)


def test_the_context_of_a_put_goes_on_from_it(table: Any, key: str) -> None:
    context = None
    for number in range(5):
        context = table.put(key, b"%d" % number, context=context).context
    assert table.get(key).values == (b"4",)


def test_blind_writes_are_siblings(table: Any, key: str) -> None:
    table.put(key, b"one")
    table.put(key, b"two")
    found = table.get(key)
    assert sorted(found.values) == [b"one", b"two"]
    with pytest.raises(kvorum.SiblingsError) as raised:
        _ = found.value
    assert sorted(raised.value.values) == [b"one", b"two"]
    table.put(key, b"both", context=raised.value.context)
    assert table.get(key).value == b"both"


def test_writes_from_one_context_are_both_kept(table: Any, key: str) -> None:
    context = table.put(key, b"old").context
    table.put(key, b"one", context=context)
    table.put(key, b"two", context=context)
    assert sorted(table.get(key).values) == [b"one", b"two"]


def test_the_clients_see_each_others_writes(cluster: RunningCluster, key: str) -> None:
    with (
        connected("blocking", cluster.addresses) as one,
        connected("asyncio", cluster.addresses) as two,
    ):
        one.table("default").put(key, b"book")
        assert two.table("default").get(key).value == b"book"


def test_delete_with_a_context_removes_what_was_seen(table: Any, key: str) -> None:
    context = table.put(key, b"one").context
    table.put(key, b"two")
    table.delete(key, context=context)
    found = table.get(key)
    assert found.values == (b"two",)
    assert sorted(one.value is None for one in found.siblings) == [False, True]


def test_delete_without_a_context_reads_first(table: Any, key: str) -> None:
    table.put(key, b"one")
    table.put(key, b"two")
    table.delete(key)
    found = table.get(key)
    assert (found.values, found.deleted) == ((), True)
    table.put(key, b"three", context=found.context)
    assert table.get(key).value == b"three"


def test_update_merges_and_deletes(table: Any, key: str) -> None:
    table.put(key, b"pen")
    table.put(key, b"book")
    table.update(key, lambda values: b"+".join(sorted(values)))
    assert table.get(key).value == b"book+pen"
    table.update(key, lambda values: None)
    assert table.get(key).deleted


def test_a_merge_that_fails_writes_nothing(table: Any, key: str) -> None:
    def merge(values: tuple[bytes, ...]) -> bytes:
        raise RuntimeError("cannot merge")

    table.put(key, b"old")
    with pytest.raises(RuntimeError, match="cannot merge"):
        table.update(key, merge)
    with pytest.raises(kvorum.BadRequest, match="a value is bytes"):
        table.update(key, lambda values: "text")
    assert table.get(key).value == b"old"


def test_sort_keys_are_keys_of_their_own(table: Any, key: str) -> None:
    table.put(key, b"one", sort_key="1")
    table.put(key, b"two", sort_key=b"2")
    assert table.get(key, sort_key="1").value == b"one"
    assert table.get(key, sort_key="2").value == b"two"
    assert table.get(key).values == ()


def test_many(table: Any, key: str) -> None:
    keys = [f"{key}-{number}" for number in range(700)]
    stored = table.put_many((one, one.encode()) for one in keys)
    again = [(one, b"new", done.context) for one, done in zip(keys, stored, strict=True)]
    table.put_many(again)
    assert {found.values for found in table.get_many(keys)} == {(b"new",)}


def test_a_time_to_live_ends_a_value(table: Any, key: str) -> None:
    table.put(key, b"book", ttl_seconds=3600)
    assert table.get(key).siblings[0].expiry > table.get(key).siblings[0].clock


def test_large_values_and_empty_ones(table: Any, key: str) -> None:
    value = bytes(range(256)) * 4096
    context = table.put(key, value).context
    assert table.get(key).value == value
    table.put(key, b"", context=context)
    assert table.get(key).values == (b"",)


# Tables.


def test_tables_are_created_changed_and_dropped(client: Any, name: str) -> None:
    made = client.create_table(name, r=2, w=2, resolution="siblings", durability="none")
    assert client.create_table(name, r=2, w=2, resolution="siblings", durability="none") == made
    with pytest.raises(kvorum.BadRequest, match="w is 2"):
        client.create_table(name, r=2, w=3, resolution="siblings", durability="none")
    changed = client.set_table(name, w=3, ttl_seconds=60)
    assert (changed.w, changed.ttl_seconds, changed.r) == (3, 60, 2)
    assert [one.w for one in client.tables() if one.name == name] == [3]
    table = client.table(name)
    table.put("alice", b"book")
    client.drop_table(name)
    with pytest.raises(kvorum.UnknownTable):
        table.get("alice")
    assert name not in [one.name for one in client.tables()]
    client.create_table(name, durability="none")
    assert table.get("alice").values == ()


def test_a_table_is_there_at_every_node_at_once(cluster: RunningCluster, name: str) -> None:
    with cluster.connect("a") as one, cluster.connect("c") as other:
        one.create_table(name, durability="none")
        assert other.table(name).get("alice").values == ()


def test_a_last_write_wins_table_keeps_one(client: Any, name: str) -> None:
    client.create_table(name, resolution="lww", durability="none")
    table = client.table(name)
    table.put("alice", b"one")
    table.put("alice", b"two")
    assert table.get("alice").value == b"two"


# Refusals.


@pytest.mark.parametrize(
    ("key", "options", "text"),
    [
        ("", {}, "the key is empty"),
        (5, {}, "a key is bytes or str, not int"),
        ("alice", {"w": 0}, "w=0"),
        ("alice", {"w": 4}, "w=4: must lie between 1 and n=3"),
        ("alice", {"durability": "some"}, "must be none, one, quorum or all"),
        ("alice", {"ttl_seconds": -1}, "ttl_seconds=-1"),
        ("alice", {"context": "text"}, "a context is the bytes"),
    ],
)
def test_bad_requests_say_what_is_wrong(
    table: Any, key: Any, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(kvorum.BadRequest, match=text):
        table.put(key, b"book", **options)


def test_r_out_of_range(table: Any) -> None:
    with pytest.raises(kvorum.BadRequest, match="r=4"):
        table.get("alice", r=4)


def test_values_and_keys_beyond_the_limits(table: Any, key: str) -> None:
    with pytest.raises(kvorum.TooLarge, match="partition key"):
        table.put("k" * 2049, b"")
    with pytest.raises(kvorum.TooLarge, match="sort key"):
        table.put(key, b"", sort_key="s" * 1025)
    with pytest.raises(kvorum.TooLarge):
        table.put(key, bytes((16 << 20) + 1))
    assert table.get(key).values == ()


def test_contexts_that_are_garbage_or_of_another_key(table: Any, key: str) -> None:
    other = table.put(f"{key}-other", b"x").context
    with pytest.raises(kvorum.BadContext, match="another key"):
        table.put(key, b"book", context=other)
    with pytest.raises(kvorum.BadContext, match=r"damaged|cut short|unknown"):
        table.put(key, b"book", context=b"garbage that is long enough to be looked at")
    assert table.get(key).values == ()


def test_durability_that_no_memory_node_can_promise(table: Any, key: str) -> None:
    with pytest.raises(kvorum.QuorumNotMet):
        table.put(key, b"book", durability="one")
    assert table.get(key).values == ()


def test_a_table_that_does_not_exist(client: Any, name: str) -> None:
    with pytest.raises(kvorum.UnknownTable, match=name):
        client.table(name).get("alice")


# Asking nodes.


def test_the_topology_status_and_explain(client: Any, key: str) -> None:
    assert [member.name for member in client.topology.members] == ["a", "b", "c"]
    status = client.status("b")
    assert (status.name, status.member, status.n) == ("b", 2, 3)
    assert client.status(3).name == "c"
    assert {name: answer.name for name, answer in client.statuses().items()} == {
        "a": "a", "b": "b", "c": "c",
    }  # fmt: skip
    with pytest.raises(kvorum.BadRequest, match="no member 'z'"):
        client.status("z")
    client.table("default").put(key, b"book", w=3)
    explained = client.explain("default", key)
    assert sorted(explained.owners) == [1, 2, 3]
    assert len({replica.record for replica in explained.replicas}) == 1


def test_what_a_node_has_set_aside_can_be_asked_for(client: Any) -> None:
    assert client.list_aside("a", limit=1) == []
    nothing = kvorum.AsideCopy(bytes(8), b"k", b"", (), (), b"\1" + bytes(40), bytes(32))
    assert client.discard_aside("a", [nothing]) == 0
    with pytest.raises(kvorum.TooLarge, match="256 may be discarded at once"):
        client.discard_aside("a", [nothing] * 257)
    with pytest.raises(kvorum.BadRequest, match="limit 257"):
        client.list_aside(2, limit=257)
    with pytest.raises(kvorum.BadRequest, match="no member 'z'"):
        client.list_aside("z")


def test_a_local_read_shows_one_nodes_own_copies_and_repairs_nothing(client: Any, key: str) -> None:
    table = client.table("default")
    table.put(key, b"book", w=3)
    table.delete(f"{key}-gone")
    for node in ("a", 2, "c"):
        here, gone, nothing = client.local_get_many(
            "default", [key, f"{key}-gone", f"{key}-never"], node=node
        )
        assert (here.values, here.known, here.damaged) == ((b"book",), True, False)
        assert gone.values == nothing.values == ()
        assert not nothing.known
    with pytest.raises(kvorum.BadRequest, match="no member 'z'"):
        client.local_get_many("default", [key], node="z")
    with pytest.raises(kvorum.TooLarge, match="1001 keys"):
        client.local_get_many("default", [key] * 1001, node="a")
    with pytest.raises(kvorum.UnknownTable):
        client.local_get_many("no such table", [key], node="a")


def test_one_node_is_enough_to_begin_with(cluster: RunningCluster, key: str) -> None:
    with cluster.connect("b") as client:
        table = client.table("default")
        table.put_many((f"{key}-{number}", b"x") for number in range(100))
        coordinators = {table.get(f"{key}-{number}").coordinator for number in range(100)}
        assert coordinators == {1, 2, 3}


def test_many_tasks_on_one_client(cluster: RunningCluster, key: str) -> None:
    async def story() -> None:
        async with kvorum.aconnect(cluster.addresses) as client:
            table = client.table("default")
            keys = [f"{key}-{number}" for number in range(200)]
            await asyncio.gather(*(table.put(one, one.encode()) for one in keys))
            found = await asyncio.gather(*(table.get(one) for one in keys))
            assert [one.value for one in found] == [one.encode() for one in keys]

    asyncio.run(story())


# Nodes that go away, in a cluster of their own.


@pytest.mark.parametrize("kind", CLIENTS)
def test_reads_and_retried_writes_go_on_when_a_node_is_killed(kind: str) -> None:
    keys = [f"key-{number}" for number in range(300)]
    with (
        running_cluster(nodes=3, engine="memory") as cluster,
        connected(kind, cluster.addresses) as client,
    ):
        table = client.table("default")
        table.put_many([(one, b"old") for one in keys])
        cluster.processes["b"].kill()
        stored = table.put_many([(one, b"new") for one in keys], retry=True)
        assert len(stored) == len(keys)
        for found in table.get_many(keys):
            assert b"new" in found.values
        cluster.start_again("b")
        assert len({found.coordinator for found in table.get_many(keys)}) >= 2
        assert client.status("b").name == "b"
