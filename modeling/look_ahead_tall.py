"""Look-ahead: the frozen LLM writes its likeliest next tokens behind what it reads, so that what comes after sees them."""

import torch
from torch import nn


def extended_mask(mask: torch.Tensor, count: int) -> torch.Tensor:
    """The mask of rows, tokens first, that have become `count` tokens longer: (batch, length + count)."""
    if not count:
        return mask
    columns = torch.arange(mask.shape[1] + count, device=mask.device)
    return (columns < mask.sum(dim=1, keepdim=True) + count).to(mask.dtype)


def write_ahead(
    llm: nn.Module, inputs_embeds: torch.Tensor, mask: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let an LLM go on with rows, greedily, in the tokens of its own embeddings, which are its head too.

    Which token comes next has no gradient; the states at it, which the LLM is asked for afterwards, have.

    Args:
        llm: without its head.
        inputs_embeds: what it reads, (batch, length, width), tokens first.
        mask: 1 for tokens, 0 for padding, (batch, length).
        count: how many tokens to write.

    Returns:
        Rows and mask with the written tokens' embeddings behind each row's own, (batch, length + count, width).
    """
    embedding = llm.get_input_embeddings()
    rows = torch.arange(mask.shape[0], device=mask.device)
    for _ in range(count):
        lengths = mask.sum(dim=1).long()
        with torch.no_grad():
            states = llm(inputs_embeds=inputs_embeds, attention_mask=mask, use_cache=False).last_hidden_state
            last = states.to(mask.device)[rows, lengths - 1].to(embedding.weight)
            tokens = nn.functional.linear(last, embedding.weight).argmax(dim=-1)
            written = embedding(tokens).unsqueeze(1).to(inputs_embeds)
        mask = extended_mask(mask, 1)
        is_written = (torch.arange(mask.shape[1], device=mask.device) == lengths.unsqueeze(1)).to(inputs_embeds.device)
        inputs_embeds = torch.where(is_written.unsqueeze(-1), written, nn.functional.pad(inputs_embeds, (0, 0, 0, 1)))
    return inputs_embeds, mask
