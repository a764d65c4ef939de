"""The tutorial's pages: their code runs as it does when the site is built, and what their text claims is true of it."""

import contextlib
import io
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.stem: path for path in sorted((DOCS / "tutorial").glob("*.md"))}
BLOCK = re.compile(r'^```python exec="on"(?P<options>.*)\n(?P<code>(?:.*\n)*?)^```$', re.MULTILINE)
WIDTH = 80
"""Columns of code that a page shows without scrolling."""


@cache
def run(name):
    """The names that a page's blocks leave behind, run in order, and in `printed` what each block printed."""
    session: dict = {"printed": []}
    for number, block in enumerate(BLOCK.finditer(PAGES[name].read_text())):
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            exec(compile(block["code"], f"{name}.md, block {number}", "exec"), session)
        session["printed"].append(stdout.getvalue())
    return session


def test_all_pages_of_the_tutorial_are_in_its_order():
    listed = re.findall(r"([\w-]+)\.md", (DOCS / "tutorial" / ".nav.yml").read_text())
    assert sorted(listed) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_code_on_a_page_is_one_session_and_fits_its_column(name):
    blocks = list(BLOCK.finditer(PAGES[name].read_text()))
    assert len({re.search(r'session="(\w+)"', block["options"])[1] for block in blocks}) <= 1
    assert [line for block in blocks for line in block["code"].splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize("name", PAGES)
def test_prose_quotes_no_measured_number(name):
    text = BLOCK.sub("", PAGES[name].read_text())
    text = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|arXiv[^)]*", "", text, flags=re.DOTALL)
    assert re.findall(r"\d+\.\d+|\d+ ?%", text) == []


@pytest.mark.parametrize("name", PAGES)
def test_figures_are_valid_svg_in_the_colour_of_the_text(name):
    for printed in run(name)["printed"]:
        if "<figure" in printed:
            figure = ElementTree.fromstring(printed.replace("xlink:", "").replace("&", "&amp;"))
            assert "currentColor" in printed
            assert len(figure.find("figcaption").text) > 20
            colours = set(re.findall(r"#[0-9a-f]{6}", printed))
            assert colours <= {"#3c86cf", "#dd7226", "#2f9a6a", "#9b6fd0", "#85888f", "#ffffff"}


def test_values_and_visitation_are_their_sums_and_simulations():
    page = run("index")
    assert page["value_error"] < 1e-12
    assert page["simulation_error"] < 4.0
    shuffle, leap = 0, 2
    assert page["policies"]["best"].argmax(-1).tolist() == [shuffle, shuffle, leap, shuffle, shuffle]


def test_the_policy_gradient_is_the_gradient_of_the_return():
    page = run("policy-gradient")
    assert float(page["g"].norm()) > 0.01
    assert page["gradient_error"] < 1e-12
    assert page["baseline_error"] < 1e-12
    assert page["sampling_error"] < 4.0
    assert 0.1 < page["cosine"] < 0.7  # "no more than a rough direction"


def test_vanilla_policy_gradient_is_slow_or_gets_stuck():
    small, middle, large = ([run_[-1] for run_ in runs] for runs in run("policy-gradient")["curves"].values())
    assert max(small) < min(middle)
    assert min(large) < -0.5 < max(large)


def test_reweighted_trajectories_are_unbiased_and_spread_exponentially():
    page = run("importance-sampling")
    assert page["reweighting_error"] < 4.0
    assert page["worth"] < 0.1 * len(page["w"])
    assert page["heaviest"] > 0.3
    moments = page["second_moments"]
    assert moments[0] > 1.0
    assert all(later > earlier for earlier, later in pairwise(moments))
    assert float(page["measured"][0]) == pytest.approx((moments[0] - 1.0) ** 0.5, rel=0.05)


def test_each_line_of_the_performance_difference_is_the_same_number():
    page = run("importance-sampling")
    assert abs(float(page["difference"])) > 0.005
    assert page["identity_error"] < 1e-10
    assert page["telescoping_error"] < 1e-12
    assert page["averaging_error"] < 4.0
    assert page["averaging_gap"] > 0.1  # line 5 holds on average only


def test_the_surrogate_is_exact_to_first_order():
    page = run("surrogate")
    assert page["batch_error"] < 4.0
    assert page["neglected_error"] < 1e-12
    assert page["value_gap"] < 1e-12
    assert page["gradient_gap"] < 1e-12
    assert page["estimate_gap"] < 1e-12


def test_the_true_return_turns_while_the_surrogate_rises():
    page = run("surrogate")
    returns, surrogates, lengths = page["returns"], page["surrogates"], page["lengths"]
    assert 0.0 < lengths[page["best"]] < lengths[-1]
    assert float(returns[-1]) < float(page["old"].eta) - 0.05
    assert float(surrogates[-1]) > float(returns.max()) + 0.5
    old, far = page["old"], page["far"]
    assert bool((far.policy[1:3, 2] > 2.0 * old.policy[1:3, 2]).all())  # leaps, from stone 2 and from stone 1
    assert float(page["shares"][2]) < 0.2 * float(page["d"][2])


def test_the_error_is_in_proportion_to_the_kl_and_the_gain_to_its_root():
    page = run("surrogate")
    assert 0.9 < page["slope"] < 1.1
    assert 1.9 < page["length_slope"] < 2.1
    assert 0.45 < page["gain_slope"] < 0.55
    assert (page["near"]).sum() > 10


