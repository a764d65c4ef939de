"""Videos in the page: one for each variant in each environment, within a limit."""

import base64

from trpo_lightning.report.page import videos
from trpo_lightning.report.records import Record


def record(tmp_path, variant, seed, **files):
    folder = tmp_path / f"{variant}_{seed}"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"video_{name}.mp4").write_bytes(content)
    return Record("ALE/Pong-v5", variant, seed, "finished", folder)


def test_the_first_run_with_a_video_of_each_variant_is_shown(tmp_path):
    records = [
        record(tmp_path, "a", 0),
        record(tmp_path, "a", 1, best=b"one", last=b"two"),
        record(tmp_path, "a", 2, best=b"three"),
        record(tmp_path, "b<", 0, last=b"four"),
        Record("ALE/Pong-v5", "c", 0, "finished", None),
    ]
    page = videos.videos(records)
    assert page.count("<video") == 2 and page.index("a seed 1, best policy") < page.index("b&lt; seed 0, last policy")
    assert base64.b64encode(b"one").decode() in page and base64.b64encode(b"three").decode() not in page


def test_without_videos_there_is_no_section_and_large_ones_are_counted(tmp_path, monkeypatch):
    assert videos.videos([record(tmp_path, "a", 0)]) == ""
    monkeypatch.setattr(videos, "LARGEST", 2)
    page = videos.videos([record(tmp_path, "b", 0, best=b"large")])
    assert "<video" not in page and "1 too large" in page
