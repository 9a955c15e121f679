"""Which route, key and parameters a request target names, and what names none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.server.http_paths import (
    BATCH,
    INDEX,
    KEY,
    KEYS,
    NO_OPTIONS,
    OPENAPI,
    PUT_OPTIONS,
    READ_OPTIONS,
    TABLE,
    TABLES,
    parse_options,
    parse_query,
    parse_target,
    percent_decoded,
)
from kvorum.server.http_problems import HttpProblem
from kvorum.wire.requests import DEFAULT


@pytest.mark.parametrize(
    ("target", "route", "table", "key", "sort_key", "query"),
    [
        (b"/", INDEX, b"", b"", b"", b""),
        (b"/?a", INDEX, b"", b"", b"", b"a"),
        (b"/openapi.json", OPENAPI, b"", b"", b"", b""),
        (b"/tables", TABLES, b"", b"", b"", b""),
        (b"/tables/t", TABLE, b"t", b"", b"", b""),
        (b"/tables/t/keys?limit=3", KEYS, b"t", b"", b"", b"limit=3"),
        (b"/tables/t/batch", BATCH, b"t", b"", b"", b""),
        (b"/tables/t/keys/k", KEY, b"t", b"k", b"", b""),
        (b"/tables/t/keys/k/s?r=1?", KEY, b"t", b"k", b"s", b"r=1?"),
        (b"/tables/t/keys/a%2Fb/%00%ff", KEY, b"t", b"a/b", b"\0\xff", b""),
        (b"/tables/t/keys/..", KEY, b"t", b"..", b"", b""),
        (b"/tables/t/keys/../keys", KEY, b"t", b"..", b"keys", b""),
        (b"/tables/t/keys/%2e%2E", KEY, b"t", b"..", b"", b""),
        (b"/tables/t/keys/%252F", KEY, b"t", b"%2F", b"", b""),
        (b"/tables/t/keys/a+b;c=d,e&f", KEY, b"t", b"a+b;c=d,e&f", b"", b""),
        (b"http://node:1/tables/t?x", TABLE, b"t", b"", b"", b"x"),
        (b"HTTP://node", INDEX, b"", b"", b"", b""),
        (b"http://node?x=/", INDEX, b"", b"", b"", b"x=/"),
    ],
)
def test_a_target_leads_to_its_route(
    target: bytes, route: int, table: bytes, key: bytes, sort_key: bytes, query: bytes
) -> None:
    found = parse_target(target)
    assert (found.route, found.table, found.key, found.sort_key, found.query) == (
        route, table, key, sort_key, query,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (b"/nowhere", "no_route"),
        (b"//", "no_route"),
        (b"//tables", "no_route"),
        (b"/tables/", "no_route"),
        (b"/tables//keys", "no_route"),
        (b"/tables/t/", "no_route"),
        (b"/tables/t/key", "no_route"),
        (b"/tables/t/batch/x", "no_route"),
        (b"/tables/t/keys/a/b/c", "no_route"),
        (b"/TABLES", "no_route"),
        (b"/./tables", "no_route"),
        (b"/x/../tables", "no_route"),
        (b"/tables/t/keys/", "bad_path"),
        (b"/tables/t/keys//s", "bad_path"),
        (b"/tables/t/keys/k/", "bad_path"),
        (b"/tables/t/keys/%", "bad_path"),
        (b"/tables/t/keys/%2", "bad_path"),
        (b"/tables/t/keys/%2/x", "bad_path"),
        (b"/tables/t/keys/%zz", "bad_path"),
        (b"/tables/t/keys/%+1", "bad_path"),
        (b"/tables/t/keys/% 1", "bad_path"),
        (b"/tables/%/keys/k", "bad_path"),
        (b"/tables/t/keys/k#fragment", "bad_path"),
        (b"*", "bad_path"),
        (b"node:80", "bad_path"),
        (b"ftp://node/", "bad_path"),
    ],
)
def test_what_leads_nowhere_is_refused(target: bytes, code: str) -> None:
    with pytest.raises(HttpProblem) as raised:
        parse_target(target)
    assert raised.value.code == code


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=40))
def test_every_key_has_a_path_of_its_own(key: bytes, sort_key: bytes) -> None:
    path = b"/tables/t/keys/" + b"".join(b"%%%02x" % byte for byte in key)
    if sort_key:
        path += b"/" + b"".join(b"%%%02X" % byte for byte in sort_key)
    found = parse_target(path)
    assert (found.key, found.sort_key) == (key, sort_key)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(text: bytes) -> None:
    try:
        decoded = percent_decoded(text)
    except HttpProblem:
        assert b"%" in text
    else:
        assert len(decoded) == len(text) - 2 * text.count(b"%")


def test_parameters_are_decoded_and_stand_once() -> None:
    assert parse_query(b"a=1&b=%20x+y&&c&d=%2B=", ("a", "b", "c", "d")) == {
        "a": b"1", "b": b" x y", "c": b"", "d": b"+=",
    }  # fmt: skip
    for query in (b"a=1&a=2", b"b=1", b"=1", b"a=%"):
        with pytest.raises(HttpProblem):
            parse_query(query, ("a",))


def test_options_are_those_of_a_native_request() -> None:
    assert parse_options(b"", READ_OPTIONS) is NO_OPTIONS
    options = parse_options(b"w=2&durability=all&sloppy=false&ttl_seconds=3", PUT_OPTIONS)
    assert (options.r, options.w, options.durability, options.sloppy) == (0, 2, 3, 0)
    assert (options.ttl, options.timeout_ms) == (3_000_000, 0)
    options = parse_options(b"r=254&sloppy=1&timeout_ms=10", READ_OPTIONS)
    assert (options.r, options.w, options.durability, options.sloppy) == (254, 0, DEFAULT, 1)
    assert options.timeout_ms == 10


@pytest.mark.parametrize(
    "query",
    [
        b"r=0", b"r=255", b"r=-1", b"r=+1", b"r=1.0", b"r=", b"r=%31%00", b"r= 1", b"r=1e2",
        b"r=" + "٣".encode(), b"r=" + b"9" * 30, b"w=1", b"R=1", b"sloppy=maybe",
        b"sloppy=", b"timeout_ms=0", b"timeout_ms=86400001", b"r=1&r=1", b"ttl_seconds=5",
    ],
)  # fmt: skip
def test_parameters_that_mean_nothing_are_refused(query: bytes) -> None:
    with pytest.raises(HttpProblem) as raised:
        parse_options(query, READ_OPTIONS)
    assert raised.value.code == "bad_query"
