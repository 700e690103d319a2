"""The objective "embeddings" in the little world: a TALL that has not been trained yet translates what its LLM reads."""

import random

import pytest
import torch
from datasets import Dataset

from tall_hf import compose
from tall_hf.microworld import World, component_path
from tall_hf.training.alignment import pretrain_alignments
from tall_hf.training.alignment_settings import AlignmentSettings


@pytest.fixture(scope="module")
def composed():
    torch.manual_seed(0)
    folders = {role: component_path(role) for role in ("lr_hr", "llm", "hr_lr")}
    model, processor = compose(**folders, source_bridge="gated", warm_start=True)
    return model.eval(), processor


@torch.inference_mode()
def loss_behind(model, processor, translations, texts):
    """Loss a token of whole sentences, of which the source side has read a word alone."""
    inputs = processor(text=[text.split()[0] for text in texts], translations=translations, return_tensors="pt")
    rows = processor.encode_target(texts)
    longest = max(map(len, rows))
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    start = processor.decoder_start_token_ids
    inputs["decoder_input_ids"] = torch.tensor([(start + row + start * longest)[:longest] for row in rows])
    inputs["decoder_attention_mask"] = torch.ones_like(labels)
    return torch.nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten()).item()


def test_a_tall_whose_alignment_2_writes_the_translators_embeddings_listens(composed):
    model, processor = composed
    learned, asked = World().records()
    random.Random(0).shuffle(learned)
    encoded = processor(text=["x"] * 1000, translations=[record.english for record in learned[:1000]])
    rows = Dataset.from_dict({name: encoded[name] for name in ("input_ids", "llm_input_ids")})
    texts, own = [record.text for record in asked[:200]], [record.english for record in asked[:200]]
    others = own[:]
    random.Random(0).shuffle(others)

    def gain():
        return loss_behind(model, processor, others, texts) - loss_behind(model, processor, own, texts)

    assert gain() < 0.5
    settings = AlignmentSettings(objective="embeddings", max_epochs=4, learning_rate=3e-3)
    pretrain_alignments(model, processor, rows, settings, progress=False)
    assert gain() > 1
