"""tall_hf: let a frozen LLM work in a low-resource language (TALL, arXiv 2506.05057), the Hugging Face way."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoProcessor

from tall_hf.components import compose
from tall_hf.data import LastTokenCollator
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.training import TALLTrainer, TALLTrainingArguments, load_light


__version__ = "0.1.0"
__all__ = [
    "LastTokenCollator",
    "TALLConfig",
    "TALLForCausalLM",
    "TALLProcessor",
    "TALLTrainer",
    "TALLTrainingArguments",
    "compose",
    "load_light",
]

# With this package installed a TALL loads by the Auto classes without remote code.
AutoConfig.register("tall", TALLConfig)
AutoModel.register(TALLConfig, TALLForCausalLM)
AutoModelForCausalLM.register(TALLConfig, TALLForCausalLM)
AutoModelForSeq2SeqLM.register(TALLConfig, TALLForCausalLM)
AutoProcessor.register(TALLConfig, TALLProcessor)
