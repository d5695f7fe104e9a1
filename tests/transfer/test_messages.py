"""Foreign text in a message of ours: one line, not too long; and names that may be meant."""

from transfer.messages import did_you_mean, one_line


def test_an_error_is_one_line_with_its_kind():
    assert one_line(KeyError("a\n  b")) == r"KeyError: 'a\n b'"
    assert one_line(ValueError("two\nlines")) == "ValueError: two lines"


def test_a_long_error_is_cut():
    assert len(one_line(ValueError("word " * 100))) <= 160


def test_close_names_are_proposed_and_far_ones_are_not():
    assert did_you_mean("resnet81", ["resnet18", "vgg11"]) == " Did you mean resnet18?"
    assert did_you_mean("x", ["resnet18", "vgg11"]) == ""
