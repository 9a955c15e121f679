"""The OpenAPI 3.1 document of the administration port, served at ``/openapi.json``.

Written by hand where the documents are made by hand, and out of the message types where they are
shown as they come. The tests hold it against running nodes: every answer must be one that stands
here, with no field more or less, and what breaks these rules must be refused.
"""

from typing import Any, Final, get_args, get_origin

import msgspec

from kvorum.admin.problems import CODES
from kvorum.admin.repairs import TO_DO, WORK
from kvorum.model.members import State
from kvorum.wire.messages import OperationStatus, PeerStatus, StatusAnswer

Document = dict[str, Any]

_TEXT: Final[Document] = {"type": "string"}
_COUNT: Final[Document] = {"type": "integer"}
_NUMBER: Final[Document] = {"type": "number"}
_FLAG: Final[Document] = {"type": "boolean"}
_KEY: Final[Document] = {"type": "string", "minLength": 1, "examples": ["alice"]}
_TABLE: Final[Document] = {
    "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$", "examples": ["default"],
}  # fmt: skip
_BELIEF: Final[Document] = {"enum": [state.name.lower() for state in State]}
_ENCODING: Final[Document] = {"enum": ["text", "hex", "base64"]}
_PLAIN: Final[dict[Any, Document]] = {
    int: _COUNT, str: _TEXT, bool: _FLAG, bytes: {"type": "string", "pattern": "^[0-9a-f]*$"},
    PeerStatus: {"$ref": "#/components/schemas/Peer"},
    OperationStatus: {"$ref": "#/components/schemas/Operation"},
}  # fmt: skip
# What any request can meet: the guard, a path or method that is not there, a limit of the server.
_ANYWHERE: Final = (400, 403, 421)
_CLUSTER: Final = (500, 503, 504)


def encode_openapi(software: str) -> bytes:
    return msgspec.json.encode(openapi(software))


def openapi(software: str) -> Document:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kvorum administration",
            "version": software.removeprefix("kvorum "),
            "description": "What a node and its cluster are doing, for people's tools. The data is "
            "served on another port.",
        },
        "paths": _health_paths() | _node_paths() | _cluster_paths() | _key_paths(),
        "components": {"schemas": _schemas()},
    }


# Paths.


def _get(
    name: str, summary: str, answers: Document, parameters: tuple[Document, ...] = (),
    errors: tuple[int, ...] = (),
) -> Document:  # fmt: skip
    operation: Document = {"operationId": name, "summary": summary}
    if parameters:
        operation["parameters"] = list(parameters)
    operation["responses"] = answers | _problems(*_ANYWHERE, *errors)
    return operation


