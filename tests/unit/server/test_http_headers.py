"""Contexts, put ids, conditions and preferences, as they stand in headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.server.http_headers import (
    PutId,
    accepts,
    accepts_gzip,
    decode_base64url,
    decode_context,
    encode_context,
    etag_matches,
    is_local_host,
    is_plain,
    parse_put_id,
    refuse_conditions,
    require_json,
    stored_content_type,
)
from kvorum.server.http_problems import HttpProblem

JSON = b"application/json"
MULTIPART = b"multipart/mixed"


@given(st.binary(min_size=1, max_size=100))
def test_a_context_comes_back_as_it_went(context: bytes) -> None:
    text = encode_context(context)
    assert b"=" not in text
    assert decode_context(text) == context
    assert decode_base64url(text + b"=" * (-len(text) % 4)) == context


@pytest.mark.parametrize(
    "text", [b"", b"=", b"a", b"ab c", b"ab+/", b"ab\n", b"a.b", b"\xff\xff", b"!!!!", b"abc*"]
)
def test_what_is_no_context_is_refused(text: bytes) -> None:
    with pytest.raises(HttpProblem) as raised:
        decode_context(text)
    assert raised.value.code == "bad_context"


@given(st.binary(min_size=8, max_size=8), st.integers(0, (1 << 64) - 1), st.integers(0, 10**15 - 1))
def test_a_put_id_comes_back_as_it_went(client: bytes, counter: int, milliseconds: int) -> None:
    put_id = PutId(client, counter, milliseconds * 1000)
    assert parse_put_id(str(put_id).encode()) == put_id


def test_a_put_id_holds_the_bytes_that_stand_beside_the_value() -> None:
    put_id = PutId(b"client 1", 258, 1_767_225_600_000_123)
    assert str(put_id) == "1767225600000-636c69656e7420310201000000000000"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"-", b"1-", b"1" * 16 + b"-" + b"0" * 32, b"x-" + b"0" * 32, b"1-" + b"0" * 31,
        b"1-" + b"0" * 33, b"1-" + b"g" * 32, b"-1-" + b"0" * 32, b"1" + b"0" * 32,
        b"1.5-" + b"0" * 32, b"1-" + b"0" * 30 + b"\xff\xff",
    ],
)  # fmt: skip
def test_what_is_no_put_id_is_refused(text: bytes) -> None:
    with pytest.raises(HttpProblem) as raised:
        parse_put_id(text)
    assert raised.value.code == "bad_header"


def test_every_condition_on_a_write_is_refused() -> None:
    refuse_conditions({b"host": b"x", b"x-kvorum-context": b"y"})
    for name in (
        b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range",
    ):  # fmt: skip
        with pytest.raises(HttpProblem) as raised:
            refuse_conditions({name: b"*"})
        assert raised.value.code == "conditional_write"


def test_etags_are_compared_weakly() -> None:
    etag = b'W/"abc"'
    for condition in (b'W/"abc"', b'"abc"', b"*", b' "x" , W/"abc"', b'"abc", "y"'):
        assert etag_matches(condition, etag)
    for condition in (b'"abcd"', b"abc", b'W/"x", "y"', b"", b'"*"'):
        assert not etag_matches(condition, etag)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, False),
        (b"*/*", False),
        (b"", False),
        (b"application/json", True),
        (b"APPLICATION/JSON;charset=utf-8", True),
        (b"application/*", True),
        (b"application/json;q=0.5, multipart/mixed", False),
        (b"application/json, multipart/mixed;q=0.5", True),
        (b"application/json;q=0", False),
        (b"multipart/mixed, */*;q=0.1", False),
        (b"text/html, application/json;q=nonsense", False),
        (b"application/json;q=nan", False),
    ],
)
def test_json_is_given_to_whom_prefers_it(header: bytes | None, wanted: bool) -> None:
    assert accepts(header, JSON, MULTIPART) == wanted


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, False),
        (b"gzip", True),
        (b"br, gzip;q=0.1", True),
        (b"gzip;q=0", False),
        (b"*", True),
        (b"*;q=0", False),
        (b"gzip;q=0, *", False),
        (b"identity", False),
        (b"x-gzipped", False),
    ],
)
def test_gzip_is_given_to_whom_takes_it(header: bytes | None, wanted: bool) -> None:
    assert accepts_gzip(header) == wanted


def test_the_type_of_a_value_is_kept_if_it_can_stand_in_a_header() -> None:
    assert stored_content_type({}) == b""
    assert stored_content_type({b"content-type": b"text/plain; charset=utf-8"}) == (
        b"text/plain; charset=utf-8"
    )
    for headers in (
        {b"content-type": b"x" * 256},
        {b"content-type": b"text/\xffplain"},
        {b"content-encoding": b"gzip"},
    ):
        with pytest.raises(HttpProblem):
            stored_content_type(headers)
    assert stored_content_type({b"content-encoding": b"identity"}) == b""


def test_json_must_be_declared() -> None:
    require_json({b"content-type": b"Application/JSON; charset=utf-8"})
    for headers in (
        {},
        {b"content-type": b"text/plain"},
        {b"content-type": JSON, b"content-encoding": b"gzip"},
    ):
        with pytest.raises(HttpProblem) as raised:
            require_json(headers)
        assert raised.value.code == "unsupported_media_type"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        (b"localhost", True),
        (b"LOCALHOST:7480", True),
        (b"a.localhost", True),
        (b"127.0.0.1:7480", True),
        (b"192.0.2.7", True),
        (b"[::1]:7480", True),
        (b"[::1]", True),
        (b"", False),
        (b"evil.example", False),
        (b"localhost.evil.example", False),
        (b"127.0.0.1.evil.example", False),
        (b"localhost:x", False),
        (b"[::1", True),
        (b"evil.example:7480", False),
        (b"\xff", False),
    ],
)
def test_names_that_others_can_point_here_are_known(host: bytes, local: bool) -> None:
    assert is_local_host(host) == local


def test_line_ends_are_not_plain() -> None:
    assert is_plain(b"text/plain")
    assert not is_plain(b"text\r\nx")
    assert not is_plain(b"text\x00")
    assert not is_plain(b"\xc3\xa9")
