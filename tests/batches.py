"""Batches for tests: rows of random token ids whose three lengths all differ, padded in any way."""

import torch


# Source, translation and prefix length of each row; no two rows agree in any of them, none is longest in all.
LENGTHS = ((5, 7, 3), (9, 4, 6), (3, 2, 1), (4, 9, 5))


def random_rows(model, processor, lengths=LENGTHS, seed=0):
    """Rows of (source ids, translation ids, start and prefix ids), without any special token inside."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    sizes = (
        config.lr_hr_config.vocab_size,
        config.llm_config.get_text_config().vocab_size,
        config.hr_lr_config.vocab_size,
    )
    rows = []
    for row_lengths in lengths:
        source, translation, prefix = (
            torch.randint(4, size - 4, (length,), generator=generator).tolist()
            for size, length in zip(sizes, row_lengths, strict=True)
        )
        rows.append((source, translation, processor.decoder_start_token_ids + prefix[1:]))
    return rows


def batch(rows, sides=("right", "right", "left"), garbage=None):
    """The model's inputs: each of the three padded on its side, with the row's first id or random ids as padding."""
    generator = torch.Generator().manual_seed(garbage or 0)
    data = {}
    for index, (name, side) in enumerate(zip(("", "llm_", "decoder_"), sides, strict=True)):
        part = [row[index] for row in rows]
        length = max(map(len, part))
        ids = torch.tensor([[row[0]] * length for row in part])
        if garbage is not None:
            ids = torch.randint(4, 40, ids.shape, generator=generator)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(part):
            columns = slice(length - len(row), length) if side == "left" else slice(0, len(row))
            ids[i, columns], mask[i, columns] = torch.tensor(row), 1
        data[f"{name}input_ids"], data[f"{name}attention_mask"] = ids, mask
    return data


def real_positions(values, mask):
    """What of `values`, (batch, length, ...), stands at tokens: one tensor a row."""
    return [row[keep.bool()] for row, keep in zip(values, mask, strict=True)]