def _problems(*statuses: int) -> Document:
    answer = {
        "description": "a problem, with a code that stays as it is",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
    return {str(status): answer for status in sorted(statuses)}


def _ok(schema: Document, kind: str = "application/json") -> Document:
    return {"description": "ok", "content": {kind: {"schema": schema}}}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(schema: Document) -> Document:
    return {"type": "array", "items": schema}


def _map(schema: Document) -> Document:
    return {"type": "object", "additionalProperties": schema}


def _health_paths() -> Document:
    fields = {"live": {"const": True}, "ready": _FLAG, "reason": _TEXT, "node": _TEXT}
    live = {"live": fields["live"]}
    ready = {name: fields[name] for name in ("ready", "reason")}

    def both(schema: Document) -> Document:
        unready = _ok(schema) | {"description": "not ready; ``reason`` says why"}
        return {"200": _ok(schema), "503": unready}

    return {
        "/health": {"get": _get("health", "Live and ready", both(_object(fields)))},
        "/health/live": {"get": _get("live", "The loop turns", {"200": _ok(_object(live))})},
        "/health/ready": {"get": _get("ready", "It takes requests", both(_object(ready)))},
    }


def _node_paths() -> Document:
    metrics = _ok(_TEXT, "text/plain")
    metrics["content"]["application/openmetrics-text"] = {"schema": _TEXT}
    after = {
        "name": "after", "in": "query",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
        "description": "only events of higher numbers",
    }  # fmt: skip
    return {
        "/": {"get": _get("page", "The page", {"200": _ok(_TEXT, "text/html")})},
        "/metrics": {"get": _get("metrics", "For Prometheus", {"200": metrics})},
        "/openapi.json": {
            "get": _get("openapi", "This document", {"200": _ok({"type": "object"})})
        },
        "/api/about": {"get": _get("about", "What the node is", {"200": _ok(_ref("About"))})},
        "/api/topology": {
            "get": _get("topology", "Members and owners", {"200": _ok(_ref("Topology"))})
        },
        "/api/events": {
            "get": _get(
                "events", "What the node has told its log lately",
                {"200": _ok(_list(_ref("Event")))}, (after,),
            )
        },
    }  # fmt: skip


def _cluster_paths() -> Document:
    return {
        "/api/status": {
            "get": _get(
                "status", "All that the nodes say of themselves", {"200": _ok(_ref("Status"))},
                errors=_CLUSTER,
            )
        },
        "/api/overview": {
            "get": _get(
                "overview", "How each node is, in short", {"200": _ok(_ref("Overview"))},
                errors=_CLUSTER,
            )
        },
        "/api/repairs": {
            "get": _get(
                "repairs", "What waits to be mended, and what is done about it",
                {"200": _ok(_ref("Repairs"))}, errors=_CLUSTER,
            )
        },
        "/api/tables": {
            "get": _get(
                "tables", "All tables", {"200": _ok(_list(_ref("Table")))}, errors=_CLUSTER
            )
        },
    }  # fmt: skip


def _key_paths() -> Document:
    def query(name: str, schema: Document, text: str, required: bool = False) -> Document:
        return {
            "name": name, "in": "query", "required": required, "schema": schema,
            "description": text,
        }  # fmt: skip

    parameters = (
        query("key", _KEY, "the partition key", True),
        query("table", _TABLE, "``default`` if none is named"),
        query("sort_key", _TEXT, "if the key has one"),
        query("encoding", _ENCODING, "how the keys are written"),
    )
    errors = (404, 413, *_CLUSTER)
    put = _get("put_key", "Write over what was read", {"200": _ok(_ref("Stored"))}, (), errors)
    put["responses"] |= _problems(409)
    put["requestBody"] = {
        "required": True, "content": {"application/json": {"schema": _ref("Put")}},
    }  # fmt: skip
    return {
        "/api/key": {
            "get": _get("key", "Values", {"200": _ok(_ref("Found"))}, parameters, errors),
            "post": put,
        },
        "/api/explain": {
            "get": _get(
                "explain", "What each owner holds of a key", {"200": _ok(_ref("Explained"))},
                parameters, errors,
            )
        },
    }  # fmt: skip


# Schemas.


def _object(properties: Document, optional: tuple[str, ...] = ()) -> Document:
    """Just these fields, and all of them but for the optional ones."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _struct(kind: type[msgspec.Struct], without: tuple[str, ...] = ()) -> Document:
    """The fields of a message as JSON shows them."""
    return {
        field.name: _shown(field.type)
        for field in msgspec.structs.fields(kind)
        if field.name not in without
    }


def _shown(kind: Any) -> Document:
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return _list(_shown(inner[0]))
    assert origin is dict, f"say how JSON shows {kind}"
    assert inner[0] is str
    return _map(_shown(inner[1]))


def _answers_or_not(silent: Document, speaking: Document) -> Document:
    return {
        "oneOf": [
            _object({"answers": {"const": False}} | silent),
            _object({"answers": {"const": True}} | speaking),
        ]
    }


def _schemas() -> Document:
    codes = ["forbidden", "not_found", "method_not_allowed", "failed"]
    return {
        "Problem": _object(
            {
                "status": _COUNT,
                "code": {"enum": [*codes, *dict.fromkeys(code for _, _, code in CODES[:-1])]},
                "title": _TEXT,
                "detail": _TEXT,
            }
        ),
        "About": _object(
            {
                "node": _TEXT, "software": _TEXT, "counters": _map(_TEXT),
                "duration_bounds_us": _list(_COUNT),
            }
        ),
        "Event": _object(
            {
                "number": _COUNT, "at_us": _COUNT, "warning": _FLAG, "name": _TEXT,
                "detail": _map({"type": ["string", "integer", "boolean"]}),
            }
        ),
        **_cluster_schemas(),
        "Repairs": _repairs_schema(),
        **_key_schemas(),
    }  # fmt: skip


def _cluster_schemas() -> Document:
    counts = {"type": ["string", "integer", "array"]}  # in the order of an ``Operation``
    member = {"id": _COUNT, "name": _TEXT, "address": _TEXT, "zone": _TEXT}
    texts = _list(_TEXT)
    overview = {
        "problems": texts, "writable": _FLAG, "engine": _TEXT, "volatile": _FLAG,
        "software": _TEXT, "uptime_us": _COUNT, "start_count": _COUNT, "partitions_owned": _COUNT,
        "in_flight": _COUNT, "overlay_bytes": _COUNT, "queued_bytes": _COUNT,
        "clock_offset_us": _COUNT, "counters": _map(_COUNT),
        "operations": _list(_list(counts) | {"minItems": 5, "maxItems": 5}),
    }  # fmt: skip
    belief = {"belief": _BELIEF, "for_us": _COUNT, "incarnation": _COUNT}
    place = {name: member[name] for name in ("id", "address", "zone")}
    speaking = {"problems": texts} | _struct(StatusAnswer, ("request", "member", "name"))
    return {
        "Peer": _object(_struct(PeerStatus)),
        "Operation": _object(_struct(OperationStatus)),
        "Topology": _object(
            {
                "cluster": _TEXT, "epoch": _COUNT, "n": _COUNT,
                "members": _list(_object(member)), "partitions": _list(_list(_COUNT)),
            }
        ),
        "Status": _object(
            {
                "cluster": _TEXT, "topology_epoch": _COUNT, "n": _COUNT, "partitions": _COUNT,
                "partitions_by_owners_up": _list(_COUNT),
                "nodes": _map(_answers_or_not(place | {"error": _TEXT}, place | speaking)),
            }
        ),
        "Overview": _object(
            {
                "at_us": _COUNT, "topology_epoch": _COUNT, "believes": _map(_object(belief)),
                "nodes": _map(_answers_or_not({"problems": texts}, overview)),
            }
        ),
        "Table": _object(
            {
                "name": _TEXT, "id": _TEXT, "r": _COUNT, "w": _COUNT, "resolution": _TEXT,
                "durability": _TEXT, "sloppy": _FLAG, "ttl_seconds": _COUNT,
                "max_siblings": _COUNT, "max_record_bytes": _COUNT, "conflict": _FLAG,
                "unreached": _list(_TEXT),
            }
        ),
    }  # fmt: skip


def _repairs_schema() -> Document:
    owed = {"keeper": _TEXT, "owner": _TEXT, "hints": _COUNT, "bytes": _COUNT, "oldest_us": _COUNT}
    return _object(
        {
            "at_us": _COUNT, "hints": _COUNT, "hint_bytes": _COUNT, "hints_oldest_us": _COUNT,
            "owed": _list(_object(owed)), "owed_left_out": _COUNT,
            "differ": _list(_object({"node": _TEXT, "peer": _TEXT})), "differ_left_out": _COUNT,
            "to_do": _map(_object(dict.fromkeys(TO_DO, _COUNT))),
            "work": _object({kind: _object(dict.fromkeys(WORK[kind], _COUNT)) for kind in WORK}),
        }
    )  # fmt: skip


def _key_schemas() -> Document:
    octets = {"oneOf": [_object({"text": _TEXT}), _object({"base64": _TEXT})]}
    version = {
        "deleted": _FLAG, "dot": _TEXT, "written_at": _TEXT, "expires_at": _TEXT,
        "content_type": _TEXT, "put_id": _TEXT,
    }  # fmt: skip
    value = _object(version | {"text": _TEXT, "base64": _TEXT}, ("text", "base64"))
    replica = {
        "node": _TEXT, "state": _TEXT, "on_disk": _FLAG,
        "durability": {"enum": ["yes", "not yet", "never", "unknown"]}, "own_dot": _TEXT,
        "values": _list(_ref("Value")), "text": _TEXT,
    }  # fmt: skip
    hint = {
        "node": _TEXT, "for": _list(_TEXT), "age_seconds": _NUMBER, "values": _list(_ref("Value")),
    }  # fmt: skip
    wish = {
        "table": _TABLE, "key": _KEY,
        "context": _TEXT | {"examples": [""], "description": "what was read; empty: nothing was"},
        "value": _TEXT | {"examples": ["book"]}, "sort_key": _TEXT, "key_encoding": _ENCODING,
        "value_encoding": _ENCODING, "content_type": _TEXT,
    }  # fmt: skip
    return {
        "Value": value,
        "Found": _object(
            {
                "key": _TEXT, "deleted": _FLAG, "values": _list(octets),
                "siblings": _list(_object(version)), "coordinator": _TEXT,
                "replicas": _list(_TEXT), "may_miss_acknowledged": _FLAG, "fallback_read": _FLAG,
                "context": _TEXT,
            }
        ),
        "Explained": _object(
            {
                "key": _TEXT, "position": _TEXT, "partition": _COUNT, "epoch": _COUNT,
                "owners": _list(_TEXT), "replicas": _list(_object(replica)),
                "hints": _list(_object(hint)), "verdict": _TEXT,
            }
        ),
        "Put": _object(wish, ("sort_key", "key_encoding", "value_encoding", "content_type")),
        "Stored": _object(
            {
                "outcome": {"const": "ok"}, "key": _TEXT, "coordinator": _TEXT, "w": _COUNT,
                "primaries_acked": _COUNT, "fallbacks_acked": _COUNT,
                "acks": _list(_object({"node": _TEXT, "level": _TEXT, "fallback": _FLAG})),
                "put_id": _TEXT, "context": _TEXT,
            }
        ),
    }  # fmt: skip
