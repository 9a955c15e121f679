"""What an owner's copy means, judged alone."""

import pytest

from kvorum.admin.explanation import judge
from kvorum.wire.messages import LocalRecord
from tests.golden.samples import RECORDS
from tests.support.recording import OneNode


@pytest.mark.parametrize(
    ("on_disk", "volatile", "durability"),
    [(True, False, "yes"), (False, False, "not yet"), (False, True, "never")],
)
def test_a_copy_is_on_disk_or_will_be_or_never(
    on_disk: bool, volatile: bool, durability: str
) -> None:
    record = RECORDS["first"]
    copy = LocalRecord(1, 1, record, on_disk=on_disk, volatile=volatile)
    replica = judge(OneNode().topology, copy, record)
    assert (replica.state, replica.durability) == ("current", durability)


@pytest.mark.parametrize("durable", [True, False])
def test_a_node_says_whether_it_keeps_anything_on_a_disk(durable: bool) -> None:
    one = OneNode(durable=durable).connect()
    one.put(durability=0, w=1)
    assert one.node.inspection.local_read(1, one.key()).volatile is not durable
