"""The OpenAPI 3.1 document of the HTTP door, served at ``/openapi.json``.

Written by hand, as the routes are, and held against the running door by the tests: every answer
must be one that stands here, and what breaks these rules must be refused.
"""

from importlib.metadata import version
from typing import Any, Final

import msgspec

from kvorum.config import NodeConfig
from kvorum.model.tables import LONGEST_TTL_SECONDS
from kvorum.server.http_json import BATCH_REQUESTS_MAX
from kvorum.server.http_listing import LIMIT_DEFAULT, LIMIT_MAX
from kvorum.server.http_problems import KINDS, RETRY_AFTER_SECONDS

Document = dict[str, Any]

_PUT_ID: Final = "^[0-9]{1,15}-[0-9a-fA-F]{32}$"
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_BASE64URL: Final = "^[A-Za-z0-9_-]+={0,2}$"
_DURABILITIES: Final = ["none", "one", "quorum", "all"]
_QUORUM: Final = {"type": "integer", "minimum": 1, "maximum": 254}
_TTL: Final = {"type": "integer", "minimum": 1, "maximum": LONGEST_TTL_SECONDS}
_ANYWHERE: Final = (
    "malformed", "bad_header", "request_timeout", "uri_too_long", "misdirected", "head_too_large",
    "expectation_failed", "unsupported", "overloaded", "stopping",
)  # fmt: skip


def encode_openapi(config: NodeConfig) -> bytes:
    return msgspec.json.encode(openapi(config)) + b"\n"


def openapi(config: NodeConfig) -> Document:
    key = _key_path(config)
    with_sort_key = [*_path_parameters(config), _path("sort_key", 1, config.sort_key_bytes_max)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kvorum",
            "version": version("kvorum"),
            "description": "An always-writable, replicated key-value store over HTTP. Concurrent "
            "writes are kept as siblings; a write that carries X-Kvorum-Context replaces exactly "
            "what its writer has read.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/": {"get": _operation("index", "What this is", {"200": _json({"type": "object"})})},
            "/openapi.json": {
                "get": _operation("openapi", "This document", {"200": _json({"type": "object"})})
            },
            "/tables": {"get": _tables()},
            "/tables/{table}": _table_path(),
            "/tables/{table}/keys": {"parameters": [_TABLE], "get": _keys()},
            "/tables/{table}/keys/{key}": {"parameters": _path_parameters(config), **key},
            "/tables/{table}/keys/{key}/{sort_key}": {
                "parameters": with_sort_key,
                **_renamed(_key_path(config), "_sorted"),
            },
            "/tables/{table}/batch": {"parameters": [_TABLE], "post": _batch()},
        },
        "components": {"schemas": _schemas()},
    }


def _renamed(path: Document, suffix: str) -> Document:
    return {
        method: operation | {"operationId": operation["operationId"] + suffix}
        for method, operation in path.items()
    }


# Parameters.


def _path(name: str, least: int, most: int) -> Document:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "bytes, percent-encoded; a slash is %2F",
        "schema": {"type": "string", "minLength": least, "maxLength": most},
    }


_TABLE: Final[Document] = {
    "name": "table",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$"},
}


def _path_parameters(config: NodeConfig) -> list[Document]:
    return [_TABLE, _path("key", 1, config.partition_key_bytes_max)]


def _query(name: str, schema: Document, description: str) -> Document:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, schema: Document, description: str) -> Document:
    return {"name": name, "in": "header", "schema": schema, "description": description}


