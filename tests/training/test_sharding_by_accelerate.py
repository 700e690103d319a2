"""What accelerate does to shard a TALL (FSDP2), on one CPU process: it enters FSDP by itself on accelerators only."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import fsdp_utils
from torch.distributed.fsdp import FSDPModule
from trainings import SHORT, make_rows, without_dropout
from transformers import Trainer

from tall_hf import LastTokenCollator, TALLTrainer, TALLTrainingArguments


pytestmark = pytest.mark.skipif(not hasattr(fsdp_utils, "fsdp2_prepare_model"), reason="this accelerate has no FSDP2")


@pytest.fixture
def accelerator(monkeypatch):
    """As much of an Accelerator as sharding reads, with the settings of examples/accelerate/fsdp2.yaml."""
    from accelerate.utils import FullyShardedDataParallelPlugin

    monkeypatch.setenv("FSDP_VERSION", "2")
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["MarianEncoderLayer", "MarianDecoderLayer", "Qwen2DecoderLayer"],
        reshard_after_forward=True,
        cpu_ram_efficient_loading=False,
    )
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    found = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision="no",
        is_main_process=True,
        device=torch.device("cpu"),
        parallelism_config=SimpleNamespace(fsdp_dim_names=("dp",)),
        torch_device_mesh={("dp",): torch.distributed.init_device_mesh("cpu", (1,), mesh_dim_names=("dp",))},
    )
    found.prepare = lambda model: fsdp_utils.fsdp2_prepare_model(found, model)
    yield found
    torch.distributed.destroy_process_group()


@pytest.fixture
def trainer(fresh, accelerator, tmp_path, monkeypatch):
    """A trainer that was started as if under FSDP2."""
    model, processor = fresh("gated")
    arguments = TALLTrainingArguments(**SHORT, output_dir=str(tmp_path))
    rows = make_rows(processor, 4)
    trainer = TALLTrainer(without_dropout(model), arguments, train_dataset=rows, processing_class=processor)

    def create(self):
        self.accelerator, self.is_fsdp_enabled = accelerator, True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create)
    return trainer


def test_a_sharded_tall_learns_as_a_whole_one(trainer):
    batch = LastTokenCollator(trainer.processing_class)(list(trainer.train_dataset))
    model = trainer.model.train()

    def learn():
        loss = model(**batch).loss
        loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
        model.zero_grad()
        return loss.detach(), {
            name: getattr(grad, "full_tensor", lambda grad=grad: grad)() for name, grad in gradients.items()
        }

    wanted = learn()
    embeddings = model.get_input_embeddings()
    trainer.create_accelerator_and_postprocess()
    trainer.accelerator.prepare(model)
    assert isinstance(model, FSDPModule)
    torch.testing.assert_close(learn(), wanted)
    assert model.get_input_embeddings() is embeddings


def test_loading_by_one_process_is_refused(trainer, accelerator):
    accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = True
    with pytest.raises(ValueError, match="`fsdp_cpu_ram_efficient_loading` does not work with a TALL"):
        trainer.create_accelerator_and_postprocess()
