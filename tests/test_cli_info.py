"""`tall info`: both kinds of model are described from their configuration alone."""

import pytest
from typer.testing import CliRunner

from tall_hf.cli import app


def described(folder):
    result = CliRunner().invoke(app, ["info", str(folder)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.output.splitlines() if "│" in line]


@pytest.mark.parametrize(("bridge", "own"), [("gated", {"bridge_attention_heads", "gate_init"}), ("none", set())])
def test_a_tall(composed, tmp_path, bridge, own):
    model, _ = composed(bridge)
    model.config.save_pretrained(tmp_path)
    rows = described(tmp_path)
    for name, *counts in model.parameter_table():
        assert [name, *(f"{count:,}" for count in counts)] in rows
    assert ["lr_hr", "marian"] in [row[:2] for row in rows]
    assert ["source_bridge", bridge] in rows and ["alignment_hidden_size", "twice the output width"] in rows
    assert {row[0] for row in rows} & {"bridge_attention_heads", "gate_init"} == own


def test_a_layer_fusion_model(fused, tmp_path):
    model, _ = fused()
    model.config.save_pretrained(tmp_path)
    rows = described(tmp_path)
    for name, *counts in model.parameter_table():
        assert [name, *(f"{count:,}" for count in counts)] in rows
    assert ["source_fusion", model.config.source_fusion] in rows and ["encoder", "m2m_100"] in [
        row[:2] for row in rows
    ]


def test_what_is_no_model_is_refused_in_one_line(tmp_path):
    result = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert (
        result.exit_code == 1
        and result.output == f"Error: {tmp_path} has no config.json, so no model was saved there.\n"
    )


def test_with_debug_the_traceback_is_shown(tmp_path):
    result = CliRunner().invoke(app, ["--debug", "info", str(tmp_path)])
    assert isinstance(result.exception, FileNotFoundError)
