"""Finding out which members are there, at a load that does not grow with their number.

Each node runs rounds. In a round it probes one member, the next of a shuffled list, so that each
member is asked within a bounded time. If no ack comes within the probe timeout, some other
members are asked to probe it too; if none of them has reached it when the round ends, the member
is suspected, and everybody is told. A suspect that does not refute in time is declared dead. (SWIM,
Das et al. 2002.)

Three refinements keep a node from taking its own troubles for those of others (Lifeguard, Dadgar
et al. 2018):

- *local health*: who gets no acks, no nacks from healthy helpers, or has to refute, is likely slow
  itself, and probes more slowly and patiently;
- *suspicion timeouts* begin long and shrink with each independent confirmation. Their least value
  grows with the logarithm of the cluster's size, as a refutation takes longer to get around;
- *buddy*: a suspect hears first of all, with the next probe, that it is suspected.

And two of our own: a round that this node slept through judges nobody, and a node that hears
from nobody at all suspects, but declares nobody dead: it is more likely cut off itself. Whoever was
declared dead or has left is probed beside the rounds, so that it is found again.
"""

from typing import Final

from kvorum.config import NodeConfig
from kvorum.model.members import Belief, Members, State, doubted, refuted
from kvorum.protocol.environment import Environment
from kvorum.protocol.ports import Presence, Rumours, Watcher
from kvorum.protocol.timers import Timed, Timers
from kvorum.wire.gossip_messages import (
    Probe,
    ProbeAck,
    ProbeNack,
    ProbeRelayed,
    ProbeRequest,
)

HEALTH_MAX: Final = 8  # waits at most nine times as long as a healthy node
CONFIRMATIONS: Final = 3  # independent suspicions after which the timeout is the least
SHRINK_PERMILLE: Final = (0, 500, 792, 1000)  # log(c + 1) / log(CONFIRMATIONS + 1)
NACK_PERMILLE: Final = 800  # of the probe timeout, after which a helper says that it has no answer
TRIES_PER_HELPER: Final = 4  # draws, of which some hit members that cannot help
RELAYS_MAX: Final = 1024  # probes in others' place under way at a time
RELAY_PATIENCE: Final = 5_000_000


class _Rounds(Timed):
    """Wakes for each round."""

    __slots__ = ("_detector",)

    def __init__(self, detector: "FailureDetector") -> None:
        self._detector = detector

    def on_timer(self) -> None:
        self._detector.on_round()


class Round(Timed):
    """One member's probe, from its start to its judgement at the start of the next round."""

    __slots__ = (
        "_detector", "answered", "asked", "began", "incarnation", "nacks", "number", "target",
    )  # fmt: skip

    def __init__(self, detector: "FailureDetector", held: Belief, number: int, now: int) -> None:
        self._detector = detector
        self.target = held.member
        self.incarnation = held.incarnation
        self.number = number
        self.began = now
        self.answered = False
        self.asked = 0  # helpers
        self.nacks = 0  # of these, those that answered without having reached it either

    def on_timer(self) -> None:
        """The probe timeout has passed."""
        self._detector.ask_others(self)


class Relay(Timed):
    """A probe in another member's place, until it is answered or forgotten."""

    __slots__ = ("_detector", "answered", "asker", "began", "number", "target")

    def __init__(
        self, detector: "FailureDetector", asker: int, target: int, number: int, now: int
    ) -> None:
        self._detector = detector
        self.asker = asker
        self.target = target
        self.number = number  # the asker's
        self.began = now
        self.answered = False

    def on_timer(self) -> None:
        if not self.answered:
            self._detector.send_nack(self)


class Suspicion(Timed):
    """A member under suspicion, until it refutes or is declared dead."""

    __slots__ = ("_detector", "began", "confirmed_by", "deadline", "member", "mine")

    def __init__(self, detector: "FailureDetector", belief: Belief, now: int, mine: bool) -> None:
        self._detector = detector
        self.member = belief.member
        self.began = now
        self.deadline = 0
        self.mine = mine  # began with a probe of ours
        self.confirmed_by: dict[int, None] = {belief.by: None}  # the first is no confirmation

    def on_timer(self) -> None:
        self._detector.on_suspicion_due(self)


