"""What gossip keeps equal on all members beside beliefs: the topology document and the tables.

Each has a version that every message of gossip names; where two members differ, the newer goes to
whoever lacks it. Settings of tables take effect where they arrive. A newer topology is kept and
passed on, and told to the operator: this node goes on with the one it was started under.
"""

from collections.abc import Sequence

from kvorum.model.tables import TableSettings
from kvorum.model.topology import Topology, TopologyInvalid, decode_topology, encode_topology
from kvorum.protocol.environment import Environment
from kvorum.protocol.ports import Documents
from kvorum.protocol.tables import Tables


class SharedDocuments(Documents):
    """The newest topology and all tables, as this node knows them."""

    __slots__ = ("_document", "_env", "_tables", "newest")

    def __init__(self, env: Environment, topology: Topology, tables: Tables) -> None:
        self._env = env
        self._tables = tables
        self.newest = topology
        self._document = b""  # the newest, encoded; made when it is first asked for

    @property
    def topology_epoch(self) -> int:
        return self.newest.epoch

    @property
    def tables_version(self) -> int:
        return self._tables.registry.version

    def topology_document(self) -> bytes:
        if not self._document:
            self._document = encode_topology(self.newest)
        return self._document

    def all_tables(self) -> list[TableSettings]:
        return self._tables.registry.all_settings()

    def tell_tables(self, member: int) -> None:
        self._tables.tell(member)

    def learn_topology(self, document: bytes) -> None:
        try:
            topology = decode_topology(document)
        except TopologyInvalid as error:
            self._env.report("topology_refused", reason=str(error))
            return
        if topology.cluster_id != self.newest.cluster_id or topology.epoch <= self.newest.epoch:
            return
        self.newest = topology
        self._document = document
        self._env.report("topology_learned", epoch=topology.epoch)

    def learn_tables(self, tables: Sequence[TableSettings]) -> None:
        self._tables.learn(tables)
