"""transformers' common model tests on TALLForCausalLM, once for each bridge."""

import unittest
import unittest.mock

from transformers import MarianConfig, Qwen2Config
from transformers.testing_utils import require_torch, torch_device

from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.encoder_tall import TALLEncoder
from tall_hf.modeling.modeling_tall import TALLForCausalLM

from ...generation.test_utils import GenerationTesterMixin
from ...test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask


class TALLModelTester:
    """Tiny configurations, no two of them alike in width or vocabulary, and inputs of three lengths."""

    def __init__(self, parent, source_bridge="marian", batch_size=13, is_training=True):
        self.parent = parent
        self.source_bridge = source_bridge
        self.batch_size = batch_size
        self.is_training = is_training
        # Read by the common tests: the decoder's prefix has `seq_length` tokens, what it cross-attends to
        # `encoder_seq_length` (the translation). They take a decoder mask from the source's, so those lengths agree.
        self.seq_length = 7
        self.decoder_seq_length = self.seq_length
        self.encoder_seq_length = 5
        self.hidden_size = 16
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.llm_vocab_size = 107

    def get_config(self):
        lr_hr_config = self._translator_config(vocab_size=103, d_model=24, ffn_dim=28)
        hr_lr_config = self._translator_config(vocab_size=101, d_model=self.hidden_size, ffn_dim=20)
        llm_config = Qwen2Config(
            vocab_size=self.llm_vocab_size,
            hidden_size=32,
            intermediate_size=36,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        return TALLConfig(
            lr_hr_config=lr_hr_config.to_dict(),
            llm_config=llm_config.to_dict(),
            hr_lr_config=hr_lr_config.to_dict(),
            source_bridge=self.source_bridge,
        )

    def _translator_config(self, vocab_size, d_model, ffn_dim):
        return MarianConfig(
            vocab_size=vocab_size,
            d_model=d_model,
            encoder_layers=self.num_hidden_layers,
            decoder_layers=self.num_hidden_layers,
            encoder_attention_heads=self.num_attention_heads,
            decoder_attention_heads=self.num_attention_heads,
            encoder_ffn_dim=ffn_dim,
            decoder_ffn_dim=ffn_dim,
            max_position_embeddings=64,
            pad_token_id=vocab_size - 1,
            decoder_start_token_id=vocab_size - 1,
            eos_token_id=0,
            bos_token_id=None,
            forced_eos_token_id=None,
            scale_embedding=True,
        )

    def prepare_config_and_inputs(self):
        config = self.get_config()
        shape = (self.batch_size, self.seq_length)
        llm_shape = (self.batch_size, self.encoder_seq_length)
        # Ids that no tokenizer gives a special meaning: neither padding nor end.
        inputs = {
            "input_ids": ids_tensor(shape, config.lr_hr_config.vocab_size - 3).clamp(3),
            "attention_mask": random_attention_mask(shape),
            "llm_input_ids": ids_tensor(llm_shape, self.llm_vocab_size).clamp(3),
            "llm_attention_mask": random_attention_mask(llm_shape),
            "decoder_input_ids": ids_tensor(shape, config.hr_lr_config.vocab_size - 3).clamp(3),
            "decoder_attention_mask": random_attention_mask(shape),
        }
        return config, {name: value.to(torch_device) for name, value in inputs.items()}

    def prepare_config_and_inputs_for_common(self):
        return self.prepare_config_and_inputs()


@require_torch
class TALLModelTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (TALLForCausalLM,)
    additional_model_inputs = ["llm_input_ids", "llm_attention_mask"]
    is_encoder_decoder = True
    # Otherwise left out for a model whose configuration file has no copyright year of 2023 or later at its top.
    test_can_init_all_missing_weights_before_2023 = True
    _is_composite = True
    source_bridge = "marian"
    # The vocabularies belong to three frozen models, and resizing is refused.
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = TALLModelTester(self, source_bridge=self.source_bridge)

    def test_attn_implementation_composite_models(self):
        # The test writes to `get_text_config(decoder=True)`, which for a Marian is a copy; here it is the part itself.
        with unittest.mock.patch.object(TALLConfig, "get_text_config", lambda config, **kwargs: config.hr_lr_config):
            super().test_attn_implementation_composite_models()

    def test_retain_grad_hidden_states_attentions(self):
        # A frozen decoder's first hidden state has no gradient, so the test runs on a model with nothing frozen.
        thawed = (unittest.mock.patch.object(part, "freeze_parts") for part in (TALLEncoder, TALLForCausalLM))
        with next(thawed), next(thawed):
            super().test_retain_grad_hidden_states_attentions()

    @unittest.skip("There is no base model under the head: encoder and decoder are the model's own, as in the paper.")
    def test_model_base_model_prefix(self):
        pass

    @unittest.skip(
        "The plan the test finds is the LLM's. The head is tied to the decoder's embeddings, which have none."
    )
    def test_tied_head_has_a_tp_plan_entry(self):
        pass


class TALLGatedModelTest(TALLModelTest):
    source_bridge = "gated"


class TALLConcatModelTest(TALLModelTest):
    source_bridge = "concat"


class TALLTranslationOnlyModelTest(TALLModelTest):
    source_bridge = "none"

    def check_training_gradient_checkpointing(self, gradient_checkpointing_kwargs=None):
        self.skipTest("The test watches the first layer, which is the source encoder's: this bridge does not read it.")
