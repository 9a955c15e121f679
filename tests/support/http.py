"""The administration port of a real node, asked as any HTTP client asks."""

import http.client
import json
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from kvorum.client.addresses import Address


class Answer(NamedTuple):
    """What the port answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    address: Address | None, path: str, *, method: str = "GET", body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:  # fmt: skip
    """One request on a connection of its own."""
    assert address is not None, "the node has no administration port"
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, named, answer.read())
    finally:
        connection.close()


def metrics_of(address: Address | None) -> dict[str, float]:
    """A scrape: ``name{label="value",...}``, labels in order of their names -> value."""
    text = ask(address, "/metrics").body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{sample.labels[name]}"' for name in sorted(sample.labels))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found
