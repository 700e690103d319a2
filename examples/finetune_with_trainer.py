"""Train a TALL's adapters with transformers' own Trainer.

tall compose --lr-hr Helsinki-NLP/opus-mt-tc-big-he-en --llm Qwen/Qwen2.5-0.5B --hr-lr Helsinki-NLP/opus-mt-en-he \
    --output outputs/hebrew
tall prepare hebrew.txt --model outputs/hebrew --output data/hebrew
python examples/finetune_with_trainer.py outputs/hebrew data/hebrew outputs/hebrew-trained
"""

import argparse

from datasets import load_from_disk
from transformers import Trainer, TrainingArguments

from tall_hf import LastTokenCollator, TALLForCausalLM, TALLProcessor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a TALL, as `tall compose` writes it")
    parser.add_argument("dataset", help="training rows, as `tall prepare` writes them")
    parser.add_argument("output", help="folder for the trained model")
    parser.add_argument("--max_steps", type=int, default=-1, help="stop earlier than after five epochs")
    options = parser.parse_args()

    model = TALLForCausalLM.from_pretrained(options.model)
    processor = TALLProcessor.from_pretrained(options.model)
    arguments = TrainingArguments(
        output_dir=f"{options.output}-checkpoints",
        learning_rate=5e-5,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        num_train_epochs=5,
        max_steps=options.max_steps,
        per_device_train_batch_size=8,
        eval_strategy="steps",
        eval_steps=0.1,
        save_steps=0.1,
        load_best_model_at_end=True,
        logging_steps=0.01,
        save_total_limit=2,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=load_from_disk(f"{options.dataset}/train"),
        eval_dataset=load_from_disk(f"{options.dataset}/validation"),
        data_collator=LastTokenCollator(processor, loss_positions="last_word"),
    )
    trainer.train()
    model.save_pretrained(options.output)
    processor.save_pretrained(options.output)


if __name__ == "__main__":
    main()
