"""Pretraining of the alignments: the loss and the figures against hand-computed ones, and resuming bit for bit."""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import parts
import pytest
import torch
from datasets import Dataset
from torch import nn
from typer.testing import CliRunner

from tall_hf import TALLForCausalLM, compose
from tall_hf.cli import app
from tall_hf.data.corpus import CorpusSettings
from tall_hf.data.prepare import prepare
from tall_hf.modeling.alignment_tall import AlignmentAutoencoder, DimensionAlignment
from tall_hf.training import alignment_run
from tall_hf.training.alignment import pretrain_alignments
from tall_hf.training.alignment_inputs import alignment_inputs, input_states
from tall_hf.training.alignment_run import prediction_error
from tall_hf.training.alignment_settings import AlignmentSettings


QUICK = AlignmentSettings(batch_size=4, max_epochs=4, validation_share=0.3)


@pytest.fixture
def rows(composed):
    _, processor = composed("gated")
    encoded = processor(text=parts.SENTENCES * 3, translations=parts.TRANSLATIONS * 3)
    return Dataset.from_dict({name: encoded[name] for name in ("input_ids", "llm_input_ids")})


class Doubling(nn.Module):
    """Gives back twice what it reads, as an autoencoder that is known through and through."""

    def forward(self, states):
        return 2 * states


def part_of(model, processor, name):
    return next(part for part in alignment_inputs(model, processor, "autoencoder") if part.name == name)


def test_alignments_that_are_no_mlps_are_refused(composed):
    model, processor = composed("gated", alignment_type="linear")
    with pytest.raises(ValueError, match="this TALL's are 'linear'"):
        pretrain_alignments(model, processor, None)


def test_mirror_ends_in_a_norm_of_the_input_width():
    alignment = DimensionAlignment(input_size=3, output_size=4, hidden_size=8, dropout=0.25)
    autoencoder = AlignmentAutoencoder(alignment, initializer_range=0.5)
    assert autoencoder.encoder is alignment
    mirror = autoencoder.decoder
    assert mirror.up_proj.weight.shape == (8, 4)
    assert mirror.down_proj.weight.shape == (3, 8)
    assert mirror.output_norm.normalized_shape == (3,)
    assert mirror.dropout.p == 0.25
    assert not mirror.up_proj.bias.any()
    assert 0.2 < mirror.up_proj.weight.std() < 0.8
    states = torch.randn(2, 5, 3)
    autoencoder.eval()
    torch.testing.assert_close(autoencoder(states), mirror(alignment(states)))


def test_mean_squared_error_and_explained_variance_by_hand():
    # Errors are the states themselves: 1 + 4 + 9 + 0 + 4 + 16 over 6 numbers. The column means are 2 and 2, the squared
    # deviations 1 + 0 + 1 and 4 + 0 + 4.
    batches = [torch.tensor([[1.0, 0.0], [2.0, 2.0]]), torch.tensor([[3.0, 4.0]])]
    loss, explained = prediction_error(Doubling(), ((batch, batch) for batch in batches))
    assert loss == pytest.approx(34 / 6)
    assert explained == pytest.approx(1 - 34 / 10)


def test_explained_variance_is_one_for_a_copy_zero_for_the_mean_and_ignores_batches():
    states = 1000 + torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert prediction_error(nn.Identity(), [(states, states)]) == (0.0, 1.0)

    class Mean(nn.Module):
        def forward(self, batch):
            return states.mean(dim=0).expand_as(batch)

    whole, split = (
        prediction_error(Mean(), [(batch, batch) for batch in batches]) for batches in ([states], states.split(7))
    )
    assert whole == pytest.approx(split)
    assert whole[0] == pytest.approx(states.var(dim=0, correction=0).mean().item())
    assert whole[1] == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="All targets are the same"):
        prediction_error(nn.Identity(), [(torch.ones(3, 2), torch.ones(3, 2))])


