"""What the container file does, done without a container: it builds, and what it starts is a node.

Its instructions are carried out here with other folders in the place of the image's, and with
what is installed already in the place of the package index.
"""

import json
import os
import signal
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvorum.cli.main import app
from kvorum.cli.settings import DEFAULT_ADMIN_PORT, DEFAULT_HTTP_PORT
from kvorum.client.addresses import DEFAULT_PORT
from tests.support.container import copy_context, documented_run, texts_of
from tests.support.ports import free_row
from tests.support.waiting import wait_until

# Without the last, pip would take kvorum out of the environment that this test runs in.
INSTALLED_ALREADY = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build puts into the image's ``/usr/local``."""
    folder = tmp_path_factory.mktemp("image")
    copied, _ = texts_of("COPY")
    assert copied == ". /source"
    copy_context(folder / "source")
    words = json.loads(texts_of("RUN")[0])
    assert words[:2] == ["pip", "install"]
    for word in words[2:]:
        assert word in {"--no-cache-dir", "--prefix", "--constraint"} or word.startswith("/"), word
    placed = [
        word.replace("/source", f"{folder}/source").replace("/opt", f"{folder}/opt")
        for word in words
    ]
    command = [sys.executable, "-m", *placed, "--quiet", *INSTALLED_ALREADY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert texts_of("COPY")[1] == "--from=build /opt/kvorum /usr/local"
    return folder / "opt" / "kvorum"


def environment(image: Path) -> dict[str, str]:
    """Of a process that uses what is in the image before what is installed here."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = image / "lib" / version / "site-packages"
    assert (found / "kvorum" / "admin" / "page.html").exists()
    assert not (found / "tests").exists()
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(found), *site.getsitepackages()])}


@pytest.fixture
def node(image: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The node that ``podman run`` starts as documented, and the address of its admin port."""
    port = free_row(2)
    admin = f"127.0.0.1:{port + 1}"
    topology = tmp_path / "topology.json"
    made = CliRunner().invoke(app, ["init", str(topology), "--node", f"a=127.0.0.1:{port}"])
    assert made.exit_code == 0, made.output
    words = json.loads(texts_of("ENTRYPOINT")[0])
    run = documented_run()
    words += run[run.index("kvorum") + 1 :]
    places = {
        "/etc/kvorum/topology.json": str(topology),
        f"127.0.0.1:{DEFAULT_ADMIN_PORT}": admin,
        "/var/lib/kvorum/a": str(tmp_path / "a"),
    }
    assert set(places) <= set(words), "the documented command names other places"
    process = subprocess.Popen(
        [image / "bin" / words[0], *(places.get(word, word) for word in words[1:])],
        env=environment(image),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process, admin
    finally:
        process.kill()
        process.communicate()


def test_it_starts_a_node_that_is_healthy_and_stops_cleanly_when_told(
    image: Path, node: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, admin = node
    options, _, command = texts_of("HEALTHCHECK")[0].partition("CMD ")
    assert "--start-period" in options
    words = [word.replace(f"127.0.0.1:{DEFAULT_ADMIN_PORT}", admin) for word in json.loads(command)]
    assert words[0] == "python"
    assert admin in words[2]

    def healthy() -> bool:
        check = [sys.executable, *words[1:]]
        return not subprocess.run(check, capture_output=True, check=False).returncode

    wait_until(lambda: healthy() or process.poll() is not None, "the health check fails for ever")
    assert process.poll() is None, process.communicate()[0].decode()
    process.send_signal(signal.Signals[texts_of("STOPSIGNAL")[0]])
    said = process.communicate(timeout=20)[0].decode()
    assert process.returncode == 0, said
    told = [json.loads(line) for line in said.splitlines()]
    assert told[-1]["event"] == "stopped"
    assert told[-1]["clean"], "the signal is none that a node stops cleanly at"
    assert not healthy(), "the check does not fail without a node"


def test_ports_volumes_and_python_are_those_of_the_documentation() -> None:
    assert texts_of("EXPOSE")[0].split() == [
        str(port) for port in (DEFAULT_PORT, DEFAULT_HTTP_PORT, DEFAULT_ADMIN_PORT)
    ]
    run = documented_run()
    mounts = [run[at + 1].split(":") for at, word in enumerate(run) if word == "--volume"]
    (data,) = json.loads(texts_of("VOLUME")[0])
    topology, volume = mounts
    entry = json.loads(texts_of("ENTRYPOINT")[0])
    assert topology[1] == entry[entry.index("--topology") + 1]
    assert topology[2] == "ro"
    assert volume[1] == data
    assert run[run.index("--data") + 1].startswith(f"{data}/")
    (user,) = [json.loads(text) for text in texts_of("RUN") if "useradd" in text]
    assert user[-1] == "kvorum"
    assert user[user.index("--uid") + 1] == texts_of("USER")[0]
    assert user[user.index("--home-dir") + 1] == data, "the user could not write there"
    bases = {text.split()[0] for text in texts_of("FROM")}
    assert bases == {f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"}
