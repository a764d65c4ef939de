"""What W&B has of a run, or will have of its offline records."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
"""Bytes: the client writes LevelDB's log format, after a header of the length of a chunk's."""
CHUNK = struct.Struct("<IHB")
"""Checksum, length, kind: 1 is a whole record, 2, 3 and 4 are its first, middle and last parts."""


def offline_history(run_dir: Path) -> list[dict[str, Any]]:
    """The rows that `wandb sync` would send: those of all records that were not sent, or superseded."""
    rows = []
    for folder in sorted((run_dir / "wandb").glob("offline-run-*")):
        if not list(folder.glob("*.synced")):
            rows += [row for file in folder.glob("*.wandb") for row in _rows(file)]
    return rows


def offline_config(run_dir: Path) -> dict[str, Any]:
    """The settings that `wandb sync` would send, of the latest offline record."""
    found: dict[str, Any] = {}
    for file in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        for record in _parsed(file):
            for item in [*record.run.config.update, *record.config.update]:
                found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found


def _rows(file: Path) -> list[dict[str, Any]]:
    found = [record.history.item for record in _parsed(file) if record.HasField("history")]
    return [{(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in items} for items in found]


def _parsed(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def _records(data: bytes) -> Iterator[bytes]:
    """All that are whole: a killed client leaves half of the last."""
    place, parts = CHUNK.size, b""
    while place + CHUNK.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK.size:
            place += left
            continue
        _, length, kind = CHUNK.unpack_from(data, place)
        place += CHUNK.size
        if not kind or place + length > len(data):
            return
        parts = data[place : place + length] if kind in (1, 2) else parts + data[place : place + length]
        place += length
        if kind in (1, 4):
            yield parts


def sync(run_dir: Path, environment: dict[str, str]) -> str:
    """`wandb sync` of all that a run recorded, and what it said."""
    command = [sys.executable, "-m", "wandb", "sync", str(run_dir / "wandb")]
    done = subprocess.run(command, env=environment, cwd=run_dir, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
