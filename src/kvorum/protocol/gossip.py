"""Spreading what is known of members, and of the documents they share, without talking to all.

What is news here becomes a *rumour* and rides on the messages that the failure detector sends
anyway: so many of them and so many bytes in each, those told least often first, each one told
about ``4 log2 n`` times (suspicions half as often, behind all else). That brings it to everybody
with high probability, at a load that does not depend on the size of the cluster. (SWIM, section
4.1; Demers et al. 1987.)

What a rumour has missed is found by comparing: every message names the versions of the sender's
topology and tables, and two nodes that differ make a *push-pull*, in which each tells the other
all it knows. One is also made with the first members met after a start, and one with a random
member at long intervals, which grow with the cluster so that their load does not.

Not here: what follows from a belief. Suspicion and refutation are the failure detector's, which
is told of each by ``Watcher``.
"""

from typing import Final

import msgspec

from kvorum.config import NodeConfig
from kvorum.model.members import FIRST_INCARNATION as FIRST
from kvorum.model.members import INCARNATION_MAX, Belief, Members, State, is_news
from kvorum.model.tables import TableSettings
from kvorum.protocol.environment import Environment
from kvorum.protocol.ports import Documents, Rumours, Watcher
from kvorum.protocol.timers import Timed, Timers
from kvorum.wire.gossip_messages import News, PushPull, PushPulled, TopologyTold

TELL_FACTOR: Final = 4  # a rumour is told this many times log2 n
BELIEFS_MAX: Final = 8  # rumours about members in one message
START_PULLS: Final = 3  # members asked for everything after a start
PULLED_MEMBERS: Final = 128  # in larger clusters the interval of push-pulls grows with n
CORRECTIONS_MAX: Final = 2  # of what the sender of one message has missed
COMPARED_MAX: Final = 256  # pairs of versions remembered
ID_BYTES_MAX: Final = 16  # of a store id, and of a nonce
MEMBER_BITS: Final = 16

_encode = msgspec.msgpack.Encoder().encode


class _Rumour:
    """Something that others may not know yet."""

    __slots__ = ("about", "size")

    def __init__(self, about: Belief | TableSettings) -> None:
        self.about = about
        self.size = len(_encode(about))


class _Pulls(Timed):
    """Wakes for the push-pull at long intervals."""

    __slots__ = ("_gossip",)

    def __init__(self, gossip: "Gossip") -> None:
        self._gossip = gossip

    def on_timer(self) -> None:
        self._gossip.pull_again()


