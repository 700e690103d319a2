"""What options of the commands may be, where it is one of a few names; a model's switches are those of its configuration."""

from collections.abc import Iterable
from enum import StrEnum

from tall_hf.data.corpus import TRUNCATIONS
from tall_hf.data.translation import BACKENDS
from tall_hf.evaluation.approach import PROTOCOLS
from tall_hf.modeling.configuration_layer_fusion import MAPPING_TYPES
from tall_hf.modeling.configuration_tall import ALIGNMENT_TYPES, SOURCE_BRIDGES, SOURCE_FUSIONS
from tall_hf.training.alignment_settings import OBJECTIVES
from tall_hf.training.arguments import FROZEN_DTYPES


def _choices(name: str, values: Iterable[str]) -> type[StrEnum]:
    return StrEnum(name, {value: value for value in values})


Bridge = _choices("Bridge", SOURCE_BRIDGES)
Fusion = _choices("Fusion", SOURCE_FUSIONS)
Alignment = _choices("Alignment", ALIGNMENT_TYPES)
Mapping = _choices("Mapping", MAPPING_TYPES)
Dtype = _choices("Dtype", FROZEN_DTYPES)
Protocol = _choices("Protocol", PROTOCOLS)
Truncation = _choices("Truncation", TRUNCATIONS)
Backend = _choices("Backend", BACKENDS)
Objective = _choices("Objective", OBJECTIVES)


class EvaluationDtype(StrEnum):
    """What models compute in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Normalize(StrEnum):
    """What a label's score is."""

    none = "none"
    tokens = "tokens"
