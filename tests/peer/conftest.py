"""Make TALL known to transformers as a model of the library is, so that the common tests treat it as one."""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from tall_hf.modeling.configuration_tall import TALLConfig
from tall_hf.modeling.modeling_tall import TALLForCausalLM
from tall_hf.modeling.processing_tall import TALLProcessor


AutoConfig.register("tall", TALLConfig)
AutoModel.register(TALLConfig, TALLForCausalLM)
AutoModelForSeq2SeqLM.register(TALLConfig, TALLForCausalLM)
# The common tests choose the labels of a model class by its name in this table.
MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES["tall"] = "TALLForCausalLM"
# A processor of the library does not write where remote code is to be found.
TALLProcessor._auto_class = None
