"""`tall predict`: next words in a table, and one line for a model that cannot be loaded."""

import json

from typer.testing import CliRunner

from tall_hf.cli import app


def test_next_words_are_listed(composed, tmp_path):
    model, processor = composed("gated")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    result = CliRunner().invoke(app, ["predict", str(tmp_path), "דנה גרה", "--top-k", "3"])
    assert result.exit_code == 0, result.output
    [words] = model.next_words(["דנה גרה"], processor, top_k=3)
    assert len(words) == 3
    for word, probability in words:
        assert word in result.output and f"{probability:.4f}" in result.output


def test_weights_of_other_sizes_are_told_in_one_line(composed, tmp_path):
    model, processor = composed("gated")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["alignment_hidden_size"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(app, ["predict", str(tmp_path), "דנה"])
    assert result.exit_code == 1
    assert f"Error: The weights of {tmp_path} do not fit its configuration" in " ".join(result.output.split())