class Gossip(Rumours):
    """What this node has to tell, and what it has heard."""

    __slots__ = (
        "_bytes_max", "_compared", "_config", "_corrections", "_documents", "_env", "_me",
        "_members", "_number", "_pulls", "_pulls_left", "_queues", "_timers", "_told", "own",
        "watcher",
    )  # fmt: skip

    watcher: Watcher  # set by whoever joins the two

    def __init__(
        self, env: Environment, members: Members, documents: Documents, timers: Timers,
        config: NodeConfig, own: Belief,
    ) -> None:  # fmt: skip
        self._env = env
        self._members = members
        self._documents = documents
        self._timers = timers
        self._config = config
        self._bytes_max = config.gossip_bytes_max
        self._me = own.member
        self.own = own
        self._number = 0
        self._corrections: dict[int, dict[int, Belief]] = {}  # teller -> what it has missed
        self._compared: dict[tuple[int, int, int, int], int] = {}  # their versions, ours -> when
        # By how often they were told; in each, by what they are about, oldest first.
        times = TELL_FACTOR * (len(members) + 1).bit_length()
        self._queues: list[dict[int | bytes, _Rumour]] = [{} for _ in range(times)]
        self._told: dict[int | bytes, int] = {}  # which queue each stands in
        self._pulls = _Pulls(self)
        self._pulls_left = START_PULLS
        if len(members):
            timers.wake(env.now + self._pull_pause(), self._pulls)

    # What is heard.

    def learn(self, belief: Belief) -> None:
        self._learn(belief, old=belief.state == State.ALIVE and belief.incarnation == FIRST)

    def _learn(self, belief: Belief, old: bool) -> None:
        """Take in a belief; what is ``old`` is passed on only by those who knew the member.

        A member's first word changes nothing, and it says it to each by itself. And what a node
        hears in its first push-pulls is news to itself alone.
        """
        if not _is_sound(belief):
            return
        if belief.member == self._me:
            self.watcher.on_own(belief)
            return
        held = self._members.of(belief.member)
        if held is None:
            return  # The topology has no such member here.
        if self._members.take(belief, self._env.now):
            if held.incarnation or held.state or not old:
                self._spread(belief.member, belief)
            self.watcher.on_belief(held, belief)
        elif (
            belief.state == State.SUSPECT
            and held.state == State.SUSPECT
            and belief.incarnation == held.incarnation
            and self.watcher.on_same(belief)
        ):
            self._spread(belief.by << MEMBER_BITS | belief.member, belief)

    def announce(self, own: Belief) -> None:
        self.own = own  # It stands in every message from now on.

    def take(self, member: int, news: News) -> None:
        """Learn what came with a message of ``member``."""
        if news.own.member == member:
            self.learn(news.own)
            self._correct(member, news.own)
        for belief in news.beliefs:
            self.learn(belief)
            if belief.state != State.ALIVE:
                self._correct(member, belief)
        if news.tables:
            self._documents.learn_tables(news.tables)
        if (
            news.tables_version != self._documents.tables_version
            or news.topology_epoch > self._documents.topology_epoch
        ):
            self._compare(member, news)

    def _correct(self, teller: int, belief: Belief) -> None:
        """If the teller has missed something, let it hear that with our next message.

        So do members that have started anew, of what their past has said; and whoever a
        refutation has not reached.
        """
        held = self._members.of(belief.member)
        if held is not None and is_news(belief, held):
            corrections = self._corrections.setdefault(teller, {})
            if len(corrections) < CORRECTIONS_MAX:
                corrections[belief.member] = held

    # What is told.

    def spread_table(self, settings: TableSettings) -> None:
        """Settings of a table have changed, here or where they were heard from."""
        self._spread(settings.id, settings)

    def _spread(self, key: int | bytes, about: Belief | TableSettings) -> None:
        """Tell something new; what was told about the same before is old."""
        if not self._members:
            return
        told = self._told.get(key)
        if told is not None:
            del self._queues[told][key]
        # A suspicion waits for refutations, and is told half as often: where many are suspected
        # falsely, what clears them must not be crowded out.
        start = 0
        if type(about) is Belief and about.state is State.SUSPECT:
            start = len(self._queues) // 2
        self._queues[start][key] = _Rumour(about)
        self._told[key] = start

    def news_for(self, member: int) -> News:
        documents = self._documents
        news = News(self.own, documents.topology_epoch, documents.tables_version, [], [])
        held = self._members.of(member)
        corrections = self._corrections.pop(member, None)
        if corrections is not None:
            news.beliefs.extend(corrections.values())
        if held is not None and held.state != State.ALIVE and held not in news.beliefs:
            news.beliefs.append(held)  # Whoever is doubted shall hear it first, to refute.
        if self._told:
            self._fill(news, member)
        return news

    def _fill(self, news: News, target: int) -> None:
        """Add rumours, those told least often first, as long as there is room."""
        room = self._bytes_max
        addressed = len(news.beliefs)  # what stands there already
        queues = self._queues
        last = len(queues) - 1
        taken: list[tuple[int, int | bytes, _Rumour]] = []
        for told, queue in enumerate(queues):
            for key, rumour in queue.items():
                about = rumour.about
                if rumour.size > room:
                    break
                if type(about) is Belief:
                    if about.member == target and about.by == 0:
                        continue  # It is the target's own word.
                    if not addressed or about not in news.beliefs[:addressed]:
                        news.beliefs.append(about)
                else:
                    assert isinstance(about, TableSettings)
                    news.tables.append(about)
                room -= rumour.size
                taken.append((told, key, rumour))
                if len(taken) >= BELIEFS_MAX:
                    break
            else:
                continue
            break
        for told, key, rumour in taken:
            del queues[told][key]
            if told < last:
                queues[told + 1][key] = rumour
                self._told[key] = told + 1
            else:
                del self._told[key]

    # Push-pull.

    def on_open(self, member: int) -> None:
        """A connection to ``member`` stands; the first ones after a start are asked for all."""
        if self._pulls_left:
            self._pulls_left -= 1
            self._pull(member)

    def pull_again(self) -> None:
        """Compare everything with somebody."""
        candidates = [
            belief.member for belief in self._members.beliefs() if belief.state < State.DEAD
        ]
        if candidates:
            self._pull(self._env.random.choice(candidates))
        self._timers.wake(self._env.now + self._pull_pause(), self._pulls)

    def _pull_pause(self) -> int:
        interval = self._config.push_pull_interval_ms * 1000
        pause = interval * (1 + len(self._members) // PULLED_MEMBERS)
        return pause + self._env.random.randrange(pause // 8)

    def _compare(self, member: int, news: News) -> None:
        """The member's versions differ from ours: make them equal, once for each pair of versions.

        A pair that a push-pull has not made equal holds something that one side refuses.
        """
        documents = self._documents
        pair = (
            news.tables_version, news.topology_epoch, documents.tables_version,
            documents.topology_epoch,
        )  # fmt: skip
        now = self._env.now
        tried = self._compared.get(pair)
        if tried is not None and now - tried < self._config.push_pull_interval_ms * 1000:
            return
        if len(self._compared) >= COMPARED_MAX:
            self._compared.clear()
        if self._pull(member):
            self._compared[pair] = now

    def _pull(self, member: int) -> bool:
        self._number += 1
        sent = self._env.send(member, PushPull(self._number, self._everything()))
        if sent:
            self._env.counters.push_pulls += 1
        return sent

    def _everything(self) -> News:
        documents = self._documents
        return News(
            self.own,
            documents.topology_epoch,
            documents.tables_version,
            self._members.beliefs(),
            [],
        )

    def on_pull(self, member: int, asked: PushPull) -> PushPulled:
        # Compared below, in the answer, and not by yet another push-pull.
        self._learn_all(member, asked.news)
        documents = self._documents
        everything = self._everything()
        if asked.news.tables_version != everything.tables_version:
            everything.tables.extend(documents.all_tables())
        document = b""
        if asked.news.topology_epoch < everything.topology_epoch:
            document = documents.topology_document()
        return PushPulled(asked.number, everything, document)

    def on_pulled(self, member: int, told: PushPulled) -> None:
        """Learn it all, and tell the member what it lacks."""
        documents = self._documents
        self._learn_all(member, told.news)
        if told.document:
            documents.learn_topology(told.document)
        if told.news.topology_epoch < documents.topology_epoch:
            self._env.send(member, TopologyTold(documents.topology_document()))
        if told.news.tables_version != documents.tables_version:
            documents.tell_tables(member)

    def _learn_all(self, member: int, news: News) -> None:
        if news.own.member == member:
            self.learn(news.own)
        for belief in news.beliefs:
            self._learn(belief, old=True)
        if news.tables:
            self._documents.learn_tables(news.tables)


def _is_sound(belief: Belief) -> bool:
    """Whether an honest member can have said this; what cannot be is not passed on."""
    return (
        0 <= belief.incarnation <= INCARNATION_MAX
        and len(belief.store_id) <= ID_BYTES_MAX
        and len(belief.nonce) <= ID_BYTES_MAX
        and 0 <= belief.by < 1 << MEMBER_BITS
    )
