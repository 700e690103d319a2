"""`tall compose`: what the command line adds to `compose`."""

import torch
from typer.testing import CliRunner

from tall_hf import TALLForCausalLM
from tall_hf.cli import app


def test_a_seed_draws_the_adapters_first_weights_and_nothing_else(part_folders, tmp_path):
    def composed(name, *arguments):
        parts = [f"--{role.replace('_', '-')}={folder}" for role, folder in part_folders().items()]
        result = CliRunner().invoke(app, ["compose", *parts, f"--output={tmp_path / name}", *arguments])
        assert result.exit_code == 0, result.output
        return TALLForCausalLM.from_pretrained(tmp_path / name)

    first, again, other = composed("a", "--seed=1"), composed("b", "--seed=1"), composed("c", "--seed=2")
    for (name, weight), same in zip(first.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, same), name
    adapter = "encoder.source_alignment"
    assert any(
        not torch.equal(weight, other.get_parameter(name))
        for name, weight in first.named_parameters()
        if name.startswith(adapter)
    )
    assert all(
        torch.equal(weight, other.get_parameter(name))
        for name, weight in first.named_parameters()
        if not weight.requires_grad
    )


def test_a_place_that_may_only_be_read_is_named_though_its_folder_is_not_there(part_folders, tmp_path, monkeypatch):
    def refuse(model, processor, folder):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tall_hf.saving.save", refuse)
    parts = [f"--{role.replace('_', '-')}={folder}" for role, folder in part_folders().items()]
    result = CliRunner().invoke(app, ["compose", *parts, f"--output={tmp_path / 'new' / 'folder' / 'tall'}"])
    assert result.exit_code == 1
    assert "Read-only file system" in result.output and "full" not in result.output
