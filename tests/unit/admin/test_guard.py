"""No website can use the administration port through the browser of whoever runs the cluster."""

import socket

import pytest
from starlette.responses import PlainTextResponse

from kvorum.admin.guard import Guard, host_of
from tests.support.admin import Answer, ask

POLICY = "default-src 'none'"
GUARD = Guard(PlainTextResponse("in"), ["db-1.internal", "10.1.2.3"], POLICY)


def asked(path: str = "/", method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(GUARD, path, method=method, headers=named)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7490", "127.0.0.1", "localhost:9999", "LocalHost", "localhost.", "[::1]:7490",
        "[::1]", "10.1.2.3:80", "192.0.2.9:1", "db-1.internal:7490", socket.gethostname(),
    ],
)  # fmt: skip
def test_what_the_node_goes_by_and_addresses_in_figures_pass(host: str) -> None:
    assert asked(host=host).body == b"in"


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:7490", "localhost.evil.example", "127.0.0.1.evil.example",
        "evil.example#localhost", "localhost:7490:1", "localhost:x", "[localhost]", "[::1",
        "[::1]x", "127.0.0.1@evil.example", "user@localhost",
    ],
)  # fmt: skip
def test_any_other_host_is_misdirected(host: str) -> None:
    answer = asked(host=host)
    assert answer.status == 421
    assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:7490", "http://127.0.0.1:1", ""]
)
def test_a_foreign_origin_is_refused_and_none_at_all_is_no_browser(origin: str) -> None:
    answer = asked("/api/key", "POST", origin=origin)
    assert answer.status == (403 if origin else 200)


def test_the_own_origin_passes() -> None:
    assert asked("/api/key", "POST", origin="http://127.0.0.1:7490").body == b"in"
    assert asked(host="LOCALHOST:1", origin="http://localhost:1").body == b"in"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_the_browser_says_another_site_asked_for_is_refused(site: str) -> None:
    assert asked("/api/status", sec_fetch_site=site).status == 403
    assert asked("/", sec_fetch_site=site, sec_fetch_mode="no-cors").status == 403
    assert asked("/", "POST", sec_fetch_site=site, sec_fetch_mode="navigate").status == 403


def test_a_link_elsewhere_may_lead_to_the_page_and_the_page_may_ask() -> None:
    assert asked("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200
    assert asked("/api/status", sec_fetch_site="same-origin").status == 200
    assert asked("/", sec_fetch_site="none").status == 200


def test_every_answer_forbids_to_load_from_elsewhere_and_to_be_framed() -> None:
    for answer in (asked(), asked(host="evil.example")):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"


def test_a_host_header_is_a_name_and_perhaps_a_port() -> None:
    assert host_of("a.example:80") == "a.example"
    assert host_of("[2001:db8::1]:80") == "2001:db8::1"
    assert host_of("a.example:") == "a.example"