class FailureDetector(Watcher):
    """This node's probes and suspicions, and its answers to those of others."""

    __slots__ = (
        "_config", "_due", "_env", "_heard_at", "_interval", "_last_number", "_me", "_members",
        "_next", "_order", "_presence", "_relays", "_round", "_rounds", "_rumours", "_suspicions",
        "_timeout", "_timers", "_urgent", "_urgent_last", "health",
    )  # fmt: skip

    def __init__(
        self, env: Environment, members: Members, rumours: Rumours, presence: Presence,
        timers: Timers, config: NodeConfig, me: int,
    ) -> None:  # fmt: skip
        self._env = env
        self._members = members
        self._rumours = rumours
        self._presence = presence
        self._timers = timers
        self._config = config
        self._me = me
        self._interval = config.probe_interval_ms * 1000
        self._timeout = config.probe_timeout_ms * 1000
        self.health = 0  # 0 is well; the higher, the less this node trusts its own judgement
        self._heard_at = env.now  # from anybody
        self._last_number = 0
        self._order = [belief.member for belief in members.beliefs()]
        self._next = len(self._order)  # so that the first round shuffles them
        self._urgent: dict[int, None] = {}  # members whose connections have just ended
        self._urgent_last = False
        self._round: Round | None = None
        self._relays: dict[int, Relay] = {}  # our probe's number -> whose it is
        self._suspicions: dict[int, Suspicion] = {}
        self._rounds = _Rounds(self)
        self._due = env.now + env.random.randrange(self._interval)
        if len(members):
            timers.wake(self._due, self._rounds)

    # Rounds.

    def on_round(self) -> None:
        """Judge the round that ends, and begin the next one."""
        now = self._env.now
        slept = now - self._due > self._interval
        if slept:
            self._worsen(1)
        if self._round is not None and not slept:
            self._judge(self._round)
        self._forget_relays()
        self._round = None
        target = self._next_target()
        if target:
            self._probe(target)
        self._probe_gone()
        self._due = now + self._interval * (1 + self.health)
        self._timers.wake(self._due, self._rounds)

    def _next_target(self) -> int:
        """The next member to be probed; 0 if all are gone."""
        if self._urgent and not self._urgent_last:
            self._urgent_last = True
            member = next(iter(self._urgent))
            del self._urgent[member]
            if member not in self._members.gone:
                return member
        self._urgent_last = False
        for _ in range(len(self._members)):
            if self._next >= len(self._order):
                self._env.random.shuffle(self._order)
                self._next = 0
            member = self._order[self._next]
            self._next += 1
            if member not in self._members.gone:
                return member
        return 0

    def _probe(self, target: int) -> None:
        env = self._env
        number = self._number()
        held = self._members.of(target)
        assert held is not None
        self._round = Round(self, held, number, env.now)
        env.counters.probes += 1
        if env.send(target, Probe(number, env.now, self._rumours.news_for(target))):
            self._timers.wake(env.now + self._timeout * (1 + self.health), self._round)
        else:
            self.ask_others(self._round)

    def _probe_gone(self) -> None:
        """Probe one of those that are gone, in turn, if there is a connection to it at all."""
        gone = self._members.gone
        if gone:
            member = next(iter(gone))
            del gone[member]
            gone[member] = None
            self.greet(member)

    def greet(self, member: int) -> bool:
        """Probe a member outside the rounds, also to let it hear what is believed of it."""
        news = self._rumours.news_for(member)
        return self._env.send(member, Probe(self._number(), self._env.now, news))

    def doubt(self, member: int) -> None:
        """Our connection to the member has ended: probe it in one of the next rounds."""
        if member not in self._members.gone:
            self._urgent[member] = None

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def ask_others(self, round_: Round) -> None:
        """The target has not answered in time: ask it again, and others to probe it too."""
        if round_.answered or round_ is not self._round:
            return
        env = self._env
        news = self._rumours.news_for(round_.target)
        env.send(round_.target, Probe(round_.number, env.now, news))
        wanted = self._config.indirect_probes
        tried: dict[int, None] = {round_.target: None}
        for _ in range(TRIES_PER_HELPER * wanted):
            if round_.asked >= wanted:
                break
            helper = self._order[env.random.randrange(len(self._order))]
            if helper in tried:
                continue
            tried[helper] = None
            held = self._members.of(helper)
            if held is None or held.state != State.ALIVE:
                continue
            news = self._rumours.news_for(helper)
            if env.send(helper, ProbeRequest(round_.number, round_.target, news)):
                round_.asked += 1
        env.counters.indirect_probes += round_.asked

    def _judge(self, round_: Round) -> None:
        """The round is over: was there any sign of life?"""
        target = round_.target
        link = self._env.links.get(target)
        if round_.answered or (link is not None and link.heard_at > round_.began):
            self._improve()
            return
        if round_.asked:
            self._worsen(round_.asked - round_.nacks)
        else:
            self._worsen(1)
        self._env.counters.probes_failed += 1
        held = self._members.of(target)
        assert held is not None
        if held.state < State.DEAD and held.incarnation == round_.incarnation:
            # Under a higher one it has spoken to somebody since the round began.
            self._rumours.learn(doubted(held, State.SUSPECT, self._me))

    def _improve(self) -> None:
        if self.health:
            self.health -= 1

    def _worsen(self, by: int) -> None:
        self.health = min(self.health + by, HEALTH_MAX)

    # Messages.

    def on_message(self, member: int, nonce: bytes) -> None:
        """Whatever it is, the member is there to have sent it."""
        self._heard_at = self._env.now
        if self._round is not None and self._round.target == member:
            self._round.answered = True
        self._presence.on_heard(member, nonce)

    def on_probe(self, member: int, probe: Probe) -> ProbeAck:
        news = self._rumours.news_for(member)
        return ProbeAck(probe.number, probe.sent_at, self._env.wall, news)

    def on_ack(self, member: int, ack: ProbeAck) -> None:
        self._presence.learn_clock(member, ack.echo, ack.wall)
        relay = self._relays.get(ack.number)
        if relay is not None and relay.target == member:
            del self._relays[ack.number]
            relay.answered = True
            news = self._rumours.news_for(relay.asker)
            self._env.send(relay.asker, ProbeRelayed(relay.number, news))

    def on_request(self, member: int, request: ProbeRequest) -> ProbeNack | None:
        """Probe another member in this one's place."""
        if self._members.of(request.target) is None or len(self._relays) >= RELAYS_MAX:
            return ProbeNack(request.number)
        env = self._env
        number = self._number()
        news = self._rumours.news_for(request.target)
        if not env.send(request.target, Probe(number, env.now, news)):
            return ProbeNack(request.number)
        relay = self._relays[number] = Relay(self, member, request.target, request.number, env.now)
        self._timers.wake(env.now + self._timeout * NACK_PERMILLE // 1000, relay)
        return None

    def send_nack(self, relay: Relay) -> None:
        self._env.send(relay.asker, ProbeNack(relay.number))

    def _forget_relays(self) -> None:
        """Drop what was never answered; an ack that is only late is still passed on."""
        oldest = self._env.now - RELAY_PATIENCE
        for number, relay in list(self._relays.items()):
            if relay.began > oldest:
                break
            del self._relays[number]

    def on_relayed(self, relayed: ProbeRelayed) -> None:
        round_ = self._round
        if round_ is not None and round_.number == relayed.number:
            round_.answered = True

    def on_nack(self, nack: ProbeNack) -> None:
        round_ = self._round
        if round_ is not None and round_.number == nack.number and round_.nacks < round_.asked:
            round_.nacks += 1

    # Suspicions.

    def on_belief(self, held: Belief, belief: Belief) -> None:
        member = belief.member
        suspicion = self._suspicions.pop(member, None)
        if suspicion is not None and suspicion.mine and belief.state == State.ALIVE:
            self._env.counters.false_suspicions += 1
        if belief.state == State.SUSPECT:
            mine = belief.by == self._me
            if mine:
                self._env.counters.suspicions += 1
            suspicion = self._suspicions[member] = Suspicion(self, belief, self._env.now, mine)
            self._arm(suspicion)
        if belief.state != held.state:
            self._report(held, belief)

    def _report(self, held: Belief, belief: Belief) -> None:
        event = f"member_{belief.state.name.lower()}"
        self._env.report(
            event, member=belief.member, incarnation=belief.incarnation, by=belief.by,
            was=held.state.name.lower(),
        )  # fmt: skip

    def on_same(self, belief: Belief) -> bool:
        suspicion = self._suspicions.get(belief.member)
        if suspicion is None or belief.by in suspicion.confirmed_by or not belief.by:
            return False
        if len(suspicion.confirmed_by) > self._confirmations_wanted:
            return False
        suspicion.confirmed_by[belief.by] = None
        self._arm(suspicion)
        return True

    @property
    def _confirmations_wanted(self) -> int:
        """How many others must confirm before the timeout is the least; 0 where few could."""
        return CONFIRMATIONS if len(self._members) - 1 >= CONFIRMATIONS else 0

    def suspicion_timeout(self, confirmations: int) -> int:
        """How long a suspect has for its refutation."""
        config = self._config
        count = len(self._members) + 1
        # log10 n, as three tenths of the number of its binary digits; at least 1.
        tenths = max(10, 3 * count.bit_length())
        least = self._interval * config.suspicion_factor * tenths // 10
        if not self._confirmations_wanted:
            return least
        span = least * (config.suspicion_max_factor - 1)
        return least + span * (1000 - SHRINK_PERMILLE[confirmations]) // 1000

    def _arm(self, suspicion: Suspicion) -> None:
        confirmations = len(suspicion.confirmed_by) - 1
        suspicion.deadline = suspicion.began + self.suspicion_timeout(confirmations)
        self._timers.wake(suspicion.deadline, suspicion)

    def on_suspicion_due(self, suspicion: Suspicion) -> None:
        now = self._env.now
        if self._suspicions.get(suspicion.member) is not suspicion or now < suspicion.deadline:
            return  # Refuted, declared dead by somebody else, or a timer that others overtook.
        if self._heard_at <= suspicion.began and len(self._members) > 1:
            # Nobody at all was heard since: it is this node that is cut off.
            suspicion.deadline = now + self.suspicion_timeout(CONFIRMATIONS)
            self._timers.wake(suspicion.deadline, suspicion)
            return
        held = self._members.of(suspicion.member)
        assert held is not None
        self._env.counters.deaths_declared += 1
        self._rumours.learn(doubted(held, State.DEAD, self._me))

    def on_own(self, heard: Belief) -> None:
        """Refute what is said of this node, unless it is what it says itself."""
        own = self._rumours.own
        answer = refuted(own, heard)
        if answer is None:
            return
        if heard.state != State.ALIVE:
            self._env.counters.refutations += 1
            self._worsen(1)
        self._rumours.announce(answer)