@pytest.mark.parametrize("name", ["source_alignment", "target_alignment"])
def test_padding_never_counts(composed, rows, name):
    """The states of a padded batch are those of its sentences alone, one for each token."""
    model, processor = composed("gated")
    part = part_of(model, processor, name)
    sentences = rows[part.column][:5]
    assert len({len(ids) for ids in sentences}) > 2
    together = input_states(part, sentences)
    alone = torch.cat([input_states(part, [ids]) for ids in sentences])
    assert together.shape == (sum(map(len, sentences)), alone.shape[1])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_states_are_those_the_alignments_read_in_the_model(composed, rows):
    """Alignment 1 always; alignment 2 with the bridge "none", whose LLM reads its own embeddings."""
    for bridge, name in (("gated", "source_alignment"), ("none", "target_alignment")):
        model, processor = composed(bridge)
        seen = []
        handle = getattr(model.encoder, name).register_forward_hook(
            lambda _, args, output, seen=seen: seen.append(args[0])
        )
        ids = {column: torch.tensor([rows[column][0]]) for column in ("input_ids", "llm_input_ids")}
        with torch.no_grad():
            model.encoder(**ids)
        handle.remove()
        part = part_of(model, processor, name)
        torch.testing.assert_close(input_states(part, [rows[part.column][0]]), seen[0][0])


def test_a_gated_bridge_at_its_start_gives_the_llms_own_states(fresh, rows):
    model, processor = fresh("gated")
    nn.init.zeros_(model.encoder.gate)
    part = part_of(model, processor, "target_alignment")
    seen = []
    model.encoder.target_alignment.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    with torch.no_grad():
        model.encoder(
            input_ids=torch.tensor([rows["input_ids"][0]]), llm_input_ids=torch.tensor([rows["llm_input_ids"][0]])
        )
    torch.testing.assert_close(input_states(part, [rows["llm_input_ids"][0]]), seen[0][0])


def test_an_epoch_is_adamw_on_clipped_gradients_of_the_token_mean(fresh, rows):
    """One batch, one epoch, no dropout: the weights equal one optimizer step by hand."""
    model, processor = fresh("gated")
    model.encoder.source_alignment.dropout.p = 0.0
    expected = copy.deepcopy(model.encoder.source_alignment)
    settings = AlignmentSettings(batch_size=100, max_epochs=1, validation_share=0.3, max_grad_norm=0.01)
    part = part_of(model, processor, "source_alignment")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    learned = [rows["input_ids"][i] for i in order[round(0.3 * len(rows)) :]]
    torch.manual_seed(0)
    autoencoder = AlignmentAutoencoder(expected, model.config.initializer_range)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=1e-3)
    states = [input_states(part, [ids]) for ids in learned]
    squares = sum((autoencoder(one) - one).square().sum() for one in states)
    (squares / sum(one.numel() for one in states)).backward()
    assert nn.utils.clip_grad_norm_(autoencoder.parameters(), 0.01) > 0.02
    optimizer.step()
    pretrain_alignments(model, processor, rows, settings, progress=False)
    for (name, got), wanted in zip(
        model.encoder.source_alignment.named_parameters(), expected.parameters(), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-5, msg=name)


def test_only_the_alignments_change_and_they_explain_more(fresh, rows):
    model, processor = fresh("gated")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    model.train()
    settings = AlignmentSettings(batch_size=4, max_epochs=30, validation_share=0.3, learning_rate=5e-3)
    random_state = torch.get_rng_state()
    report = pretrain_alignments(model, processor, rows, settings, progress=False)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    expected = {name for name in before if "_alignment." in name}
    assert changed == expected
    assert (report.train_sentences, report.validation_sentences) == (11, 4)
    for alignment in report.alignments.values():
        start, end = alignment.explained_variance
        assert start < 0.1
        assert end > max(0.5, start)
        losses = [entry["validation_loss"] for entry in alignment.history]
        assert alignment.best_epoch == losses.index(min(losses))
        assert [entry["epoch"] for entry in alignment.history] == list(range(len(losses)))


def test_a_bridge_without_alignment_1_pretrains_the_other(fresh, rows):
    model, processor = fresh("none")
    report = pretrain_alignments(model, processor, rows, QUICK, progress=False)
    assert list(report.alignments) == ["target_alignment"]


