"""Rumours: what is told to whom, how often, and how what they missed is found by comparing."""

from kvorum.config import NodeConfig
from kvorum.model.members import INCARNATION_MAX, Belief, State
from kvorum.model.tables import TableSettings
from kvorum.protocol.gossip import BELIEFS_MAX, CORRECTIONS_MAX, START_PULLS, TELL_FACTOR
from kvorum.wire.codec import encode
from kvorum.wire.gossip_messages import Probe, ProbeAck, PushPull, PushPulled, TopologyTold
from tests.support.gossiping import EPOCH, VERSION, OneMember, news_of, word_of

MINUTE = 60_000_000


def told_to(one: OneMember, member: int) -> list[Belief]:
    return one.gossip.news_for(member).beliefs


def test_what_is_news_is_passed_on() -> None:
    one = OneMember()
    belief = word_of(3, state=State.SUSPECT, by=4)
    one.learn(belief)
    assert told_to(one, 5) == [belief]


def test_what_is_no_news_is_not_passed_on() -> None:
    one = OneMember()
    one.learn(word_of(3), word_of(99, state=State.DEAD))
    assert told_to(one, 5) == [], "a first word, and somebody unknown"
    one.learn(word_of(3, incarnation=0, state=State.DEAD))
    assert told_to(one, 5) == []


def test_a_later_word_is_passed_on_by_those_too_who_had_not_heard_of_the_member() -> None:
    """Among a thousand nodes that had just started, rumours about most of them died out."""
    one = OneMember()
    one.learn(word_of(3, incarnation=2))
    assert told_to(one, 5) == [word_of(3, incarnation=2)]


def test_what_a_new_node_is_told_in_a_push_pull_it_does_not_pass_on() -> None:
    one = OneMember()
    dead = word_of(4, incarnation=3, state=State.DEAD)
    one.hear(2, PushPulled(5, news_of(2, word_of(3, incarnation=6), dead)))
    assert one.state(4) == State.DEAD
    assert told_to(one, 5) == []
    one.hear(2, PushPulled(6, news_of(2, word_of(3, incarnation=7))))
    assert told_to(one, 5) == [word_of(3, incarnation=7)], "but what was different it does"


def test_the_refutation_of_a_member_of_which_nothing_was_known_is_passed_on() -> None:
    one = OneMember()
    one.learn(Belief(3, State.SUSPECT, 0, by=4))
    one.learn(word_of(3))
    assert told_to(one, 5) == [word_of(3)]


def test_a_rumour_is_told_about_four_times_log_n_times_and_a_suspicion_half_as_often() -> None:
    for members in (5, 100):
        for state, share in ((State.DEAD, 1), (State.SUSPECT, 2)):
            one = OneMember(members)
            one.learn(word_of(3, state=state, by=4))
            times = 1  # in the answer to whoever told it
            while told_to(one, 5):
                times += 1
            assert times == TELL_FACTOR * members.bit_length() // share


def test_refutations_go_before_suspicions() -> None:
    one = OneMember(members=60)
    one.learn(*(word_of(member, state=State.SUSPECT, by=2) for member in range(3, 23)))
    one.learn(word_of(40, incarnation=2))
    assert told_to(one, 50)[0] == word_of(40, incarnation=2)


def test_newer_rumours_about_a_member_take_the_place_of_older_ones() -> None:
    one = OneMember()
    one.learn(word_of(3, state=State.SUSPECT, by=4))
    told_to(one, 5)
    one.learn(word_of(3, incarnation=2))
    assert told_to(one, 5) == [word_of(3, incarnation=2)]


def test_what_was_told_least_often_goes_first_and_messages_have_a_bound() -> None:
    one = OneMember(members=60)
    one.learn(*(word_of(member, state=State.SUSPECT, by=2) for member in range(3, 23)))
    second, third = told_to(one, 50), told_to(one, 50)
    assert len(second) == len(third) == BELIEFS_MAX
    # Eight were told in the answer; the second message has eight others, the third the last four.
    told = {belief.member for belief in [*second, *third[:4]]}
    assert len(told) == 12
    one.learn(word_of(40, state=State.DEAD, by=2))
    assert 40 in {belief.member for _ in range(2) for belief in told_to(one, 50)}


