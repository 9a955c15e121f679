"""README and tutorial are run as they stand, and so are the examples."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import running_cluster
from tests.support.ports import free_row
from tests.support.sessions import Shell, matches

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = {
    "shopping_cart.py": """\
siblings: ['["book", "lamp"]', '["book", "pen"]']
merged:   ["book", "lamp", "pen"]
""",
    "many_at_once.py": """\
written: 1000
read:    1000
left:    0
""",
}


CART = """\
the cart after two shoppers wrote at the same time: 2 siblings
  ["book", "lamp"]
  ["book", "pen"]
merged and put back: ["book", "lamp", "pen"]
a put sent twice under one id was written once
deleted: 404
"""


@pytest.mark.parametrize(
    ("document", "at_least"),
    [
        ("README.md", 8),
        ("docs/tutorial/three-nodes-on-your-laptop.md", 20),
        ("docs/how-to/monitor.md", 4),
        ("docs/how-to/trace-a-request.md", 2),
        ("docs/how-to/use-curl.md", 18),
    ],
)
def test_what_the_document_shows_is_what_happens(
    tmp_path: Path, document: str, at_least: int
) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    with Shell(tmp_path, free_row(9)) as shell:
        assert shell.run(text) >= at_least


def test_every_example_runs() -> None:
    assert sorted(EXAMPLES) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))
    with running_cluster() as cluster:
        for name, expected in EXAMPLES.items():
            done = subprocess.run(
                [sys.executable, str(ROOT / "examples" / name)],
                env=os.environ | {"KVORUM_NODES": ",".join(cluster.addresses)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.stdout, done.stderr) == (expected, "")


def test_the_shopping_cart_needs_no_more_than_bash_and_curl() -> None:
    with running_cluster(http=True) as cluster:
        done = subprocess.run(
            ["bash", str(ROOT / "examples" / "shopping_cart.sh")],
            env=os.environ | {"KVORUM_HTTP": cluster.http_url("a")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr, done.returncode) == (CART, "", 0)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_a_document_that_is_wrong_is_noticed() -> None:
    assert matches("ok: a (os)\nx  y\n...\n", "ok: b\nx\ty\nanything\nat all\n")
    assert not matches("x y z", "x y")
    assert not matches("a.c", "abc")
