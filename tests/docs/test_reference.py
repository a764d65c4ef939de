"""Pages that are made from the code hold what the code says."""

import re

from generate import reference, settings_page

from trpo_lightning import errors
from trpo_lightning.runs.files import FILES
from trpo_lightning.settings import all_keys
from trpo_lightning.training.metrics import METRICS


def rows(page: str) -> list[list[str]]:
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| ")]


def test_every_key_of_every_method_stands_there_with_default_values_and_meaning():
    found = [row for row in rows(settings_page.page()) if row[0].startswith(("<code id=", "`"))]
    linked = [match[1] for row in found if (match := re.search(r'id="([^"]+)"', row[0]))]
    assert sorted(linked) == sorted(all_keys())
    assert all(len(row) == 4 and all(row) for row in found)


def test_a_key_has_its_range_choices_and_source():
    by_name = {key.name: key for key in settings_page.declared_keys()}
    assert by_name["env.max_episode_steps"].allowed == "integer or `null`, ≥ 1"
    assert by_name["env.backend"].allowed == "`auto`, `gymnasium`, `envpool`"
    assert by_name["rule.name"].allowed.endswith("`algorithm_1`, `module:Class`")
    assert by_name["gamma"].allowed == "number, ≥ 0, ≤ 1"
    assert by_name["policy.hidden_sizes"].allowed.startswith("list of integers")
    page = settings_page.page()
    assert all(key.source in page and key.meaning.replace("|", "\\|") in page for key in by_name.values())


def test_a_key_says_with_which_methods_it_counts():
    delta = [key for key in settings_page.declared_keys() if key.name == "rule.delta"]
    assert [(key.default, key.allowed, key.counts_with) for key in delta] == [
        ("0.01", "number, > 0", "`rule.name=trust_region`")
    ]
    by_name = {key.name: key for key in settings_page.declared_keys()}
    assert by_name["rule.population"].counts_with == "`rule.name=cem` or `rule.name=cma_es`"
    assert by_name["rule.max_rejections"].counts_with == ""
    assert by_name["rule.standardize_advantages"].counts_with.endswith("; `rollout.scheme=single_path`")


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
        *("train", "experiment", "report", "sweep", "sweep-run", "evaluate", "export", "replay", "benchmark", "list")
    ]
    assert "--resume RUN_DIR" in page and "\nkeys:\n" not in page
    monkeypatch.setenv("COLUMNS", "40")
    assert reference.command_line() == page
