"""The settings of the alignments' pretraining, and its report as a file and a plot."""

import json
import sys

import pytest

from tall_hf.training import alignment_report
from tall_hf.training.alignment_report import AlignmentReport, PretrainingReport
from tall_hf.training.alignment_settings import AlignmentSettings


@pytest.fixture
def report():
    history = [
        {
            "epoch": epoch,
            "train_loss": loss,
            "validation_loss": loss,
            "explained_variance": 1 - loss,
            "learning_rate": 0.1,
        }
        for epoch, loss in enumerate([2.0, 0.5, 0.75])
    ]
    alignments = {
        "source_alignment": AlignmentReport(history, best_epoch=1, stopped_early=False),
        "target_alignment": AlignmentReport(history[:2], best_epoch=1, stopped_early=True),
    }
    return PretrainingReport(AlignmentSettings(), 8, 2, alignments)


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0), ("validation_share", 1.0), ("batch_size", 0), ("max_epochs", 0), ("max_sentences", 1)],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*{value}"):
        AlignmentSettings(**{name: value})


def test_report_is_written(report, tmp_path):
    report.save(tmp_path)
    content = json.loads((tmp_path / "alignment_pretraining.json").read_text())
    assert content["settings"]["learning_rate"] == 1e-3
    assert content["train_sentences"] == 8
    assert len(content["alignments"]["source_alignment"]["history"]) == 3
    for alignment in content["alignments"].values():
        assert alignment["explained_variance"] == {"before": -1.0, "after": 0.5}
    assert (tmp_path / "alignment_pretraining.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_report_is_written_and_says_what_to_install(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    warnings = []
    monkeypatch.setattr(alignment_report.logger, "warning", warnings.append)
    report.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["alignment_pretraining.json"]
    [warning] = warnings
    assert "pip install 'tall-hf[train]'" in warning
