"""transformers' common processor tests on TALLProcessor, with three tokenizers trained on the spot."""

import json
import tempfile
import unittest
import unittest.mock
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MarianTokenizer, PreTrainedTokenizerFast
from transformers.testing_utils import require_torch

from tall_hf.modeling.processing_tall import TALLProcessor

from ...test_processing_common import ProcessorTesterMixin


HEBREW = ["הילדה הקטנה אכלה תפוח אדום", "האיש הזקן גר בבית ליד הים", "החתול השחור ישן על השטיח"]
ENGLISH = [
    "lower newer",
    "upper older longer string",
    "the little girl ate a red apple",
    "the old man lives by the sea",
]


@require_torch
class TALLProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = TALLProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return _marian_tokenizer(HEBREW + ENGLISH, vocab_size=90)

    @classmethod
    def _setup_source_tokenizer(cls):
        return _marian_tokenizer(HEBREW + ENGLISH, vocab_size=80)

    @classmethod
    def _setup_llm_tokenizer(cls):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=280, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        tokenizer.train_from_iterator(ENGLISH, trainer)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        )

    @staticmethod
    def prepare_processor_dict():
        return {"source_lang": "heb", "pivot_lang": "eng", "max_source_length": 40, "max_translation_length": 50}

    def test_model_input_names(self):
        # Overridden: the common test passes text alone, and a TALL reads a translation of it too.
        processor = self.get_processor()
        text = self.prepare_text_inputs(batch_size=3)
        inputs = processor(text=text, translations=ENGLISH[:3], return_tensors="pt")
        self.assertEqual(list(inputs), list(processor.model_input_names))

    def test_flat_kwarg_applied_when_modality_dict_lacks_it(self):
        with self.translated():
            super().test_flat_kwarg_applied_when_modality_dict_lacks_it()

    def test_processor_with_multiple_inputs(self):
        with self.translated():
            super().test_processor_with_multiple_inputs()

    def translated(self):
        """Translations for the tests that pass text alone."""
        call = TALLProcessor.__call__

        def call_with_translations(processor, text=None, **kwargs):
            return call(processor, text, ENGLISH[0] if isinstance(text, str) else ENGLISH[: len(text or [])], **kwargs)

        return unittest.mock.patch.object(TALLProcessor, "__call__", call_with_translations)


def _marian_tokenizer(sentences, vocab_size):
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "source"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences * 4),
            model_prefix=str(prefix),
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            pad_id=-1,
            bos_id=-1,
            eos_id=0,
            unk_id=1,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
        pieces = [model.id_to_piece(i) for i in range(model.vocab_size())] + ["<pad>"]
        vocab = Path(folder) / "vocab.json"
        vocab.write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}), encoding="utf-8")
        return MarianTokenizer(source_spm=f"{prefix}.model", target_spm=f"{prefix}.model", vocab=str(vocab))
