"""Make TALL known to transformers as a model of the library is, so that the common tests treat it as one."""

from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from tall_hf import TALLProcessor


# The common tests choose the labels of a model class by its name in this table.
MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES["tall"] = "TALLForCausalLM"
# A processor of the library does not write where remote code is to be found.
TALLProcessor._auto_class = None
