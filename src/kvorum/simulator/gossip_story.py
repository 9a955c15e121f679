"""Gossip as people read it: who asks after whom, what rides along, and what comes to be believed.

Probes and acks that bring nothing new are left out, as long as they can arrive: there are some of
them in every second.
"""

from collections.abc import Callable
from typing import Any

from kvorum.model.members import Belief, Members, is_news
from kvorum.wire.gossip_messages import (
    GossipMessage,
    News,
    Probe,
    ProbeAck,
    ProbeNack,
    ProbeRelayed,
    ProbeRequest,
    PushPull,
    PushPulled,
    TopologyTold,
)

Host = Callable[[int], str]


def gossip_line(message: GossipMessage, target: Members | None, host: Host) -> str:
    """What is said, or an empty string if it is not worth telling.

    ``target`` is what the receiver believes now; None if the message cannot arrive.
    """
    match message:
        case Probe():
            told = target is None or _brings_news(message.news, target)
            return _line("Probe", message.news, host) if told else ""
        case ProbeAck():
            told = target is None or _brings_news(message.news, target)
            return _line("ProbeAck", message.news, host) if told else ""
        case ProbeRequest():
            return _line(f"ProbeRequest of {host(message.target)}", message.news, host)
        case ProbeRelayed():
            return _line("ProbeRelayed", message.news, host)
        case ProbeNack():
            return "ProbeNack"
        case PushPull():
            return _line("PushPull", message.news, host)
        case PushPulled():
            return _line("PushPulled", message.news, host)
        case TopologyTold():
            return "TopologyTold"
    return ""


def _brings_news(news: News, target: Members) -> bool:
    held = target.of(news.own.member)
    return bool(news.beliefs or news.tables) or (held is not None and is_news(held, news.own))


def belief_line(event: str, detail: dict[str, Any], host: Host) -> str:
    """What a node has come to believe, from its report; empty if it reports something else."""
    kind, _, state = event.partition("_")
    if kind != "member" or "incarnation" not in detail:
        return ""
    by = f", says {host(detail['by'])}" if detail["by"] else ""
    return f"believes {host(detail['member'])} {state} in {detail['incarnation']}{by}"


def _line(what: str, news: News, host: Host) -> str:
    told = [_belief(belief, host) for belief in news.beliefs]
    told += [f"table {settings.name}" for settings in news.tables]
    own = f"I am {news.own.state.name.lower()} in {news.own.incarnation}"
    return f"{what}: {'; '.join([own, *told])}"


def _belief(belief: Belief, host: Host) -> str:
    by = f", says {host(belief.by)}" if belief.by else ""
    return f"{host(belief.member)} {belief.state.name.lower()} in {belief.incarnation}{by}"