_SLOPPY: Final = _query("sloppy", {"type": "boolean"}, "whether listed fallbacks count")
_TIMEOUT: Final = _query(
    "timeout_ms",
    {"type": "integer", "minimum": 1, "maximum": 86_400_000},
    "give up after this; the node's own limit stays",
)
_R: Final = _query("r", _QUORUM, "answers that a get needs; the table's without it")
_W: Final = _query("w", _QUORUM, "acks that a write needs; the table's without it")
_DURABILITY: Final = _query("durability", {"enum": _DURABILITIES}, "how many acks are on disk")
_TTL_SECONDS: Final = _query("ttl_seconds", _TTL, "the value ends after so long")
_CONTEXT: Final = _header(
    "X-Kvorum-Context",
    {"type": "string", "pattern": _BASE64URL},
    "what was read: the write replaces it, and stands beside all else",
)
_PUT_ID_HEADER: Final = _header(
    "X-Kvorum-Put-Id",
    {"type": "string", "pattern": _PUT_ID},
    "the id of this write: sent again under it, it is made once",
)
_TRACE: Final = _header(
    "X-Kvorum-Trace",
    {"enum": ["0", "1"]},
    "1: tell how the request went, in a header X-Kvorum-Trace for each step",
)
_IF_NONE_MATCH: Final = _header(
    "If-None-Match", {"type": "string"}, "304 if the record still has this ETag"
)


# Answers.


