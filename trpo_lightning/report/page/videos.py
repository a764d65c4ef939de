"""Videos of trained policies, inside the page."""

import base64
from html import escape
from pathlib import Path

from trpo_lightning.report.records import Record

FILES = ("video_best.mp4", "video_last.mp4")
"""Files of a run directory, the first that is there."""
LARGEST, MOST = 8 << 20, 32 << 20
"""Bytes of one video and of all: the page has to load."""


def videos(records: list[Record]) -> str:
    """A video for each variant in each environment: that of its first run that has one."""
    shown, left_out, total = [], 0, 0
    for record in {(r.env_id, r.variant): r for r in reversed(records) if _file(r)}.values():
        file = _file(record)
        assert file is not None
        size = file.stat().st_size
        if size > LARGEST or total + size > MOST:
            left_out += 1
            continue
        total += size
        shown.insert(0, _video(record, file))
    if not shown and not left_out:
        return ""
    note = "One episode of the deterministic policy each, from evaluate --video."
    note += f" {left_out} too large to be shown here: see the run directories." if left_out else ""
    return f'<div class="films">{"".join(shown)}</div><p class="soft">{note}</p>'


def _file(record: Record) -> Path | None:
    if record.run_dir is None:
        return None
    return next((record.run_dir / name for name in FILES if (record.run_dir / name).is_file()), None)


def _video(record: Record, file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    film = f'<video controls muted loop playsinline preload="metadata" src="data:video/mp4;base64,{data}"></video>'
    caption = escape(f"{record.name}, {file.stem.removeprefix('video_')} policy")
    return f"<figure>{film}<figcaption>{caption}</figcaption></figure>"