def test_half_precision_models_train_in_full_precision(part_folders, rows):
    model, processor = compose(**part_folders(), source_bridge="gated", dtype=torch.bfloat16)
    report = pretrain_alignments(model, processor, rows, QUICK, progress=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for alignment in report.alignments.values():
        assert alignment.explained_variance[1] > alignment.explained_variance[0]


def test_plateau_and_early_stopping(fresh, rows, monkeypatch):
    """With a validation loss that stops falling after epoch 1, the rate halves and the best weights are kept."""
    model, processor = fresh("none")
    losses = iter([3.0, 2.0] + [2.5] * 20)
    monkeypatch.setattr(alignment_run, "prediction_error", lambda *_: (next(losses), 0.5))
    settings = AlignmentSettings(batch_size=4, validation_share=0.3, plateau_patience=2, stop_patience=5)
    alignment = pretrain_alignments(model, processor, rows, settings, progress=False).alignments["target_alignment"]
    assert alignment.best_epoch == 1
    assert alignment.stopped_early
    assert [entry["learning_rate"] for entry in alignment.history] == [1e-3] * 5 + [5e-4] * 2
    monkeypatch.undo()
    other, _ = fresh("none")
    one_epoch = AlignmentSettings(batch_size=4, max_epochs=1, validation_share=0.3)
    pretrain_alignments(other, processor, rows, one_epoch, progress=False)
    for one, two in zip(
        model.encoder.target_alignment.parameters(), other.encoder.target_alignment.parameters(), strict=True
    ):
        assert torch.equal(one, two)


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_resumed_equals_undisturbed_bit_for_bit(fresh, rows, tmp_path, monkeypatch, after):
    undisturbed, processor = fresh("gated")
    expected = pretrain_alignments(undisturbed, processor, rows, QUICK, progress=False)

    model, _ = fresh("gated")
    saves = []
    save = torch.save

    def killed_while_saving(state, path):
        saves.append(path)
        if len(saves) == after:
            path.write_bytes(b"half a file")
            raise Killed
        save(state, path)

    monkeypatch.setattr(torch, "save", killed_while_saving)
    with pytest.raises(Killed):
        pretrain_alignments(model, processor, rows, QUICK, tmp_path / "state", progress=False)
    torch.manual_seed(99)  # a new process begins with other random numbers
    model, _ = fresh("gated")
    report = pretrain_alignments(model, processor, rows, QUICK, tmp_path / "state", progress=False)
    assert len(saves) == 2 * 5 + 1  # what was killed, and nothing else, is done again
    assert report == expected
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    # A finished state answers at once.
    model, _ = fresh("gated")
    assert pretrain_alignments(model, processor, rows, QUICK, tmp_path / "state", progress=False) == expected
    assert len(saves) == 2 * 5 + 1


def test_another_run_is_not_resumed(fresh, rows, tmp_path):
    model, processor = fresh("gated")
    started = copy.deepcopy(model)
    pretrain_alignments(model, processor, rows, QUICK, tmp_path, progress=False)

    def resume(model=started, rows=rows, settings=QUICK):
        pretrain_alignments(copy.deepcopy(model), processor, rows, settings, tmp_path, progress=False)

    other = AlignmentSettings(batch_size=4, max_epochs=4, validation_share=0.3, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"changed settings, learning_rate 0.001 → 0.5"):
        resume(settings=other)
    with pytest.raises(ValueError, match="changed dataset"):
        resume(rows=rows.select(range(len(rows) - 1, -1, -1)))
    with pytest.raises(ValueError, match="changed alignment's first weights"):
        resume(model=model)
    with torch.no_grad():
        started.encoder.translator.get_encoder().layers[0].fc1.bias += 1
    with pytest.raises(ValueError, match="changed frozen part"):
        resume()


def test_the_state_of_an_earlier_version_is_told(fresh, rows, tmp_path):
    model, processor = fresh("none")
    pretrain_alignments(copy.deepcopy(model), processor, rows, QUICK, tmp_path, progress=False)
    path = tmp_path / "target_alignment.pt"
    state = torch.load(path, weights_only=True)
    del state["identity"]["settings"]["objective"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=f"written by an earlier version of tall-hf. Delete {tmp_path}"):
        pretrain_alignments(model, processor, rows, QUICK, tmp_path, progress=False)


def test_states_of_another_source_fusion_are_not_gone_on_with(fresh, rows, tmp_path):
    fused, processor = fresh("gated", source_fusion="global_softmax")
    pretrain_alignments(copy.deepcopy(fused), processor, rows, QUICK, tmp_path, progress=False)
    pretrain_alignments(copy.deepcopy(fused), processor, rows, QUICK, tmp_path, progress=False)
    others = [copy.deepcopy(fused), copy.deepcopy(fused)]
    with torch.no_grad():
        others[0].encoder.source_fusion.layer_logits.add_(torch.tensor([0.0, 1.0]))
    others[1].encoder.source_fusion = None
    for other in others:
        with pytest.raises(ValueError, match="changed source fusion"):
            pretrain_alignments(other, processor, rows, QUICK, tmp_path, progress=False)


def test_max_sentences_draws_by_seed(fresh, rows):
    reports = {}
    for seed in (0, 0, 1):
        model, processor = fresh("none")
        settings = AlignmentSettings(batch_size=4, max_epochs=1, validation_share=0.3, max_sentences=6, seed=seed)
        report = pretrain_alignments(model, processor, rows, settings, progress=False)
        assert report.train_sentences + report.validation_sentences == 6
        assert reports.setdefault(seed, report) == report
    assert reports[0].alignments != reports[1].alignments


def test_bad_input(fresh, rows):
    model, processor = fresh("gated")
    with pytest.raises(ValueError, match="no column llm_input_ids, only input_ids"):
        pretrain_alignments(model, processor, rows.select_columns("input_ids"))
    with pytest.raises(ValueError, match="1 rows; at least 2"):
        pretrain_alignments(model, processor, rows.select([0]))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.encoder.llm.get_input_embeddings().weight[5:] = float("inf")
    with pytest.raises(ValueError, match="target_alignment reads are not finite"):
        pretrain_alignments(model, processor, rows, QUICK, progress=False)
    assert torch.equal(
        model.encoder.source_alignment.up_proj.weight, before["encoder.source_alignment.up_proj.weight"]
    )


@pytest.fixture
def command(composed, tmp_path):
    """`command(output, *options)` are the arguments of `tall pretrain-alignment` on a saved TALL and a prepared folder."""
    model, processor = composed("gated")
    model.save_pretrained(tmp_path / "tall")
    processor.save_pretrained(tmp_path / "tall")
    sentences = [f"{text} {word}" for text in parts.SENTENCES for word in ("היום", "מאוד", "בבוקר")]
    prepare(
        model, processor, sentences, tmp_path / "prepared", settings=CorpusSettings(min_words=2, validation_share=0)
    )
    fixed = ["pretrain-alignment", str(tmp_path / "tall"), "--dataset", str(tmp_path / "prepared")]
    return lambda output, *options: [*fixed, "--output", str(tmp_path / output), *map(str, options)]


def test_the_command_is_refused_where_another_process_is_at_work(command, at_work, tmp_path):
    pid = at_work(tmp_path / "out.unfinished")
    done = CliRunner().invoke(app, command("out"), env={"COLUMNS": "500"})
    assert done.exit_code == 1
    assert f"Another process (pid {pid}) is at work in {tmp_path / 'out.unfinished'}" in done.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_command_killed_and_resumed_equals_undisturbed(command, tmp_path):
    options = ("--batch-size", 1, "--max-epochs", 12, "--validation-share", 0.3)
    child = subprocess.Popen(
        [sys.executable, "-c", "from tall_hf.cli import app; app()", *command("killed", *options)],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.DEVNULL,
    )
    state = tmp_path / "killed.unfinished" / "source_alignment.pt"
    while not state.exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert len(torch.load(state, weights_only=True)["history"]) < 13

    for output in ("killed", "undisturbed"):
        done = CliRunner().invoke(app, command(output, *options))
        assert done.exit_code == 0, done.output
        assert "explained variance" in done.output
        assert not (tmp_path / f"{output}.unfinished").exists()
    reports = [
        json.loads((tmp_path / o / "alignment_pretraining.json").read_text()) for o in ("killed", "undisturbed")
    ]
    assert reports[0] == reports[1]
    one, other = (
        TALLForCausalLM.from_pretrained(tmp_path / output).state_dict() for output in ("killed", "undisturbed")
    )
    before = TALLForCausalLM.from_pretrained(tmp_path / "tall").state_dict()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
        assert torch.equal(tensor, before[name]) != ("_alignment." in name), name


def test_command_refuses_what_it_cannot_read(command, tmp_path):
    for arguments, message in (
        (command("out", "--learning-rate", 0), "`learning_rate` must be above 0"),
        (command("prepared"), "is no saved model"),
        ([*command("out")[:3], str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")], "nowhere"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 1
        assert message in " ".join(done.output.split())
        assert not (tmp_path / "out").exists()


def test_command_with_the_objective_embeddings(command, tmp_path):
    options = ("--objective", "embeddings", "--max-epochs", 2, "--validation-share", 0.3)
    done = CliRunner().invoke(app, command("out", *options))
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "alignment_pretraining.json").read_text())
    assert report["settings"]["objective"] == "embeddings"
    assert list(report["alignments"]) == ["target_alignment"]
    done = CliRunner().invoke(app, command("other", "--objective", "words"))
    assert done.exit_code == 2
    assert "'words' is not one of" in " ".join(done.output.split())
