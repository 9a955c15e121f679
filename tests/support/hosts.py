"""Hosts of a network of their own: namespaces on one bridge, cut, slowed and made to lose packets.

    with Hosts(["a", "b", "c", "client"]) as hosts:
        hosts.enter("a")              # the words that run a command there
        hosts.cut("a", "b")           # nothing passes either way; hosts.heal() ends all cuts
        hosts.cut_one_way("a", "b")   # what a sends never reaches b
        hosts.lose("c", 0.2)          # a fifth of what reaches c is lost
        hosts.delay("c", 0.02)        # and what is not comes late

The bridge stands in a namespace too, so nothing of it can be reached from outside, and all of it
goes when the block ends. Tests that use it need root, namespaces and a
packet filter.
"""

import os
import subprocess
import sys
from types import TracebackType
from typing import Self

ADDRESS = "10.77.0.{}"
FIRST = 11


class Hosts:
    """One network and its hosts, by name."""

    def __init__(self, names: list[str]) -> None:
        self._prefix = f"kvorum-{os.getpid()}-"
        self._names = list(names)
        self._refused: dict[str, list[str]] = {name: [] for name in names}
        self._delays: dict[str, subprocess.Popen[bytes]] = {}
        self.address = {name: ADDRESS.format(FIRST + i) for i, name in enumerate(names)}

    def __enter__(self) -> Self:
        hub = self._space("hub")
        try:
            _run("ip", "netns", "add", hub)
            _run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", hub, "link", "set", "bridge", "up")
            for name in self._names:
                self._add(name, hub)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._remove()

    def _space(self, name: str) -> str:
        return self._prefix + name

    def _add(self, name: str, hub: str) -> None:
        space = self._space(name)
        _run("ip", "netns", "add", space)
        link = f"to-{name}"
        _run("ip", "-n", hub, "link", "add", link, "type", "veth", "peer", "name", "eth0",
             "netns", space)  # fmt: skip
        _run("ip", "-n", hub, "link", "set", link, "master", "bridge", "up")
        _run("ip", "-n", space, "addr", "add", f"{self.address[name]}/24", "dev", "eth0")
        _run("ip", "-n", space, "link", "set", "eth0", "up")
        _run("ip", "-n", space, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for process in self._delays.values():
            _end(process)
        for name in [*self._names, "hub"]:
            subprocess.run(
                ["ip", "netns", "del", self._space(name)], capture_output=True, check=False
            )

    def enter(self, name: str) -> list[str]:
        """What stands before a command that is to run on this host.

        Not ``ip netns exec``: its mounts would keep file systems alive that others have unmounted.
        """
        return ["nsenter", f"--net=/run/netns/{self._space(name)}", "--"]

    # What befalls the network.

    def cut_one_way(self, sender: str, target: str) -> None:
        """What ``sender`` sends no longer reaches ``target``; connections stay, and hang."""
        self._refused[target].append(self.address[sender])
        self._filter(target)

    def cut(self, one: str, other: str) -> None:
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def isolate(self, name: str, *others: str) -> None:
        """Cut one host off from these."""
        for other in others:
            self.cut(name, other)

    def heal(self) -> None:
        """Everything passes again; losses and delays end too."""
        for name, process in self._delays.items():
            _run(*self.enter(name), "iptables", "-F", "INPUT")
            _end(process)
        self._delays.clear()
        for name, refused in self._refused.items():
            if refused:
                refused.clear()
                self._filter(name)
        for name in self._names:
            _run(*self.enter(name), "iptables", "-F", "INPUT")

    def _filter(self, name: str) -> None:
        rules = [
            "add table inet cut",
            "add chain inet cut input { type filter hook input priority 0; }",
            "flush chain inet cut input",
        ]
        senders = dict.fromkeys(self._refused[name])
        rules += [f"add rule inet cut input ip saddr {sender} drop" for sender in senders]
        _run(*self.enter(name), "nft", "-f", "-", text="\n".join(rules) + "\n")

    def lose(self, name: str, share: float) -> None:
        """Drop a random share of the packets that reach a host."""
        _run(*self.enter(name), "iptables", "-A", "INPUT", "-m", "statistic", "--mode", "random",
             "--probability", str(share), "-j", "DROP")  # fmt: skip

    def delay(self, name: str, seconds: float) -> None:
        """Hold every packet that reaches a host for so long."""
        command = [*self.enter(name), sys.executable, "-m", "tests.support.delay", str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._delays[name] = process
        assert process.stdout is not None
        assert process.stdout.readline(), "the delaying process has ended"
        _run(*self.enter(name), "iptables", "-A", "INPUT", "-j", "NFQUEUE", "--queue-num", "7",
             "--queue-bypass")  # fmt: skip


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
