"""tall_hf: let a frozen LLM work in a low-resource language (TALL, arXiv 2506.05057), the Hugging Face way.

Here are the models, their trainers and what composes and loads them. `tall_hf.data` prepares text, `tall_hf.evaluation` and
`tall_hf.classification` ask models, `tall_hf.cards` and `tall_hf.publishing` put them on the Hub.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoProcessor

from tall_hf.components import compose
from tall_hf.data import LastTokenCollator, LayerFusionCollator
from tall_hf.layer_fusion import compose_layer_fusion
from tall_hf.modeling.configuration_layer_fusion import LayerFusionConfig
from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_layer_fusion import LayerFusionForCausalLM
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor
from tall_hf.modeling.processing_tall import TALLProcessor
from tall_hf.training import (
    LayerFusionTrainer,
    LayerFusionTrainingArguments,
    TALLTrainer,
    TALLTrainingArguments,
    load_light,
)


__version__ = "0.1.0"
__all__ = [
    "LastTokenCollator",
    "LayerFusionCollator",
    "LayerFusionConfig",
    "LayerFusionForCausalLM",
    "LayerFusionProcessor",
    "LayerFusionTrainer",
    "LayerFusionTrainingArguments",
    "TALLConfig",
    "TALLForCausalLM",
    "TALLProcessor",
    "TALLTrainer",
    "TALLTrainingArguments",
    "compose",
    "compose_layer_fusion",
    "load_light",
]

# With this package installed its models load by the Auto classes without remote code.
AutoConfig.register("tall", TALLConfig)
AutoModel.register(TALLConfig, TALLForCausalLM)
AutoModelForCausalLM.register(TALLConfig, TALLForCausalLM)
AutoModelForSeq2SeqLM.register(TALLConfig, TALLForCausalLM)
AutoProcessor.register(TALLConfig, TALLProcessor)

AutoConfig.register("layer_fusion", LayerFusionConfig)
AutoModel.register(LayerFusionConfig, LayerFusionForCausalLM)
AutoModelForCausalLM.register(LayerFusionConfig, LayerFusionForCausalLM)
AutoProcessor.register(LayerFusionConfig, LayerFusionProcessor)
