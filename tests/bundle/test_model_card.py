"""The card says what the model is, what it was measured by, and what it is not for."""

import pytest
from bundles import HASHES, bundle_config

from studies.bundle.card import model_card, with_test_section
from studies.bundle.config import DataOrigin
from studies.document.markdown import escaped


def card(**changes):
    return model_card(bundle_config(HASHES, **changes))


def test_it_says_data_protocol_metric_limits_and_use():
    text = card()
    assert "| NORMAL | 20 | 20 | 20 |" in text
    assert "5 trials" in text and "2 seeds (1, 2), declared before" in text
    assert "accuracy: 0.7500 of this model on 20 images; 0.6250 in the mean of 2 seed(s)" in text
    assert "Not for diagnosis" in text
    assert "## Limits" in text


def test_an_interval_of_shares_stays_within_0_and_1():
    assert "(95 % interval of the mean over seeds 0.0000 to 1.0000)" in card()


def test_one_seed_has_no_interval():
    config = bundle_config(HASHES)
    one = config.validation.model_copy(update={"values": (0.75,)})
    assert "interval of the mean over seeds" not in card(validation=one)


def test_before_the_test_data_are_used_it_says_so_and_afterwards_the_result():
    config = bundle_config(HASHES)
    assert "Not evaluated on the test data" in model_card(config)
    tested = model_card(config, ["accuracy 0.7 on 20 images."])
    assert "accuracy 0.7 on 20 images." in tested and "Not evaluated" not in tested


def test_sealed_all_the_while_is_said_only_where_nothing_was_opened():
    config = bundle_config(HASHES)
    assert "sealed all the while" in model_card(config)
    assert "sealed all the while" not in model_card(config, ["Others were evaluated."])


def test_results_take_the_place_of_the_section_test_and_what_people_wrote_stays():
    card = model_card(bundle_config(HASHES)).replace(
        "## Limits", "My own words.\n\n## Limits\n\nMine."
    )
    once = with_test_section(card, ["First result.", "| a | b |"])
    assert "still sealed" not in once and "## Test\n\nFirst result.\n\n| a | b |\n" in once
    assert "## Limits\n\nMine." in once and once.count("## Test") == 1
    twice = with_test_section(once, ["Second result."])
    assert "First result." not in twice and "Second result." in twice
    assert twice.split("## Limits")[1] == card.split("## Limits")[1]
    without = with_test_section("# Mine\n\nText.\n", ["A result."])
    assert without == "# Mine\n\nText.\n\n## Test\n\nA result.\n"


def test_a_refit_says_whose_numbers_these_are():
    assert "Refit" not in card()
    text = card(refit=True)
    assert "for 3 epochs" in text and "are of the training before" in text


def test_what_was_allowed_and_left_out_is_told():
    data = bundle_config(HASHES).data.model_dump()
    data |= {"allowed": ("2 images in two splits (--allow-leakage)",)}
    data |= {"left_out": {"unreadable": {"train": 3}}}
    text = card(data=DataOrigin(**data))
    assert "Gone on with in spite of: 2 images in two splits (--allow-leakage)." in text
    assert "Left out of train as unreadable: 3." in text


def test_random_weights_are_called_a_control():
    assert "It started from random weights, as a control" in card()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text 1.5", "plain text 1.5"),
        ("a|b", r"a\|b"),
        ("<script>", r"\<script\>"),
        ("[x](http://y)", r"\[x\](http\://y)"),
        ("`x` *y* _z_", r"\`x\` \*y\* \_z\_"),
        ("a\n# b", r"a \# b"),
    ],
)
def test_text_of_others_is_shown_and_not_taken_for_markdown(text, shown):
    assert escaped(text) == shown


def test_names_of_classes_and_studies_cannot_break_out_of_their_place():
    name = "A | B <img src=x>"
    config = bundle_config(HASHES, classes=(name, "C"))
    study = config.study.model_copy(update={"name": "s; rm -rf `x`\n# y"})
    text = model_card(config.model_copy(update={"study": study}))
    assert "<img" not in text.replace(r"\<img", "")
    assert "\n# y" not in text
