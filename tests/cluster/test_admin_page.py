"""The admin page in a real browser, against real nodes and against a cluster larger than any here.

Pictures of what it looked like are kept in ``test-results``.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from random import Random
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver.common.keys import Keys

from kvorum.admin.repairs import TO_DO, WORK
from kvorum.admin.service import policy_of
from kvorum.counters import DURATION_BOUNDS, MEANINGS
from tests.support.browser import Browser, open_browser
from tests.support.cluster import RunningCluster, running_cluster
from tests.support.http import ask
from tests.support.requirements import requires

pytestmark = requires("chromium")

SHOWN_WITHIN_SECONDS = 5
PAGE = files("kvorum.admin").joinpath("page.html").read_bytes()


def open_page(browser: Browser, cluster: RunningCluster, name: str = "a") -> str:
    admin = cluster.processes[name].admin
    browser.get(f"http://{admin}/")
    browser.wait_until(lambda: browser.find_all("#members tr"), "no members are shown")
    return str(admin)


def states(browser: Browser) -> dict[str, str]:
    """What the page says of each member."""
    rows = browser.find_all("#members tr")
    return {
        row.get_attribute("data-member") or "": row.find_element("css selector", ".pill").text
        for row in rows
    }


def beliefs(browser: Browser) -> dict[str, str]:
    """What the page says that its node believes of each member."""
    rows = browser.find_all("#members tr")
    return {
        row.get_attribute("data-member") or "": row.find_element("css selector", ".belief").text
        for row in rows
    }


def test_the_ring_and_members_are_shown_and_a_killed_node_within_five_seconds() -> None:
    with running_cluster(admin=True) as cluster, open_browser(1280, 900) as browser:
        admin = open_page(browser, cluster)
        browser.wait_until(lambda: states(browser) == dict.fromkeys("abc", "up"), "all are up")
        assert browser.text("#verdict") == (
            "All 3 nodes answer. Every partition has all its 3 owners."
        )
        assert _painted(browser, "ring") > 0.2, "the ring is drawn"
        with cluster.connect() as client:
            rows = client.table("default")
            for index in range(300):
                rows.put(f"key {index % 50}", b"book")
                rows.get(f"key {index % 50}")
        browser.wait_until(
            lambda: browser.text("#latencies .figure:first-child b") != "–", "no latency is shown"
        )
        browser.keep_picture("three-nodes")

        cluster.processes["c"].kill()
        took = browser.wait_until(
            lambda: states(browser)["c"] == "no answer", "c was killed and seems to live"
        )
        assert took < SHOWN_WITHIN_SECONDS
        browser.wait_until(
            lambda: browser.text("#verdict").startswith("1 node does not answer: c."), "no verdict"
        )
        assert "at least 2 of 3 owners" in browser.text("#verdict")
        browser.wait_until(lambda: "peer lost" in browser.text("#events"), "no event tells of it")
        assert browser.text("#believer") == "Believed by a"
        assert {**beliefs(browser), "c": ""} == {"a": "itself", "b": "alive", "c": ""}
        browser.wait_until(lambda: beliefs(browser)["c"].startswith("dead, for "), "c lives on")
        browser.run("document.documentElement.dataset.theme = 'dark'; redraw()")
        browser.keep_picture("one-is-dead-dark")
        assert browser.hosts() == {admin}
        assert browser.complaints() == []


def _painted(browser: Browser, canvas: str) -> float:
    """Which share of a canvas has something on it."""
    return float(
        browser.run(
            f"const c = document.getElementById('{canvas}');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n++;"
            "return n / (d.length / 4)"
        )
    )


def test_hints_that_wait_are_shown_with_their_age_and_gone_once_handed_over() -> None:
    with running_cluster(nodes=4, admin=True) as cluster, open_browser(1280, 900) as browser:
        open_page(browser, cluster)
        browser.wait_until(lambda: browser.find_all("#work tbody.kind"), "no work is shown")
        assert browser.text("#repairs-summary") == "no hint waits"
        assert not browser.find("#owed-table").is_displayed()
        cluster.processes["d"].kill()
        browser.wait_until(lambda: states(browser)["d"] == "no answer", "d is shown as alive")
        with cluster.connect("a") as client:
            for number in range(60):
                client.table("default").put(f"key {number}", b"book")
        browser.wait_until(lambda: "wait, the oldest" in browser.text("#repairs-summary"), "none")
        rows = [row.text.split() for row in browser.find_all("#owed tr")]
        assert {row[1] for row in rows} == {"d"}
        status = ask(cluster.processes["a"].admin, "/api/status").json()["nodes"]
        kept = {name: node["hints"] for name, node in status.items() if node.get("hints")}
        assert {row[0]: int(row[2]) for row in rows} == kept
        taken = browser.find("[data-counter=hints_taken] td:last-child").text
        assert int(taken) >= sum(kept.values()) > 0
        browser.keep_picture("hints-wait")
        assert browser.too_faint() == []
        browser.run("document.documentElement.dataset.theme = 'dark'; redraw()")
        browser.keep_picture("hints-wait-dark")
        assert browser.too_faint() == []
        cluster.start_again("d")
        browser.wait_until(lambda: browser.text("#repairs-summary") == "no hint waits", "they stay")
        assert not browser.find("#owed-table").is_displayed()
        handed = "[data-counter=hints_handed] td:last-child"
        assert int(browser.find(handed).text) >= sum(kept.values())
        assert browser.complaints() == []


def test_siblings_of_two_clients_are_merged_and_nothing_is_written_unasked() -> None:
    with running_cluster(admin=True) as cluster, open_browser(1100, 900) as browser:
        with cluster.connect("a") as one, cluster.connect("b") as two:
            one.table("default").put("cart", b"book")
            two.table("default").put("cart", b"pen")
            rows = one.table("default")
            admin = open_page(browser, cluster, "b")
            browser.wait_until(lambda: browser.find_all("#ask-table option"), "no tables")
            browser.find("#ask-key").send_keys("cart", Keys.ENTER)
            browser.wait_until(lambda: len(browser.find_all(".sibling")) == 2, "no siblings")
            assert "2 siblings" in browser.text("#answer-text")
            shown = {each.text for each in browser.find_all(".sibling pre")}
            assert shown == {"book", "pen"}
            assert "every owner is current" in browser.text("#owners-text")
            on_disk = {row.text for row in browser.find_all("#owners-rows td:nth-child(3)")}
            assert on_disk == {"never, it is in memory only"}
            browser.find("#merge-join").click()
            merged = browser.find("#merged").get_attribute("value") or ""
            assert sorted(merged.splitlines()) == ["book", "pen"]
            browser.keep_picture("siblings")
            assert browser.too_faint() == []

            browser.find("#merge-go").click()
            browser.wait_until(lambda: browser.find("#sure").is_displayed(), "nobody is asked")
            assert "in place" not in browser.text("#answer-text")
            browser.keep_picture("are-you-sure")
            browser.find("#sure").send_keys(Keys.ESCAPE)
            browser.wait_until(lambda: not browser.find("#sure").is_displayed(), "it stays")
            assert len(rows.get("cart").values) == 2, "it was written although nobody agreed"

            browser.find("#merge-go").click()
            browser.wait_until(lambda: browser.find("#sure").is_displayed(), "nobody is asked")
            browser.find("#sure-yes").click()
            browser.wait_until(
                lambda: "Written: " in browser.text("#answer-text"), "it says nothing of the write"
            )
            assert len(browser.find_all(".sibling")) == 1
            (value,) = rows.get("cart").values
            assert sorted(value.splitlines()) == [b"book", b"pen"]
        assert browser.hosts() == {admin}
        assert browser.complaints() == []


def test_a_write_that_too_few_confirm_is_not_called_unwritten() -> None:
    with running_cluster(admin=True) as cluster, open_browser(1100, 900) as browser:
        with cluster.connect() as client:
            client.table("default").put("cart", b"book")
        open_page(browser, cluster)
        browser.wait_until(lambda: browser.find_all("#ask-table option"), "no tables")
        browser.find("#ask-key").send_keys("cart", Keys.ENTER)
        browser.wait_until(lambda: len(browser.find_all(".sibling")) == 1, "no value")
        browser.find("#merge-go").click()
        browser.wait_until(lambda: browser.find("#sure").is_displayed(), "nobody is asked")
        for name in "bc":
            cluster.processes[name].pause()
        browser.find("#sure-yes").click()
        browser.wait_until(lambda: "ritten" in browser.text("#answer-text"), "it says nothing")
        for name in "bc":
            cluster.processes[name].resume()
        assert "Whether the value is written is unknown" in browser.text("#answer-text")


def test_the_page_says_when_its_node_is_gone_and_when_it_is_back() -> None:
    with running_cluster(admin=True) as cluster, open_browser(1100, 900) as browser:
        open_page(browser, cluster)
        assert not browser.find("#gone").is_displayed()
        cluster.processes["a"].kill()
        took = browser.wait_until(lambda: browser.find("#gone").is_displayed(), "a is gone")
        assert took < SHOWN_WITHIN_SECONDS
        assert "Node a is gone: it cannot be reached." in browser.text("#gone")
        browser.keep_picture("its-node-is-gone")
        assert browser.too_faint() == []
        cluster.start_again("a")
        browser.wait_until(lambda: not browser.find("#gone").is_displayed(), "a is back")
        cluster.processes["a"].pause()
        took = browser.wait_until(lambda: browser.find("#gone").is_displayed(), "a is mute")
        assert "it does not answer in time" in browser.text("#gone")
        cluster.processes["a"].resume()
        browser.wait_until(lambda: not browser.find("#gone").is_displayed(), "a speaks again")


def test_a_keyboard_and_a_phone_are_enough() -> None:
    with running_cluster(admin=True) as cluster, open_browser(500, 900) as browser:
        open_page(browser, cluster)
        browser.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True},
        )
        wide = browser.run("return document.documentElement.scrollWidth")
        assert wide <= 390, "one must scroll sideways"
        ring = browser.find("#ring")
        ring.send_keys(Keys.ARROW_RIGHT)
        browser.wait_until(lambda: "Partition 0:" in browser.text("#ring-text"), "no partition")
        ring.send_keys(Keys.ARROW_LEFT)
        browser.wait_until(lambda: "Partition 63:" in browser.text("#ring-text"), "not around")
        ring.send_keys(Keys.ESCAPE)
        browser.find("#legend button").send_keys(Keys.ENTER)
        browser.wait_until(lambda: "a owns 64 partitions" in browser.text("#ring-text"), "no owner")
        browser.keep_picture("phone")
        browser.run("document.documentElement.dataset.theme = 'dark'; redraw()")
        browser.keep_picture("phone-dark")
        nameless = browser.run(
            "return [...document.querySelectorAll('button, input, select, textarea, canvas, a')]"
            ".filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()"
            " && !e.getAttribute('aria-label')).map(e => e.id || e.outerHTML)"
        )
        assert nameless == [], "a screen reader has no name for these"
        ids = browser.run(
            "return [...document.querySelectorAll('[aria-labelledby], [aria-describedby]')]"
            ".flatMap(e => ['aria-labelledby', 'aria-describedby'].map(n => e.getAttribute(n)))"
            ".filter(id => id && !document.getElementById(id))"
        )
        assert ids == []
        assert browser.run("return document.querySelectorAll('h1').length") == 1


class LargeCluster:
    """What the port of a node among a hundred, with 1,024 partitions, would answer."""

    def __init__(self) -> None:
        self.dice = Random(100)
        self.asked = 0
        names = [f"node-{index}" for index in range(1, 101)]
        self.members = [
            {"id": index, "name": name, "address": f"10.0.0.{index}:7401", "zone": f"z{index % 3}"}
            for index, name in enumerate(names, 1)
        ]
        self.partitions = [self.dice.sample(range(1, 101), 3) for _ in range(1024)]
        self.durations = {name: [0] * (len(DURATION_BOUNDS) + 1) for name in names}

    def answer(self, path: str) -> Any:
        if path == "/api/about":
            return {
                "node": "node-1", "software": "kvorum 1", "counters": MEANINGS,
                "duration_bounds_us": DURATION_BOUNDS,
            }  # fmt: skip
        if path == "/api/topology":
            return {
                "cluster": "00" * 8, "epoch": 1, "n": 3, "members": self.members,
                "partitions": self.partitions,
            }  # fmt: skip
        if path == "/api/overview":
            self.asked += 1
            nodes = {
                str(member["name"]): self._node(str(member["name"])) for member in self.members
            }
            believes = {
                name: {"belief": self.dice.choice(("alive", "suspect", "dead")), "for_us": 10**7}
                for name in list(nodes)[1:]
            }
            return {
                "at_us": self.asked * 1_000_000, "topology_epoch": 1, "nodes": nodes,
                "believes": believes,
            }  # fmt: skip
        if path == "/api/repairs":
            return self._repairs()
        return []

    def _repairs(self) -> dict[str, Any]:
        names = [str(member["name"]) for member in self.members]
        owed = [
            {"keeper": keeper, "owner": names[0], "hints": 9, "bytes": 99, "oldest_us": 10**9}
            for keeper in names
        ]
        to_do = {name: dict.fromkeys(TO_DO, self.dice.randrange(9)) for name in names}
        work = {kind: dict.fromkeys(counters, self.asked * 7) for kind, counters in WORK.items()}
        return {
            "hints": 900, "hints_oldest_us": 10**9, "owed": owed, "owed_left_out": 9800,
            "differ": [{"node": name, "peer": "node-1"} for name in names], "differ_left_out": 5,
            "to_do": to_do, "work": work,
        }  # fmt: skip

    def _node(self, name: str) -> dict[str, Any]:
        if self.dice.random() < 0.05:
            return {"answers": False, "problems": ["Connection refused"]}
        counts = self.durations[name]
        for bucket in range(len(counts)):
            counts[bucket] += self.dice.randrange(100)
        return {
            "answers": True, "problems": ["gets no answers from node-7"] * (self.asked % 2),
            "writable": True, "engine": "lmdb", "volatile": False, "software": "kvorum 1",
            "uptime_us": self.asked * 1_000_000, "start_count": 1, "partitions_owned": 31,
            "in_flight": self.dice.randrange(99), "overlay_bytes": self.dice.randrange(1 << 24),
            "queued_bytes": self.dice.randrange(1 << 20), "clock_offset_us": 30,
            "counters": dict.fromkeys(MEANINGS, self.asked * 7),
            "operations": [
                [table, operation, self.asked, 0, counts]
                for table in ("default", "carts", "sessions", "profiles")
                for operation in ("get", "put", "delete")
            ],
        }  # fmt: skip


@contextmanager
def large_cluster() -> Iterator[str]:
    """The address of a page whose answers are those of ``LargeCluster``."""
    cluster = LargeCluster()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            kind = "text/html" if path == "/" else "application/json"
            body = PAGE if path == "/" else json.dumps(cluster.answer(path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", policy_of(PAGE))
            self.end_headers()
            with suppress(ConnectionError):  # The browser leaves when the test does.
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_hundred_nodes_and_1024_partitions_never_keep_the_page_busy() -> None:
    with large_cluster() as address, open_browser(1280, 900, trace=True) as browser:
        browser.get(f"http://{address}/")
        browser.wait_until(
            lambda: browser.run("return document.querySelectorAll('#members tr').length") == 100,
            "no members",
        )
        browser.wait_until(lambda: browser.run("return state.windows.length") >= 4, "no figures")
        browser.find("#ring").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        browser.run("document.querySelector('#members tr:nth-child(7)').click()")
        browser.wait_until(lambda: browser.run("return state.windows.length") >= 7, "no figures")
        assert browser.longest_task_ms() < 100
        browser.keep_picture("a-hundred-nodes")
        assert browser.complaints() == []
