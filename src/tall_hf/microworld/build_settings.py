"""Sizes of the trainings that make the components: those of the shipped ones, and those of the village's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BuildSettings:
    """Sizes of the trainings; the defaults are those of the shipped components.

    Attributes:
        sentences: how many sentence pairs each translator reads, again and again.
        translator_steps, llm_steps, permuted_steps: batches of each training.
        multilingual_steps, multilingual_pieces: batches and pieces of the multilingual translator, for each of its languages.
        encoder_layers: layers of the multilingual translator's encoder.
        noisy_llm_steps: further batches of the village's language model, with the noise: with it from the start no fact is learned.
        encoder_noise, llm_noise: the greatest strength of the noise, for `disturbed`, on what that encoder makes of a source,
            and on what the village's language model reads.
        batch_size: sentences a batch.
        test_sentences: fresh sentence pairs to measure the translators on.
    """

    sentences: int = 40_000
    translator_steps: int = 700
    llm_steps: int = 2400
    noisy_llm_steps: int = 0
    permuted_steps: int = 1600
    multilingual_steps: int = 500
    multilingual_pieces: int = 1000
    encoder_layers: int = 2
    encoder_noise: float = 0.0
    llm_noise: float = 0.0
    batch_size: int = 128
    test_sentences: int = 1000


# Noise on the encoder's states leaves no room in them for what the translation does not need, such as which language was read;
# noise on what the language model reads makes it understand what is only near its embeddings.
VILLAGE_SETTINGS = BuildSettings(
    sentences=6000,
    llm_steps=700,
    noisy_llm_steps=500,
    multilingual_steps=200,
    multilingual_pieces=300,
    batch_size=64,
    encoder_layers=3,
    encoder_noise=2.0,
    llm_noise=1.0,
    test_sentences=300,
)
