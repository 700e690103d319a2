"""Tables that everybody prints, and how figures stand in them."""

import io

import pytest
from rich.console import Console

from tall_hf.measuring.tables import counts_table, markdown_table, p_value_text, percent_with_interval, rich_table


def shown(table):
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


def test_markdown_is_one_line_a_row():
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 2 |\n"


def test_names_stand_on_the_left_and_figures_on_the_right():
    name, figure = rich_table("t", ["row", "figure"], [["one", "1"]]).columns
    assert (name.justify, figure.justify) == ("left", "right")


def test_counts_have_their_share_of_what_was_read():
    lines = [line.split("│") for line in shown(counts_table("Texts", [("kept", 1500)], 2000)).splitlines()]
    assert ["kept", "1,500", "75.0%"] in [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert "0.0%" in shown(counts_table("Texts", [("kept", 0)], 0))


def test_shares_are_percent_with_their_intervals():
    scores = {"accuracy": 0.8, "accuracy_interval": (0.49, 0.943), "macro_f1": 0.5, "macro_f1_interval": (0.4, 0.6)}
    assert percent_with_interval(scores) == "80.00 [49.0, 94.3]"
    assert percent_with_interval(scores, "macro_f1") == "50.00 [40.0, 60.0]"
    assert percent_with_interval(scores, interval=False) == "80.00"


@pytest.mark.parametrize(("p", "text"), [(0.0704, "0.070"), (0.00099, "<0.001"), (0.001, "0.001"), (1.0, "1.000")])
def test_small_p_values_are_bounded(p, text):
    assert p_value_text(p) == text
