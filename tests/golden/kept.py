"""The samples that are kept in ``frames/``: one file of hex each, and an index of what they say."""

import json
from pathlib import Path
from typing import Any

FRAMES = Path(__file__).parent / "frames"
VERSION = "v1"
INDEX = "index.json"
LINE_BYTES = 32


def path_of(name: str, version: str = VERSION) -> Path:
    """Where ``kind/name`` is kept."""
    return FRAMES / version / f"{name.replace('/', '-')}.hex"


def load(name: str, version: str = VERSION) -> bytes:
    return bytes.fromhex(path_of(name, version).read_text())


def save(name: str, body: bytes) -> None:
    path = path_of(name)
    lines = [body[start : start + LINE_BYTES].hex() for start in range(0, len(body), LINE_BYTES)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def load_index(version: str = VERSION) -> dict[str, dict[str, Any]]:
    """What each kept sample says, by its name."""
    path = FRAMES / version / INDEX
    index: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    return index


def save_index(index: dict[str, dict[str, Any]]) -> None:
    text = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False)
    (FRAMES / VERSION / INDEX).write_text(text + "\n")