def test_messages_have_a_bound_in_bytes() -> None:
    one = OneMember(members=60, config=NodeConfig(gossip_bytes_max=300))
    for number in range(20):
        name = "n" * 128
        one.gossip.spread_table(TableSettings(name, b"table %02d" % number, 2, 2))
    one.learn(word_of(3, state=State.SUSPECT, by=2))
    bare = len(encode(Probe(1, one.env.now, news_of(1))))
    for _ in range(100):
        assert len(encode(Probe(1, one.env.now, one.gossip.news_for(50)))) <= bare + 300


def test_a_member_is_not_told_its_own_word() -> None:
    one = OneMember()
    one.learn(word_of(3, state=State.SUSPECT, by=4))
    one.learn(word_of(3, incarnation=2))
    assert told_to(one, 3) == []
    assert told_to(one, 4) == [word_of(3, incarnation=2)]


def test_whoever_is_doubted_hears_it_with_every_message() -> None:
    one = OneMember()
    doubt = word_of(3, state=State.SUSPECT, by=4)
    one.learn(doubt)
    for _ in range(100):
        assert told_to(one, 3).count(doubt) == 1
    one.env.sent.clear()
    assert told_to(one, 5) == [], "while others have long heard it often enough"


def test_a_confirmation_is_passed_on_as_a_rumour_of_its_own() -> None:
    one = OneMember(members=9)
    one.learn(word_of(3, state=State.SUSPECT, by=4))
    one.learn(word_of(3, state=State.SUSPECT, by=6))
    assert sorted(belief.by for belief in told_to(one, 5)) == [4, 6]


def test_a_teller_that_has_missed_something_hears_it_in_the_answer() -> None:
    one = OneMember()
    one.hear(2, PushPulled(1, news_of(2, word_of(3, incarnation=4))))
    stale = word_of(3, incarnation=3, state=State.DEAD)
    answer = one.hear(2, Probe(1, 0, news_of(2, stale)))
    assert isinstance(answer, ProbeAck)
    assert word_of(3, incarnation=4) in answer.news.beliefs
    assert told_to(one, 2) == [], "once"


def test_corrections_have_a_bound() -> None:
    one = OneMember(members=30)
    words = [word_of(member, incarnation=4) for member in range(3, 30)]
    one.hear(2, PushPulled(1, news_of(2, *words)))
    stale = [word_of(member, incarnation=3, state=State.DEAD) for member in range(3, 30)]
    answer = one.hear(2, Probe(1, 0, news_of(2, *stale)))
    assert isinstance(answer, ProbeAck)
    assert len(answer.news.beliefs) == CORRECTIONS_MAX


def test_a_member_that_has_started_anew_hears_what_its_past_has_said() -> None:
    one = OneMember()
    former = Belief(3, State.ALIVE, 7, b"store 03", 1, b"nonce 00")
    one.learn(former)
    answer = one.hear(3, Probe(1, 0, news_of(3)))
    assert isinstance(answer, ProbeAck)
    assert answer.news.beliefs == [former]


def test_nobody_speaks_for_another_member() -> None:
    one = OneMember()
    one.hear(2, Probe(1, 0, news_of(2, own=word_of(3, incarnation=9))))
    belief = one.members.of(3)
    assert belief is not None
    assert belief.incarnation == 0


def test_what_no_honest_member_can_have_said_is_not_believed() -> None:
    one = OneMember()
    one.learn(
        word_of(3, incarnation=INCARNATION_MAX + 1),
        word_of(3, incarnation=-1),
        Belief(3, State.ALIVE, 2, b"x" * 17),
        Belief(3, State.ALIVE, 2, b"", 0, b"x" * 17),
        Belief(3, State.SUSPECT, 2, by=1 << 16),
        word_of(1, incarnation=INCARNATION_MAX + 1),
    )
    assert one.members.of(3) == Belief(3)
    assert one.gossip.own.incarnation == 1


def test_settings_of_tables_are_rumours_too() -> None:
    one = OneMember()
    carts = TableSettings("carts", b"table 01", 2, 2)
    one.gossip.spread_table(carts)
    assert one.gossip.news_for(2).tables == [carts]
    news = news_of(2)
    news.tables.append(carts)
    one.hear(2, Probe(1, 0, news))
    assert one.documents.learned == [carts]


def test_a_node_alone_has_nobody_to_tell() -> None:
    one = OneMember(members=1)
    one.gossip.spread_table(TableSettings("carts", b"table 01", 2, 2))
    assert one.gossip.news_for(2).tables == []


# Push-pull.


