"""Pages that are made from the code hold what the code says."""

import re

from generate import reference

from trpo_lightning import errors
from trpo_lightning.runs.files import FILES
from trpo_lightning.settings import keys
from trpo_lightning.training.metrics import METRICS


def rows(page: str) -> list[list[str]]:
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| ")]


def test_every_key_stands_there_once_with_default_values_and_meaning():
    found = [row for row in rows(reference.settings()) if "<code id=" in row[0]]
    names = [re.search(r'id="([^"]+)"', row[0])[1] for row in found]
    assert names == list(keys())
    assert all(len(row) == 4 and all(row) for row in found)


def test_a_key_has_its_range_choices_and_source():
    by_name = {key.name: key for key in reference.declared_keys()}
    assert by_name["rule.delta"].default == "0.02"
    assert by_name["rule.delta"].allowed == "number, > 0"
    assert by_name["env.max_episode_steps"].allowed == "integer or `null`, ≥ 1"
    assert by_name["env.backend"].allowed == "`auto`, `gymnasium`, `envpool`"
    assert by_name["gamma"].allowed == "number, ≥ 0, ≤ 1"
    assert by_name["policy.hidden_sizes"].allowed.startswith("list of integers")
    page = reference.settings()
    assert all(key.source in page and key.meaning.replace("|", "\\|") in page for key in by_name.values())


def test_every_metric_stands_there_in_the_words_of_the_code():
    page = reference.metrics()
    assert [row[0].strip("`") for row in rows(page) if row[0].startswith("`")] == list(METRICS)
    assert all(meaning in page for meaning in METRICS.values())


def test_every_file_of_a_run_stands_there():
    assert [row[0].strip("`") for row in rows(reference.files()) if row[0].startswith("`")] == list(FILES)


def test_exit_codes_are_those_of_the_errors_in_order():
    codes = {row[0]: row[1] for row in rows(reference.exit_codes()) if row[0][0].isdigit()}
    assert list(codes) == ["0", "1", "2", "3", "74", "75", "130, 143", "141"]
    for error in (errors.UserError, errors.StuckError, errors.DiskError, errors.BusyError):
        assert codes[str(error.exit_code)].startswith(f"`{error.__name__}`: ")


def test_every_command_stands_there_with_its_options_and_the_same_width_anywhere(monkeypatch):
    page = reference.command_line()
    assert re.findall(r"^## `([a-z-]+)`", page, flags=re.MULTILINE) == [
        *("train", "experiment", "report", "sweep", "sweep-run", "evaluate", "replay", "benchmark", "list")
    ]
    assert "--resume RUN_DIR" in page and "\nkeys:\n" not in page
    monkeypatch.setenv("COLUMNS", "40")
    assert reference.command_line() == page
