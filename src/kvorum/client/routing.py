"""Which node a request is sent to: what the session knows of nodes, members and the ring."""

from typing import Any

from kvorum.client.addresses import Address
from kvorum.client.contact import Contact
from kvorum.client.requests import Request
from kvorum.model.hashing import locate
from kvorum.model.ring import Ring
from kvorum.model.topology import Topology


class Routes:
    """The nodes that a session knows, and the way from a key to one of them.

    Contacts are never forgotten while the session lives: those it was given, and one for each
    member of the topology that is not reached by one of the given addresses.
    """

    def __init__(self, addresses: list[Address]) -> None:
        self.contacts = [Contact(address) for address in addresses]
        self.given = self.contacts[:]
        # Only the nodes that were given take requests, owners or not; to try one node by itself.
        self.only_given = False
        self.to_open: list[Contact] = []  # owners that a request would have liked to use
        self._by_member: dict[int, Contact] = {}
        self._ring: Ring | None = None
        self._turn = 0

    @property
    def topology(self) -> Topology | None:
        return self._ring.topology if self._ring is not None else None

    @property
    def epoch(self) -> int:
        return self._ring.epoch if self._ring is not None else 0

    def learn(self, topology: Topology) -> None:
        if topology.epoch <= self.epoch:
            return
        self._ring = Ring(topology)
        for member in topology.members:
            if member.id not in self._by_member:
                contact = self._contact_at(Address(member.host, member.port))
                if contact is None:
                    contact = Contact(Address(member.host, member.port), member.id)
                    contact.wanted = False  # until a request needs it
                    self.contacts.append(contact)
                self._by_member[member.id] = contact

    def _contact_at(self, address: Address) -> Contact | None:
        for contact in self.contacts:
            if contact.address == address:
                return contact
        return None

    def add_member(self, contact: Contact) -> None:
        """``contact`` is welcomed: it is from now on the way to its member."""
        self._by_member[contact.member] = contact

    def is_double(self, contact: Contact) -> bool:
        """True if its member is already connected under another address."""
        other = self._by_member.get(contact.member)
        return other is not None and other is not contact and other.ready

    def member_named(self, node: str | int) -> int:
        """The id of a member by its name or id; 0 if the topology has no such member."""
        if self._ring is None:
            return 0
        if isinstance(node, int):
            return node if self._ring.member(node) is not None else 0
        member = self._ring.member_named(node)
        return member.id if member is not None else 0

    def choose(self, request: Request[Any], now: int) -> Contact | None:
        """A node that can take the request now: the first fit owner, else any fit node.

        Not one that it has been to; and one that owes answers only where there is no other.
        """
        request.to_owner = False
        if request.target:
            contact = self._by_member.get(request.target)
            if contact is None or contact in request.tried:
                return None
            if not contact.ready:
                self._want(contact, now)
                return None
            return contact
        silent: Contact | None = None
        ring = self._ring
        if ring is not None and request.partition_key and not self.only_given:
            place = locate(ring.hash_key, request.table_id, request.partition_key)
            for member in ring.owners(ring.partition_of(place)):
                contact = self._by_member[member]
                if not contact.ready:
                    self._want(contact, now)
                elif contact in request.tried:
                    continue
                elif not contact.silent:
                    request.to_owner = contact.member == member
                    return contact
                elif silent is None:
                    silent = contact
        return self._any_fit(request, silent)

    def _any_fit(self, request: Request[Any], silent: Contact | None) -> Contact | None:
        contacts = self.given if self.only_given else self.contacts
        count = len(contacts)
        self._turn = (self._turn + 1) % count
        for offset in range(count):
            contact = contacts[(self._turn + offset) % count]
            if contact.ready and contact not in request.tried:
                if not contact.silent:
                    return contact
                if silent is None:
                    silent = contact
        return silent

    def _want(self, contact: Contact, now: int) -> None:
        contact.wanted = True
        if not contact.channel and contact.retry_at <= now:
            self.to_open.append(contact)

    def candidates(self, request: Request[Any]) -> list[Contact]:
        """Every contact that could take the request, were it connected."""
        if not request.target:
            return self.given if self.only_given else self.contacts
        contact = self._by_member.get(request.target)
        return [contact] if contact is not None else []

    def may_be_reached(self, request: Request[Any]) -> bool:
        """True if a node that the request has not been to is being connected to for the first time.

        Who could not be reached before is not waited for: it may never be.
        """
        return any(
            contact.channel and not contact.ready and not contact.failures
            for contact in self.candidates(request)
            if contact not in request.tried
        )

    def is_hopeless(self, request: Request[Any]) -> bool:
        """True if every candidate could not be reached since the request was made."""
        for contact in self.candidates(request):
            if contact.channel or contact.failed_at < request.submitted_at:
                return False
        return True

    def causes(self, request: Request[Any]) -> str:
        """Why nobody takes it: each candidate's address and what was wrong with it."""
        parts = [
            f"{contact.address}: {contact.cause or 'no answer'}"
            for contact in self.candidates(request)
            if not contact.ready or contact.silent or contact in request.tried
        ]
        return "no node answers: " + "; ".join(parts) if parts else "no node answers"
