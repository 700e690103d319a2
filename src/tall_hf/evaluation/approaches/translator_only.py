"""TranslatorOnly: a TALL without its LLM, trained as a TALL is; what it finds, the translators and adapters find alone."""

from tall_hf.components import has_llm_layers
from tall_hf.modeling.configuration_tall import TALLConfig

from ..approach import Loader
from .tall import PAPER_PUNCTUATION_BLOCK, TALL


class TranslatorOnly(TALL):
    """Ask a TALL that was composed with `leave_out_llm=True` and trained on the same text.

    Args:
        load, name, punctuation_block, num_beams: as for `TALL`.

    Raises:
        ValueError: when the model is loaded, and has an LLM or no source bridge.
    """

    def __init__(
        self,
        load: Loader,
        name: str = "translator_only",
        punctuation_block: float = PAPER_PUNCTUATION_BLOCK,
        num_beams: int | None = None,
    ):
        super().__init__(load, name, punctuation_block, num_beams)

    def _check(self, model):
        check_translator_only(model.config, self.name)


def check_translator_only(config: TALLConfig, name: str = "translator_only"):
    """ValueError for a TALL that has its LLM, or that reads no source."""
    if has_llm_layers(config):
        num_layers = config.llm_config.get_text_config().num_hidden_layers
        raise ValueError(
            f"`{name}` asks a TALL without its LLM, and this one has an LLM of {num_layers} layers. Run `tall compose` as for "
            "the TALL and with `--leave-out-llm`, then `tall train` on the same text, and hand that in."
        )
    if config.source_bridge == "none":
        raise ValueError(
            f"`{name}` leaves the LLM out and keeps the source, but this TALL has source_bridge='none' and reads its "
            "translation alone. Run `tall compose --leave-out-llm` with the bridge of the TALL, then `tall train`."
        )
