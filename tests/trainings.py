"""What training tests share: rows of short sentences, and the settings of trainings that take seconds."""

import random

import parts
from datasets import Dataset


ENGLISH = sorted({word for line in parts.ENGLISH for word in line.split()})


def make_rows(processor, count, seed=0):
    """`count` training rows of random sentences of 2 to 6 words."""
    draw = random.Random(seed)
    sentences = [" ".join(draw.choices(parts.WORDS, k=draw.randint(2, 6))) for _ in range(count)]
    translations = [" ".join(draw.choices(ENGLISH, k=draw.randint(1, 6))) for _ in range(count)]
    encoded = processor(
        text=[sentence.rsplit(" ", 1)[0] for sentence in sentences],
        translations=translations,
        text_target=sentences,
    )
    return Dataset.from_dict({name: encoded[name] for name in ("input_ids", "llm_input_ids", "labels")})


def without_dropout(model):
    """Switch every dropout off, so that trainings may be compared."""
    for module in model.modules():
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    return model


SHORT = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "eval_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}
