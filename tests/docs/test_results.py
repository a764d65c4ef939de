"""The gallery and the experiments' pages."""

import shutil

import pytest
from generate import declared, results

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.experiment_file import experiment_names


@pytest.fixture(scope="module")
def pages():
    return results.pages()


def test_each_folder_of_results_has_a_page_a_card_and_findings(pages):
    for folder in results.folders_of(results.RESULTS):
        page = pages[f"results/{folder.name}.md"]
        assert page.startswith("# ") and "## Findings" in page and "## Run it again" in page, folder.name
        assert f"]({folder.name}.md)" in pages["results/index.md"]
        assert f"- {folder.name}.md" in pages["results/.nav.yml"]


def test_a_page_holds_hypothesis_verdicts_scores_and_origin(pages):
    page = pages["results/trpo2015_hopper.md"]
    assert "**Hypothesis.** Single path and vine learn to hop" in page
    assert "| CEM falls behind single path. | **does not hold** | 338.4 [285.8,\u00a0387.1] |" in page
    assert "| Hopper-v5 | vine | 3/3 |" in page and "gymnasium's Hopper-v5 instead of the paper's model" in page
    assert "$ make experiment NAME=trpo2015_hopper SCALE=fit" in page and 'title: "TRPO 2015' in page
    assert 'All 15 runs"' in page


def test_what_pages_show_and_link_to_is_copied(pages):
    copied = results.files()
    assert all(file.is_file() for file in copied.values())
    for path, page in pages.items():
        for picture in (f"results/{part.split(')')[0]}" for part in page.split("](")[1:]):
            assert not picture.endswith((".png", ".csv", ".json")) or picture in copied, (path, picture)


def test_runs_without_an_experiment_have_a_page_too(pages):
    assert "first_reward_scale" not in experiment_names()
    assert pages["results/first_reward_scale.md"].startswith("# The runs that led to scaled first rewards\n")
    assert "Hypothesis" not in pages["results/first_reward_scale.md"]


def test_a_folder_without_a_known_beginning_comes_last(tmp_path):
    for name in ("quickstart", "something_new"):
        shutil.copytree(results.RESULTS / "first_reward_scale", tmp_path / "results" / name)
    gallery = results.pages(tmp_path / "results")["results/index.md"]
    assert gallery.index("## First run") < gallery.index("## More") < gallery.index("(something_new.md)")


def test_settings_come_from_the_declaration_at_the_scale_that_was_run():
    folder = next(folder for folder in results.folders_of(results.RESULTS) if folder.name == "henderson2018_codebases")
    setting = declared.vocabulary(folder)["setting"]
    assert setting("total_env_steps") == 500_000
    assert setting("env.num_envs", variant="rl_zoo") == 2
    assert setting("rule.delta", env="HalfCheetah-v5", variant="rl_zoo") == 0.04
    with pytest.raises(UserError, match=r"rule\.delta has 2 values in all environments, rl_zoo: "):
        setting("rule.delta", variant="rl_zoo")
    with pytest.raises(UserError, match=r"there is no setting rule\.radius"):
        setting("rule.radius")
    with pytest.raises(UserError, match="has 0 values in all environments, rl_zou: there are no such runs"):
        setting("gamma", variant="rl_zou")


def test_published_scores_come_from_the_references():
    assert declared.published("engstrom2020", "Hopper").score == 2043
    with pytest.raises(UserError, match=r"no published score engstrom2020 of Hoper \(did you mean engstrom2020 Hopper"):
        declared.published("engstrom2020", "Hoper")


def test_findings_that_name_what_is_not_there_end_the_build_with_one_line(tmp_path, monkeypatch):
    mkdocs = pytest.importorskip("mkdocs.exceptions", reason="MkDocs is not installed: make docs")
    from generate import contents, hook

    folder = tmp_path / "results" / "first_reward_scale"
    shutil.copytree(results.RESULTS / "first_reward_scale", folder)
    (folder / "findings.md").write_text('{{ column("scores.csv", "scor") | mean }}')
    monkeypatch.setattr(contents, "pages", lambda: results.pages(tmp_path / "results"))
    with pytest.raises(mkdocs.PluginError, match=r"findings\.md:1: .*no column scor \(did you mean score") as error:
        hook.on_files([], None)
    assert "\n" not in str(error.value)
