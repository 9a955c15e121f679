"""The laws of records, contexts and sets of dots (architecture: data model)."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvorum.model.context import (
    ContextInvalid,
    check_context,
    context_of_record,
    context_of_seen,
    context_seen,
    same_seen,
)
from kvorum.model.holding import NO_OWN, extended, pack_holding, plain_successor, rewritten
from kvorum.model.record import (
    HAS_TOMBSTONE,
    RecordInvalid,
    Value,
    check_layout,
    check_record,
    first_record,
    head_of,
    lww_record,
    next_record,
    order_of,
    split_values,
    supersedes,
    supersedes_at,
)
from kvorum.model.siblings import (
    alive,
    context_after_put,
    encode,
    encode_shown,
    merge,
    needs_showing,
    seen_of,
    shown_values,
    update,
    update_lww,
)
from kvorum.model.version import ACTOR_BYTES, Seen, descends, is_canonical
from tests.support.records import (
    dot,
    dot_lists,
    dots,
    dots_of,
    lww_values,
    records,
    seen_of_dots,
    value,
    value_of,
)
from tests.support.replicas import KEY, OneReplica

NEW_DOT = dot(7, 1)


@st.composite
def histories(draw: st.DrawFn) -> list[bytes]:
    """Every record that three replicas held at any time, in a history that could happen."""
    tape: list[int] = []
    replicas = [OneReplica(tape) for _ in range(3)]
    contexts = [b""]
    held: list[bytes] = []
    for action, here, there, which in draw(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)),
            min_size=1,
            max_size=16,
        )
    ):
        replica = replicas[here]
        if action == 0:
            replica.receive(replicas[there].record)
        elif action == 1:
            contexts.append(replica.read())
        else:
            context = contexts[which % len(contexts)] if action == 2 else replica.read()
            contexts.append(replica.put(b"%d" % len(held), context, tombstone=which == 0)[1])
        if replica.record is not None:
            held.append(replica.record)
    return held or [first_record(value(dot(1, 1)))]


def picked(count: int) -> st.SearchStrategy[list[bytes]]:
    """Some of the records of one history."""
    return histories().flatmap(
        lambda held: st.lists(st.sampled_from(held), min_size=count, max_size=count)
    )


@given(records, records)
def test_merge_is_commutative(left: bytes, right: bytes) -> None:
    assert merge(left, right) == merge(right, left)


@given(records, records, records)
def test_merge_is_associative(one: bytes, two: bytes, three: bytes) -> None:
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(records, records)
def test_merge_is_idempotent(left: bytes, right: bytes) -> None:
    merged = merge(left, right)
    assert merge(left, left) == left
    assert merge(merged, left) == merge(right, merged) == merged


@given(picked(3))
def test_the_laws_hold_for_records_of_any_history(three: list[bytes]) -> None:
    left, middle, right = three
    merged = merge(left, right)
    assert merge(right, left) == merged
    assert merge(merged, left) == merged
    assert merge(merge(left, middle), right) == merge(left, merge(middle, right))
    assert supersedes(merged, left)
    assert supersedes(merged, right)


@given(picked(2))
def test_what_a_superseding_record_replaces_is_not_missed(two: list[bytes]) -> None:
    left, right = two
    if supersedes(left, right):
        assert merge(left, right) == merge(right, left) == left
    if supersedes(left, right) and supersedes(right, left):
        assert left == right


@given(records, records)
def test_superseding_is_having_seen_it_all(left: bytes, right: bytes) -> None:
    assert supersedes(left, right) == (dots_of(seen_of(right)) <= dots_of(seen_of(left)))


@given(dot_lists, dot_lists)
def test_sets_are_compared_in_place_as_when_taken_apart(one: list[bytes], two: list[bytes]) -> None:
    newer, older = seen_of_dots(one), seen_of_dots(two)
    newer_entries, newer_runs, newer_bytes = newer.encode()
    older_entries, older_runs, older_bytes = older.encode()
    expected = set(two) <= set(one)
    assert newer.covers_all(older) == expected
    assert expected == descends(
        b"\0" * 5 + newer_bytes, 5, newer_entries, newer_runs,
        b"\0" * 9 + older_bytes, 9, older_entries, older_runs,
    )  # fmt: skip


@given(dot_lists, dot_lists, dots)
def test_a_set_of_runs_is_a_set_of_dots(one: list[bytes], two: list[bytes], probe: bytes) -> None:
    seen = seen_of_dots(one)
    assert dots_of(seen) == set(one)
    assert seen.covers(probe) == (probe in one)
    assert dots_of(seen.without(two)) == set(one) - set(two)
    other = seen_of_dots(two)
    other.merge(seen)
    assert dots_of(other) == set(one) | set(two)
    assert other.encode() == seen_of_dots(sorted({*one, *two})).encode()
    entries, runs, body = other.encode()
    assert is_canonical(b"h" + body, 1, entries, runs)
    again = Seen.decode(b"h" + body, 1, entries, runs)
    assert again.runs == other.runs
    for each in again.runs.values():
        assert all(low[1] + 1 < high[0] for low, high in pairwise(each))


@given(records, st.binary(max_size=6))
def test_what_we_encode_is_canonical_and_decodes_to_the_same(record: bytes, before: bytes) -> None:
    check_record(record)
    assert encode(seen_of(record), alive(record)) == record
    if head_of(record)[4]:
        check_layout(before + record, len(before))


@given(st.one_of(records, st.builds(lww_record, lww_values)), st.data())
def test_a_mangled_record_is_refused_or_is_another_record(
    record: bytes, data: st.DataObject
) -> None:
    mangled = bytearray(record)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(mangled) - 1))
        mangled[position] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(mangled), len(mangled) // 2, len(mangled) - 1]))
    read_as_from_outside(bytes(mangled[:end]))


@given(st.binary(max_size=200))
@example(b"\1\0\xff\xff\xff\xff\xff\xff")
@example(b"\1\0\0\0\0\0\xff\xff" + b"\xff" * 56)
def test_garbage_is_refused(garbage: bytes) -> None:
    read_as_from_outside(garbage)


def read_as_from_outside(garbage: bytes) -> None:
    """Both checks end, and what they let through can be worked with."""
    sound = first_record(value(NEW_DOT))
    try:
        check_record(garbage)
    except RecordInvalid:
        pass
    else:
        assert merge(sound, garbage) == merge(garbage, sound)
        assert len(shown_values(garbage, 5)) <= head_of(garbage)[4]
        assert merge(garbage, garbage) == garbage
        if not garbage[1] & 1:
            assert encode(seen_of(garbage), alive(garbage)) == garbage
    try:
        check_layout(garbage, 0)
    except RecordInvalid:
        return
    # Only its lengths add up: reading it stays within it, whatever it says.
    assert sum(len(each) for each in split_values(garbage)) <= len(garbage)
    supersedes(garbage, sound)
    supersedes(sound, garbage)
    merge(garbage, sound)


@given(records, dot_lists)
def test_a_put_removes_exactly_what_its_context_covers(record: bytes, known: list[bytes]) -> None:
    updated = update(record, seen_of_dots(known), value(NEW_DOT))
    check_record(updated)
    assert set(alive(updated)) == (set(alive(record)) - set(known)) | {NEW_DOT}
    assert dots_of(seen_of(updated)) == dots_of(seen_of(record)) | set(known) | {NEW_DOT}


@given(records)
def test_a_blind_put_removes_nothing(record: bytes) -> None:
    updated = update(record, None, value(NEW_DOT))
    assert alive(updated) == {**alive(record), NEW_DOT: value(NEW_DOT)}


@given(records, st.integers(0, 1))
def test_the_shortcut_of_a_put_is_the_slow_path(record: bytes, place: int) -> None:
    """``next_record``, for a context that has seen just what the record has."""
    context = context_of_record(KEY, record, 0)
    check_context(KEY, context)
    assert same_seen(context, record)
    entries = [(actor, runs[0][1]) for actor, runs in seen_of(record).runs.items()]
    if not entries:
        return
    actor, last = sorted(entries)[place % len(entries)]
    new = value(actor + (last + 1).to_bytes(4, "big"), b"new")
    shortcut = next_record(record, new)
    if shortcut is None:
        assert head_of(record)[3], "only a gap may stand in the way of an actor that minted here"
    else:
        assert shortcut == update(record, context_seen(context), new)


@given(st.integers(1, 3), st.binary(max_size=9), st.booleans(), st.integers(0, 3))
def test_the_first_record_is_that_of_the_slow_path(
    store: int, data: bytes, tombstone: bool, expiry: int
) -> None:
    new = value(dot(store, 1), data, tombstone=tombstone, expiry=expiry)
    assert first_record(new) == update(None, None, new) == update(None, Seen(), new)


@given(records, dot_lists)
def test_a_context_after_a_put_claims_nothing_unseen(record: bytes, known: list[bytes]) -> None:
    updated = update(record, seen_of_dots(known), value(NEW_DOT))
    claimed = dots_of(context_after_put(updated, NEW_DOT))
    assert not claimed & (set(alive(updated)) - {NEW_DOT}), "the siblings it did not read"
    assert claimed >= set(known) - (set(alive(updated)) - {NEW_DOT})
    assert claimed == dots_of(seen_of(updated)) - (set(alive(updated)) - {NEW_DOT})


@given(dot_lists, st.integers(0, 2**64 - 1))
def test_a_context_carries_its_set(known: list[bytes], clock: int) -> None:
    context = context_of_seen(KEY, seen_of_dots(known), clock)
    check_context(KEY, context)
    assert dots_of(context_seen(context)) == set(known)
    with pytest.raises(ContextInvalid, match="another key"):
        check_context(KEY + b"!", context)


@given(dot_lists, st.data())
def test_a_mangled_context_is_refused(known: list[bytes], data: st.DataObject) -> None:
    context = context_of_seen(KEY, seen_of_dots(known), 7)
    position = data.draw(st.integers(0, len(context) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda byte: byte != context[position]))
    with pytest.raises(ContextInvalid):
        check_context(KEY, context[:position] + bytes((changed,)) + context[position + 1 :])


@given(st.binary(max_size=150))
def test_a_garbage_context_is_refused(garbage: bytes) -> None:
    with pytest.raises(ContextInvalid):
        check_context(KEY, garbage)


@given(records, dot_lists)
def test_seeing_the_same_is_having_equal_sets(record: bytes, known: list[bytes]) -> None:
    context = context_of_seen(KEY, seen_of_dots(known), 3)
    assert same_seen(context, record) == (set(known) == dots_of(seen_of(record)))


@given(st.lists(lww_values, min_size=1, max_size=6))
def test_the_last_write_wins_in_whatever_order_it_is_met(values: list[bytes]) -> None:
    # One dot is written once only.
    written = list({each[:16]: each for each in values}.values())
    winner = max(written, key=lambda each: (Value(each).clock, each[:16]))
    for order in (written, written[::-1], sorted(written)):
        record: bytes | None = None
        merged = lww_record(order[0])
        for each in order:
            record = update_lww(record, each)
            merged = merge(lww_record(each), merged)
        assert record == merged == lww_record(winner)
    assert all(supersedes(merged, lww_record(each)) for each in written)
    assert all(order_of(merged) >= order_of(lww_record(each)) for each in written)


@given(lww_values, lww_values, lww_values)
def test_merging_lww_records_obeys_the_laws(one: bytes, two: bytes, three: bytes) -> None:
    kept = {each[:16]: lww_record(each) for each in (one, two, three)}
    a, b, c = (kept[each[:16]] for each in (one, two, three))
    assert merge(a, b) == merge(b, a)
    assert merge(a, merge(b, c)) == merge(merge(a, b), c)
    assert merge(a, a) == a


@given(records, st.sampled_from([0, 1_999, 2_000, 2_001]))
def test_a_reader_is_shown_each_value_and_no_expired_one(record: bytes, now: int) -> None:
    shown = {each.dot: each for each in shown_values(record, now)}
    assert set(shown) == set(alive(record))
    for under, encoded in alive(record).items():
        stored = Value(encoded)
        expired = 0 < stored.expiry <= now
        assert shown[under].tombstone == (stored.tombstone or expired)
        assert shown[under].data == (b"" if expired else stored.data)
    answer = encode_shown(record, now)
    check_record(answer)
    assert [one.data for one in shown_values(answer, 0)] == [
        one.data for one in shown_values(record, now)
    ]
    assert seen_of(answer).runs == seen_of(record).runs
    if not needs_showing(record):
        assert split_values(answer) == split_values(record)


@given(st.lists(st.tuples(dots, st.integers(0, 2)), max_size=6))
def test_values_under_one_put_id_are_shown_once(written: list[tuple[bytes, int]]) -> None:
    """A put sent again elsewhere is minted again; rule 5 makes one of the two for readers."""
    values = {
        under: value(under, b"%d" % put, put_id=b"a client%8d" % put) for under, put in written
    }
    record = encode(seen_of_dots(list(values)), values)
    shown = [each.data for each in shown_values(record, 0)]
    assert sorted(shown) == sorted({Value(each).data for each in values.values()})
    answer = encode_shown(record, 0)
    check_record(answer)
    assert seen_of(answer).runs == seen_of(record).runs


def test_value_of_gives_every_kind_of_value() -> None:
    kinds = [Value(value_of(dot(store, counter))) for store in (1, 2) for counter in range(1, 10)]
    assert {one.tombstone for one in kinds} == {True, False}
    assert {one.expiry for one in kinds} == {0, 2_000}
    assert {one.content_type for one in kinds} == {b"", b"text/plain"}


@given(records, records, st.binary(max_size=9), st.binary(max_size=9))
def test_records_within_larger_bytes_are_judged_as_by_themselves(
    left: bytes, right: bytes, before: bytes, other: bytes
) -> None:
    expected = supersedes(left, right)
    assert supersedes_at(before + left, len(before), other + right, len(other)) == expected


@given(records, dot_lists, st.integers(0, 1), st.binary(max_size=9))
def test_the_shortcut_of_the_last_writer_is_the_slow_path(
    record: bytes, known: list[bytes], place: int, partition_key: bytes
) -> None:
    """``rewritten``: only for a writer that has seen just what is here, under the own dot."""
    everything = seen_of(record)
    for seen in (everything, seen_of_dots(known)):
        for actor, runs in sorted(everything.runs.items())[place:]:
            last = actor + runs[-1][1].to_bytes(4, "big")
            new = value(actor + (runs[-1][1] + 1).to_bytes(4, "big"), b"new")
            held = pack_holding(last, partition_key, record)
            encoded = seen.encode()[2]
            made = rewritten(held, partition_key, encoded, 0, new)
            if made is None:
                assert seen.runs != everything.runs or head_of(record)[3]
            else:
                assert made == partition_key + update(record, seen, new)
                assert rewritten(held, partition_key + b"x", encoded, 0, new) is None
            stale = actor + (runs[-1][1] + 7).to_bytes(4, "big")
            held = pack_holding(stale, partition_key, record)
            assert rewritten(held, partition_key, encoded, 0, new) is None


new_dots = st.builds(dot, st.integers(0, 4), st.just(1), st.sampled_from((0, 1, 2, 3)))


@given(records, dot_lists, new_dots, st.binary(max_size=9))
def test_the_shortcut_of_a_new_writer_is_the_slow_path(
    record: bytes, known: list[bytes], under: bytes, partition_key: bytes
) -> None:
    """``extended``: only for a writer that has seen just what is here, and is new to it."""
    everything = seen_of(record)
    new = value(under, b"new")
    held = pack_holding(NO_OWN, partition_key, record)
    for seen in (everything, seen_of_dots(known)):
        encoded = seen.encode()[2]
        made = extended(held, partition_key, encoded, 0, new)
        if made is None:
            is_known = under[:ACTOR_BYTES] in everything.runs
            assert seen.runs != everything.runs or head_of(record)[3] or is_known
        else:
            assert made == partition_key + update(record, seen, new)
            assert extended(held, partition_key + b"x", encoded, 0, new) is None


@given(records, records, new_dots, st.integers(0, 3), st.binary(max_size=9))
def test_the_shortcut_of_a_replica_is_the_merge(
    record: bytes, other: bytes, under: bytes, writes: int, partition_key: bytes
) -> None:
    """``plain_successor``: it takes nothing but what a merge would leave of the two."""
    received = record if writes else other
    for counter in range(1, writes + 1):
        new = value(under[:ACTOR_BYTES] + counter.to_bytes(4, "big"))
        received = update(received, seen_of(received), new)
    follows = plain_successor(
        pack_holding(NO_OWN, partition_key, record), pack_holding(NO_OWN, partition_key, received)
    )
    if follows is not None:
        assert follows == (pack_holding(NO_OWN, partition_key, received), head_of(received)[2])
        assert not received[1] & HAS_TOMBSTONE
        assert merge(record, received) == received != record