def _json(schema: Document) -> Document:
    return {"description": "ok", "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _problems(*codes: str) -> Document:
    """An answer for each status that these problems, or those that any request can meet, have."""
    answers: Document = {}
    for code, kind in KINDS.items():
        if code not in codes and code not in _ANYWHERE:
            continue
        known = answers.setdefault(
            str(kind.status),
            {
                "description": "",
                "content": {"application/problem+json": {"schema": _ref("Problem")}},
            },
        )
        text = f"`{code}`: {kind.title}. {kind.action}"
        known["description"] += ("\n\n" if known["description"] else "") + text
        if kind.status == 503:
            known["headers"] = {
                "Retry-After": {"schema": {"type": "integer", "const": RETRY_AFTER_SECONDS}}
            }
    return dict(sorted(answers.items()))


def _operation(
    name: str, summary: str, answers: Document, codes: tuple[str, ...] = (),
    parameters: tuple[Document, ...] = (), body: Document | None = None,
) -> Document:  # fmt: skip
    operation: Document = {"operationId": name, "summary": summary}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = body
    operation["responses"] = answers | _problems("bad_query", *codes)
    return operation


_READ_HEADERS: Final[Document] = {
    "X-Kvorum-Context": {"schema": {"type": "string", "pattern": _BASE64URL}},
    "X-Kvorum-Replicas": {"schema": {"type": "string"}},
    "X-Kvorum-Coordinator": {"schema": {"type": "string"}},
}
_STEPS: Final[Document] = {
    "X-Kvorum-Trace": {
        "description": "a step of a traced request", "schema": {"type": "string"},
    },
}  # fmt: skip
_ETAG: Final[Document] = {"ETag": {"required": True, "schema": {"type": "string"}}}
_WRITE_HEADERS: Final[Document] = {
    "X-Kvorum-Context": {"required": True, "schema": {"type": "string", "pattern": _BASE64URL}},
    "X-Kvorum-Put-Id": {"required": True, "schema": {"type": "string", "pattern": _PUT_ID}},
    "X-Kvorum-Acks": {"required": True, "schema": {"type": "string"}},
    "X-Kvorum-W": {"required": True, "schema": {"type": "integer"}},
}
_READ_CODES: Final = (
    "bad_path", "bad_request", "not_found", "deleted", "unknown_table", "too_large",
    "quorum_not_met", "timed_out", "conditional_write",
)  # fmt: skip
_WRITE_CODES: Final = (
    "bad_path", "bad_request", "bad_context", "unknown_table", "too_many_siblings", "too_large",
    "conditional_write", "quorum_not_met", "outcome_unknown",
)  # fmt: skip


def _key_path(config: NodeConfig) -> Document:
    octets: Document = {"*/*": {"schema": {}}}
    siblings = {
        "multipart/mixed": {"schema": {}},
        "application/json": {"schema": _ref("Siblings")},
    }
    read_headers = _READ_HEADERS | _STEPS | _ETAG
    found = {
        "200": {
            "description": "the value",
            "headers": read_headers,
            "content": octets,
        },
        "300": {
            "description": "siblings",
            "headers": read_headers,
            "content": siblings,
        },
        "304": {"description": "unchanged", "headers": read_headers},
    }
    head = {
        status: {name: part for name, part in answer.items() if name != "content"}
        for status, answer in found.items()
    }
    stored = {"204": {"description": "written", "headers": _WRITE_HEADERS | _STEPS}}
    reads = (_R, _SLOPPY, _TIMEOUT, _IF_NONE_MATCH, _TRACE)
    writes = (_W, _DURABILITY, _SLOPPY, _TIMEOUT, _CONTEXT, _PUT_ID_HEADER, _TRACE)
    value = {
        "required": True,
        "description": f"the value, at most {config.value_bytes_max} bytes; its type is kept",
        "content": {"application/octet-stream": {"schema": {}}, "text/plain": {"schema": {}}},
    }
    return {
        "get": _operation("get", "Read a key", found, _READ_CODES, reads),
        "head": _operation("head", "Read a key without its value", head, _READ_CODES, reads),
        "put": _operation(
            "put", "Write a value", stored,
            (*_WRITE_CODES, "length_required", "unsupported_media_type"),
            (*writes, _TTL_SECONDS), value,
        ),
        "delete": _operation(
            "delete", "Delete what the context has read, or else all that is there", stored,
            (*_WRITE_CODES, "bad_body"), writes,
        ),
    }  # fmt: skip


def _tables() -> Document:
    answer = {
        "type": "object",
        "required": ["tables"],
        "properties": {"tables": {"type": "array", "items": _ref("Table")}},
    }
    return _operation("list_tables", "All tables", {"200": _json(answer)})


def _table_path() -> Document:
    wish = {"content": {"application/json": {"schema": _ref("TableWish")}}}
    change = {"content": {"application/json": {"schema": _ref("TableChange")}}}
    table = {"200": _json(_ref("Table"))}
    codes = (
        "bad_path", "bad_body", "bad_request", "unknown_table", "too_large", "conditional_write",
        "unsupported_media_type",
    )  # fmt: skip
    which = _query(
        "id", {"type": "string", "pattern": "^[0-9a-fA-F]{16}$"}, "which, where two have the name"
    )
    return {
        "parameters": [_TABLE],
        "get": _operation("get_table", "One table", table, ("bad_path", "unknown_table")),
        "put": _operation(
            "create_table", "Create a table; again with equal settings is fine",
            table | {"201": _json(_ref("Table"))}, (*codes, "table_exists"), (), wish,
        ),
        "patch": _operation("set_table", "Change settings", table, codes, (), change),
        "delete": _operation(
            "drop_table", "Drop a table for good; its keys are gone at once",
            {"204": {"description": "dropped"}}, codes, (which,),
        ),
    }  # fmt: skip


def _keys() -> Document:
    limit = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
    after = {"type": "string"}
    return _operation(
        "list_keys", "Keys with a value, in the order of the ring", {"200": _json(_ref("Keys"))},
        ("bad_path", "bad_request", "unknown_table"),
        (
            _query("prefix", {"type": "string"}, "of the key; all are looked at all the same"),
            _query("after", after, "the cursor of an earlier answer"),
            _query("limit", limit, "how many at most"),
        ),
    )  # fmt: skip


def _batch() -> Document:
    body = {"required": True, "content": {"application/json": {"schema": _ref("Batch")}}}
    answer = {
        "type": "object",
        "required": ["results"],
        "properties": {"results": {"type": "array", "items": _ref("Result")}},
    }
    return _operation(
        "batch", "Many requests at once, each with its own outcome", {"200": _json(answer)},
        ("bad_path", "bad_body", "unknown_table", "too_large", "unsupported_media_type"),
        (_TIMEOUT,), body,
    )  # fmt: skip


# Schemas.


def _object(properties: Document, required: tuple[str, ...] = (), closed: bool = True) -> Document:
    schema: Document = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return schema


_TEXT: Final[Document] = {"type": "string"}


def _schemas() -> Document:
    return {
        "Problem": _object(
            {
                "type": _TEXT, "title": _TEXT, "status": {"type": "integer"},
                "code": {"enum": list(KINDS)}, "detail": _TEXT, "action": _TEXT, "put_id": _TEXT,
            },
            ("type", "title", "status", "code", "detail", "action"),
        ),
        "Bytes": {
            "oneOf": [
                _object({"text": _TEXT}, ("text",)),
                _object({"base64": {"type": "string", "pattern": _BASE64}}, ("base64",)),
            ]
        },
        "Sibling": _object(_SIBLING, ("dot", "time")),
        "Siblings": _object(
            _SIBLINGS | {"context": _TEXT, "etag": _TEXT}, ("siblings", "context", "etag")
        ),
        "Keys": _object(
            {
                "keys": {
                    "type": "array",
                    "items": _object({"key": _ref("Bytes"), "sort_key": _ref("Bytes")}, ("key",)),
                },
                "cursor": {"type": ["string", "null"]},
                "problem": _ref("Problem"),
            },
            ("keys", "cursor"),
        ),
        **_table_schemas(),
        "Batch": _batch_schema(),
        "Result": _result_schema(),
    }  # fmt: skip


_SIBLING: Final[Document] = {
    "value": {"$ref": "#/components/schemas/Bytes"},
    "content_type": _TEXT,
    "dot": _TEXT,
    "time": _TEXT,
    "expires": _TEXT,
    "deleted": {"const": True},
}
_SIBLINGS: Final[Document] = {
    "siblings": {"type": "array", "items": {"$ref": "#/components/schemas/Sibling"}}
}


def _table_schemas() -> Document:
    settings = {
        "r": _QUORUM,
        "w": _QUORUM,
        "durability": {"enum": _DURABILITIES},
        "sloppy": {"type": "boolean"},
        "ttl_seconds": {"type": "integer", "minimum": 0, "maximum": LONGEST_TTL_SECONDS},
        "max_siblings": {"type": "integer", "minimum": 1, "maximum": 10_000},
        "max_record_bytes": {"type": "integer", "minimum": 1024, "maximum": 1 << 30},
    }
    resolution = {"resolution": {"enum": ["siblings", "lww"]}}
    shown = settings | resolution
    shown |= {
        "name": _TEXT,
        "id": _TEXT,
        "conflict": {"type": "boolean"},
        "unreached": {"type": "array", "items": _TEXT},
    }
    return {
        "Table": _object(shown, tuple(shown)),
        "TableWish": _object(settings | resolution),
        "TableChange": _object(settings),
    }


def _batch_schema() -> Document:
    given = {"anyOf": [_TEXT, _ref("Bytes")]}
    operation = {
        "op": {"enum": ["get", "put", "delete"]},
        "key": given,
        "sort_key": given,
        "value": given,
        "content_type": {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"},
        "context": {"type": "string", "pattern": _BASE64URL},
        "put_id": {"type": "string", "pattern": _PUT_ID},
        "r": _QUORUM,
        "w": _QUORUM,
        "durability": {"enum": _DURABILITIES},
        "sloppy": {"type": "boolean"},
        "ttl_seconds": _TTL,
    }
    requests = {
        "type": "array",
        "minItems": 1,
        "maxItems": BATCH_REQUESTS_MAX,
        "items": _object(operation, ("op", "key")),
    }
    return _object({"requests": requests}, ("requests",))


def _result_schema() -> Document:
    ack = {
        "node": _TEXT,
        "level": {"enum": ["memory", "os", "disk"]},
        "fallback": {"type": "boolean"},
    }
    more = {
        "status": {"type": "integer"},
        "problem": _ref("Problem"),
        "context": _TEXT,
        "put_id": _TEXT,
        "etag": _TEXT,
        "w": {"type": "integer"},
        "coordinator": _TEXT,
        "replicas": {"type": "array", "items": _TEXT},
        "concurrent_delete": {"const": True},
        "may_miss_acknowledged": {"const": True},
        "acks": {"type": "array", "items": _object(ack, tuple(ack))},
    }
    return _object(_SIBLING | _SIBLINGS | more, ("status",))
