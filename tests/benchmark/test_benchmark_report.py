"""Tables, files and the figure from results that are made up."""

import json

import pytest

from trpo_lightning.benchmark import report
from trpo_lightning.benchmark.figure import draw
from trpo_lightning.benchmark.results import Result, Target
from trpo_lightning.errors import UserError

RESULTS = [
    Result("Hopper-v5, 2 threads", "environment alone", "env steps/s", (20_000.0, 19_000.0, 21_000.0)),
    Result("Hopper-v5, 2 threads", "ceiling ratio", "x", (0.7, 0.66, 0.71), Target(0.65)),
    Result("Humanoid-v5, 2 threads", "ceiling ratio", "x", (0.5, 0.55, 0.51), Target(0.65)),
    Result("Ant-v5, 2 threads", "ceiling ratio", "x", (), Target(0.65)),
]
PEERS = [Result("Hopper-v5, 2 threads", "ours / Other TRPO", "x", (5.0, 4.5, 4.9), Target(4.0))]


def section(results, command="python -m trpo_lightning benchmark", **more):
    provenance = {
        "started": "2026-11-22T10:00:00+0000",
        "git": {"commit": "0123456789abcdef", "diff_sha256": None},
        "packages": {"torch": "2.13.0", "envpool": "1.2.5", "mujoco": "3.6.0"},
        "machine": {"cpu": "A CPU", "cores": 2},
    }
    facts = {"command": command, "provenance": provenance, "notes": [], "versions": {}, "seconds": 1}
    return {**facts, "results": results, **more}


def test_the_table_has_medians_spreads_targets_and_verdicts():
    lines = report.console({"ceiling": section(RESULTS)})
    assert lines[0].split()[:3] == ["section", "where", "what"]
    assert len(lines) == 5
    assert "20,000 env steps/s" in lines[1] and "19,000 to 21,000" in lines[1] and ">=" not in lines[1]
    assert lines[2].endswith("met") and "0.7 x" in lines[2] and ">= 0.65" in lines[2]
    assert lines[3].endswith("missed") and lines[4].endswith("not measured")
    assert report.summary(RESULTS) == "1 of 3 targets met"


def test_files_keep_every_repeat_and_come_back(tmp_path):
    sections = {"ceiling": section(RESULTS, notes=["x was left out"]), "peers": section(PEERS, "python again")}
    sections["peers"]["versions"] = {"Other TRPO": {"other": "1.0"}}
    report.write(sections, tmp_path)
    kept = json.loads((tmp_path / "results.json").read_text())["sections"]
    assert kept["ceiling"]["results"][0]["values"] == [20_000.0, 19_000.0, 21_000.0]
    assert kept["ceiling"]["provenance"]["machine"]["cpu"] == "A CPU"
    assert report.read(tmp_path) == sections
    text = (tmp_path / "table.md").read_text()
    assert text.count("\n| ") == 7 and "- ceiling: x was left out" in text and "- Other TRPO: other 1.0" in text
    (line,) = (line for line in text.splitlines() if line.startswith("- ceiling: A CPU"))
    assert all(part in line for part in ("A CPU, 2 cores", "2026-11-22", "0123456789ab,", "torch 2.13.0"))
    assert "\n- peers: A CPU" in text  # measured by another command: a line of its own
    assert (tmp_path / "benchmark.png").stat().st_size > 5000


def test_sections_of_one_command_share_a_line():
    found = report.machine({"ceiling": section(RESULTS), "update": section(RESULTS)})
    assert len(found) == 1 and found[0].startswith("- ceiling, update: ")


@pytest.mark.parametrize("text", ["not json", "{}", "[]", '{"sections": {"a": {}}}', '{"sections": 3}'])
def test_another_file_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json: is not a result of this benchmark"):
        report.read(tmp_path)


def test_the_table_of_targets_leaves_out_the_rest():
    sections = {"ceiling": section(RESULTS)}
    everything, targets = report.markdown(sections), report.markdown(sections, targets_only=True)
    assert any("environment alone" in line for line in everything)
    assert not any("environment alone" in line for line in targets)
    assert sum("| ceiling |" in line for line in targets) == 3


def test_there_is_no_figure_without_ratios(tmp_path):
    assert not draw({"ceiling": RESULTS[:1], "growth": RESULTS}, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
    assert draw({"ceiling": RESULTS, "peers": PEERS}, tmp_path / "x.png")