def test_the_kl_is_a_quadratic_form_and_its_directions_differ_in_third_order():
    page = run("trust-region")
    assert page["fisher_error"] < 1e-12
    assert page["slope_at_old"] < 1e-12
    assert page["rank"] == 4
    assert page["ratios"][-1] == pytest.approx(1.0, abs=0.01)
    assert 2.8 < page["direction_slope"] < 3.2


def test_no_policy_is_worse_than_the_bound():
    page = run("trust-region")
    assert page["tried"] == 2000
    assert page["exceeded"] == 0
    assert min(page["margins"]) > 0.0
    assert max(max(errors) for errors in page["errors"].values()) > 0.1  # and some surrogates are far off
    assert page["rise"] >= page["exact_step"].guaranteed > 0.0
    assert page["times"] > 1e4


def test_the_natural_gradient_is_the_best_step_and_knows_no_units():
    page = run("step")
    assert page["plain"] < 0.5 * page["promised"]
    assert 0.9 * page["promised"] < page["best_other"] <= page["promised"]
    assert page["reward_gap"] < 1e-12
    assert page["unit_gap"] < 1e-10


def test_products_solver_and_step_are_the_dense_ones():
    page = run("step")
    assert page["product_error"] < 1e-12
    assert page["cg_error"] < 1e-10
    assert page["solution"].iterations == 4  # "here there are four"
    assert page["own_error"] < 1e-10
    assert page["step_error"] < 1e-10
    for errors in page["errors"].values():
        assert errors[0] == 1.0
        assert errors[-1] < 1e-10


def test_damping_evens_the_eigenvalues_out_and_shortens_the_step():
    spreads, shares, cosines = zip(*run("step")["damped"].values(), strict=True)
    assert spreads[0] > spreads[1] > spreads[2]
    assert shares[0] == pytest.approx(1.0)
    assert shares[0] > shares[1] > shares[2]
    assert cosines[0] < cosines[1] < cosines[2]


def test_the_line_search_takes_the_first_candidate_inside():
    page = run("step")
    accepted, large = page["accepted"], page["large"]
    assert accepted > 0
    assert page["kls"][accepted] <= large < page["kls"][accepted - 1]
    assert page["promised_kl"] < 0.5 * page["kls"][accepted]  # where the pairs part
    assert page["promised_rise"] < 0.5 * page["gains"][accepted]


def test_a_larger_radius_learns_faster_with_exact_expectations():
    learned = run("step")["learned"]
    assert learned[0.001][10] < learned[0.01][10] < learned[0.1][10]
    assert min(curve[-1] for curve in learned.values()) > 0.0


def test_a_baseline_saves_variance_and_leaves_the_mean():
    page = run("estimators")
    assert page["river_ratio"] > 1.5
    assert page["paid_ratio"] > 100.0
    for estimates in (*page["river"].values(), *page["paid"].values()):
        deviations = (estimates.mean(0) - page["g"]) / estimates.std(0) * page["N"] ** 0.5
        assert float(deviations.abs().max()) < 4.0


def test_lambda_trades_bias_for_variance():
    page = run("estimators")
    assert page["gae_error"] < 1e-12
    assert page["definition_error"] < 1e-12
    bias, deviation = page["bias"], page["deviation"]
    assert bias[0] > 3.0 * bias[-1]
    assert deviation[0] < 0.7 * deviation[-1]


def test_the_gradient_without_discounted_states_is_the_gradient_of_nothing():
    page = run("estimators")
    for of_g, of_h in page["asymmetries"].values():
        assert of_g < 1e-12
        assert of_h > 0.01
    cosines = list(page["cosines"].values())
    assert cosines == sorted(cosines)


def test_the_best_lambda_falls_as_the_values_get_better():
    first, second, third = run("estimators")["best_lambdas"]
    assert first > second > third


def test_trpo_gets_stuck_at_no_radius_and_beats_the_vanilla_method_from_the_same_batches():
    small, large = run("estimators")["learned"].values()
    assert all(curve[-1] > curve[0] + 0.2 for curve in (*small, *large))
    vanilla = run("policy-gradient")["curves"].values()
    mean = [sum(curve[-1] for curve in curves) / len(curves) for curves in (large, *vanilla)]
    assert mean[0] == max(mean)
    reachable = run("step")["learned"][0.1][-1]
    assert min(max(curve) for curve in large) > reachable - 0.02


def test_ratios_of_actions_keep_the_gain_of_old_batches_without_their_bias():
    page = run("reuse")
    near, far = page["measured"][0.1], page["measured"][0.6]
    assert near["as if all were new"][1] < 0.6 * near["the newest alone"][1]
    assert far["as if all were new"][0] > 2.0 * far["ratios of actions"][0]
    assert far["ratios of trajectories"][1] > 2.0 * far["ratios of actions"][1]
    errors = {name: row[2] for name, row in far.items()}
    assert max(errors["ratios of actions"], errors["and falling weights"]) < 0.65 * errors["the newest alone"]


def test_the_generalized_bound_of_the_page_is_never_broken_and_loose():
    page = run("reuse")
    assert min(page["gaps"]) > -1e-9 and max(page["gaps"]) > 1.0


def test_cutting_ratios_off_helps_with_a_value_function_and_harms_without():
    corrected = run("reuse")["corrected"]
    fitted, none = ({cut: row for (fit, cut), row in corrected.items() if fit == one} for one in run("reuse")["fits"])
    assert fitted["cut off at 1"][0] < 0.8 * fitted["no ratios"][0]
    assert fitted["cut off at 1"][1] < fitted["no ratios"][1] < fitted["all"][1]
    assert none["cut off at 1"][0] > 1.5 * none["no ratios"][0]