def test_the_first_members_met_after_a_start_are_asked_for_everything() -> None:
    one = OneMember(members=9)
    for member in range(2, 10):
        one.membership.on_control_open(member)
    asked = one.sent(PushPull)
    assert [to for to, _ in asked] == list(range(2, 2 + START_PULLS))
    assert len(asked[0][1].news.beliefs) == 8


def test_a_push_pull_tells_each_side_what_the_other_believes() -> None:
    one = OneMember()
    one.learn(word_of(4, incarnation=3))
    told = one.hear(2, PushPull(5, news_of(2, word_of(3, incarnation=6), word_of(4))))
    assert isinstance(told, PushPulled)
    assert told.number == 5
    assert {belief.member: belief.incarnation for belief in told.news.beliefs} == {
        2: 1, 3: 6, 4: 3, 5: 0,
    }  # fmt: skip
    assert told.news.tables == []
    assert told.document == b""
    other = OneMember()
    other.hear(2, PushPulled(5, news_of(2, *told.news.beliefs)))
    assert [belief.incarnation for belief in other.members.beliefs()] == [1, 6, 3, 0]


def test_one_is_made_at_long_intervals_longer_in_a_large_cluster() -> None:
    for members, longest in ((5, MINUTE), (1000, 8 * MINUTE)):
        one = OneMember(members)
        one.hang(longest * 9 // 8)
        ((_, asked),) = one.sent(PushPull)
        assert len(asked.news.beliefs) == members - 1
        assert one.env.counters.push_pulls == 1


def test_nobody_who_is_gone_is_asked() -> None:
    one = OneMember(members=3)
    one.learn(word_of(2, state=State.DEAD), word_of(3, state=State.LEFT), teller=9)
    one.env.sent.clear()
    one.gossip.pull_again()
    assert one.sent(PushPull) == []


def test_another_version_of_the_tables_leads_to_a_push_pull_once() -> None:
    one = OneMember()
    news = news_of(2)
    news.tables_version = VERSION + 1
    for _ in range(3):
        one.hear(2, Probe(1, 0, news))
    assert [to for to, _ in one.sent(PushPull)] == [2]
    one.env.now += one.config.push_pull_interval_ms * 1000
    one.hear(2, Probe(1, 0, news))
    assert [to for to, _ in one.sent(PushPull)] == [2], "and again much later"


def test_a_push_pull_that_could_not_be_sent_is_made_with_the_next_message() -> None:
    one = OneMember()
    news = news_of(2)
    news.topology_epoch = EPOCH + 1
    one.env.unreachable[2] = None
    one.hear(2, Probe(1, 0, news))
    one.env.unreachable.clear()
    one.hear(2, Probe(1, 0, news))
    assert [to for to, _ in one.sent(PushPull)] == [2]


def test_an_older_topology_is_not_asked_for() -> None:
    one = OneMember()
    news = news_of(2)
    news.topology_epoch = EPOCH - 1
    one.hear(2, Probe(1, 0, news))
    assert one.sent(PushPull) == []


def test_whoever_has_older_documents_is_told_the_newer_ones() -> None:
    one = OneMember()
    one.documents.tables = [TableSettings("carts", b"table 01", 2, 2)]
    news = news_of(2)
    news.tables_version = VERSION + 1
    news.topology_epoch = EPOCH - 1
    told = one.hear(2, PushPull(5, news))
    assert isinstance(told, PushPulled)
    assert told.news.tables == one.documents.tables
    assert told.document == b"epoch 3"


def test_the_asker_learns_and_tells_what_the_other_lacks() -> None:
    one = OneMember()
    carts = TableSettings("carts", b"table 01", 2, 2)
    news = news_of(2)
    news.tables.append(carts)
    news.tables_version = VERSION + 1
    one.hear(2, PushPulled(5, news, b"epoch 4"))
    assert one.documents.learned == [carts, b"epoch 4"]
    assert one.documents.told == [2]
    news.topology_epoch = EPOCH - 1
    one.hear(2, PushPulled(6, news))
    assert one.sent(TopologyTold) == [(2, TopologyTold(b"epoch 3"))]
    one.hear(2, TopologyTold(b"epoch 5"))
    assert one.documents.learned[-1] == b"epoch 5"


def test_only_so_many_pairs_of_versions_are_remembered() -> None:
    one = OneMember()
    for version in range(600):
        news = news_of(2)
        news.tables_version = version
        one.hear(2, Probe(1, 0, news))
    assert len(one.sent(PushPull)) == 599, "all but our own"
