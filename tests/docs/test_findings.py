"""Findings take their numbers from the results, or say in one line what is not there."""

from pathlib import Path

import pytest
from generate import findings
from generate.folder import ResultsFolder

from trpo_lightning.errors import UserError

SCORES = """env,variant,default,finished,iqm,ci_low,ci_high,evaluation
Hopper-v5,delta=0.01,,3,1735.08,720.15,2403.95,3279.19
Hopper-v5,delta=0.02,yes,3,40.654,1656.32,2071.44,
"""
CLAIMS = """# A title

| environment |
| --- |
| Hopper-v5 |

What a score is.

## Claims

| claim | verdict | if | measured | seeds |
| --- | --- | --- | --- | --- |
| It hops. | does not hold | score: a \\| b > 1 | -1,338.4 [-1,384.7, 2.5e-05] | 3 (least 3) |
| It runs. | not decided (2 of 3 runs are not finished) | score: a > 1 | - | 0 (least 3) |

score: what it is.
"""


@pytest.fixture
def folder(tmp_path) -> ResultsFolder:
    (tmp_path / "scores.csv").write_text(SCORES)
    (tmp_path / "scores.md").write_text(CLAIMS)
    return ResultsFolder(tmp_path)


def published(key: str, env: str):
    raise UserError(f"there is no published score {key} of {env}")


def render(folder: ResultsFolder, text: str) -> str:
    file = folder.path / "findings.md"
    file.write_text(text)
    return findings.render(file, findings.vocabulary(folder, published))


def test_numbers_come_from_the_tables(folder):
    assert render(folder, '{{ score("Hopper-v5", "delta=0.01") }}') == "1,735"
    assert render(folder, '{{ score("Hopper-v5", "delta=0.02") }}') == "40.65"
    assert render(folder, '{{ scored("Hopper-v5", "delta=0.01") }}') == "1,735 [720,\u00a02,404]"
    assert render(folder, '{{ seeds("Hopper-v5", "delta=0.02") }}') == "3"
    assert render(folder, '{{ score("Hopper-v5", "delta=0.02", "ci_high") - 1000 }}') == "1,071"


def test_lists_of_numbers_are_summed_up(folder):
    column = 'column("scores.csv", "ci_low", env="Hopper-v5")'
    assert render(folder, f"{{{{ {column} | listed }}}}") == "720 and 1,656"
    assert (
        render(folder, f"{{{{ {column} | mean }}}} {{{{ {column} | lowest }}}} {{{{ {column} | highest }}}}")
        == "1,188 720 1,656"
    )
    assert render(folder, f"{{{{ {column} | standard_error }}}}") == "468"
    assert render(folder, '{{ column("scores.csv", "evaluation") | count }}') == "1"  # an empty cell is no number


def test_claims_come_from_the_report(folder):
    assert render(folder, '{{ claim("It hops").verdict }}') == "does not hold"
    assert render(folder, '{{ claim("It hops").value }} {{ claim("It hops").low }}') == "-1,338 -1,385"
    assert folder.claim("It hops").high == 2.5e-05
    assert folder.claim("It hops").criterion == "score: a | b > 1"
    assert folder.claim("It runs").verdict == "not decided"
    assert folder.claim("It runs").measured == "-"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '{{ score("Hopper-v5", "delta=0.03") }}',
            r"scores\.csv: there is no variant delta=0\.03 \(did you mean delta=0\.0",
        ),
        ('{{ score("Hopper", "delta=0.01") }}', r"scores\.csv: there is no env Hopper \(did you mean Hopper-v5"),
        ('{{ score("Hopper-v5", "delta=0.01", "iqr") }}', r"scores\.csv: there is no column iqr \(did you mean iqm"),
        (
            '{{ score("Hopper-v5", "delta=0.02", "evaluation") }}',
            r"scores\.csv: evaluation has 0 numbers where env=Hopper-v5",
        ),
        ('{{ column("runs.csv", "score") }}', r"runs\.csv: there is no such file: .* has scores\.csv"),
        ('{{ column("scores.csv", "iqm", seed=1) }}', r"scores\.csv: there is no column seed"),
        ('{{ claim("It swims").verdict }}', r"scores\.md: 0 claims begin with 'It swims': it has It hops\.; It runs\."),
        ('{{ claim("It").verdict }}', "2 claims begin with 'It'"),
        ('{{ claim("It hops").measure }}', "has no attribute 'measure'"),
        ('{{ published("engstrom", "Hopper") }}', "there is no published score engstrom of Hopper"),
        ("{{ median }}", "'median' is undefined"),
        ("{{ score( }}", "unexpected"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_what_the_results_do_not_have_is_one_line_with_file_and_line(folder, text, says):
    with pytest.raises(UserError, match=rf"findings\.md:3: .*{says}") as error:
        render(folder, f"First\n\n{text}\n")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "number", ["1,040", "0.5", "-3", "95 %", "three and 4", "| 12 |", "(7)", "1e-5", "5M steps: 5 seeds"]
)
def test_a_number_that_is_not_computed_is_refused(folder, number):
    with pytest.raises(UserError, match=r"findings\.md:2: [-\d.,e]+ is not computed") as error:
        render(folder, f"Some words\nand {number} more\n")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "Hopper-v5 with `delta=0.02`",
        "TRPO 2015, figure 4 and Algorithm 1 of 1983",
        "[a link](results_2.md#part-3)",
        "```console\n$ make test 3\n```",
        "{{ 3 }} and {{\n4 }}",
        "Walker2d, v_0, 64-64-networks",
        "![x](a.png){ width=300 }",
    ],
)
def test_names_and_code_are_no_numbers(folder, text):
    assert render(folder, text)


def test_whole_numbers_large_and_small_ones_are_shown_as_in_reports():
    assert [findings.shown(value) for value in (3, 500_000, 1040.4, 98.95, 0.0642, -1.0)] == [
        *("3", "500,000", "1,040", "98.95", "0.0642", "-1.000")
    ]
    assert findings.shown("text") == "text"


def test_the_files_of_this_repository_say_nothing_that_is_not_there():
    from generate import benchmarks, declared, results

    folders = results.folders_of(results.RESULTS)
    assert len(folders) > 10
    for folder in folders:
        text = findings.render(folder.path / declared.FINDINGS, declared.vocabulary(folder))
        assert "{{" not in text and "nan" not in text.lower().split(), folder.name
    (page,) = benchmarks.pages().values()
    assert "| ceiling |" in page and Path(benchmarks.FOLDER / benchmarks.FIGURE).exists()
