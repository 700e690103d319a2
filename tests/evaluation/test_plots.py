"""Plots of hand-made results: which are drawn, and what stands in them."""

import sys

import handmade
import matplotlib.figure
import pytest

from tall_hf.evaluation.plots import plot_accuracy, plot_all, plot_running_accuracy, plot_split
from tall_hf.evaluation.scores import compute_scores


@pytest.fixture
def axes(monkeypatch):
    """The axes of each figure that is saved."""
    saved = []
    save = matplotlib.figure.Figure.savefig

    def savefig(self, *args, **kwargs):
        saved.append(self.axes[0])
        save(self, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return saved


def scores(training=None):
    return [entry for entry in compute_scores(handmade.results(), "clean", training=training) if entry.metrics]


def test_all_plots_of_each_protocol_are_drawn(tmp_path):
    results = handmade.results(("clean", "paper"))
    entries = {
        protocol: compute_scores(results, protocol, training=handmade.training()) for protocol in results.questions
    }
    paths = plot_all(entries, tmp_path / "plots")
    assert {path.name for path in paths} == {
        f"{name}_{protocol}.png"
        for name in ("accuracy", "running_accuracy", "accuracy_by_frequency", "accuracy_by_length")
        for protocol in ("clean", "paper")
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_without_a_training_text_or_a_run_that_succeeded_there_is_less_to_draw(tmp_path):
    broken = [entry for entry in compute_scores(handmade.results(), "clean") if entry.run.error]
    paths = plot_all({"clean": scores(), "paper": broken}, tmp_path)
    assert {path.stem for path in paths} == {"accuracy_clean", "running_accuracy_clean", "accuracy_by_length_clean"}


def test_bars_are_accuracies(axes, tmp_path):
    plot_accuracy(scores(), tmp_path / "a.png")
    assert [patch.get_width() for patch in axes[0].patches] == pytest.approx([80, 20])
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["tall", "ngram"]


def test_the_running_accuracy_ends_at_the_accuracy(axes, tmp_path):
    plot_running_accuracy(scores(), tmp_path / "r.png")
    tall, ngram = (line.get_ydata() for line in axes[0].lines)
    assert (tall[0], tall[-1], ngram[0], ngram[-1]) == pytest.approx((100, 80, 100, 20))
    assert len(tall) == 10


def test_accuracy_by_frequency_names_the_bins_and_how_many_questions_they_hold(axes, tmp_path):
    plot_split(scores(handmade.training()), "frequency", tmp_path / "f.png")
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["0\nn=8", "1–9\nn=1", "10–99\nn=1"]


def test_without_matplotlib_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'tall-hf\[eval\]'"):
        plot_all({"clean": scores()}, tmp_path / "plots")
    assert not (tmp_path / "plots").exists()
