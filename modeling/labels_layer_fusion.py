"""LabelScoringMixin: classification by label scoring - how probable a model finds each label behind a source and a prompt."""

import math
from typing import TYPE_CHECKING

import torch

from .frozen_parts_tall import inference
from .text_rows_tall import check_texts


if TYPE_CHECKING:
    from .processing_layer_fusion import LayerFusionProcessor


class LabelScoringMixin:
    """Label scoring for LayerFusionForCausalLM; every method takes the model's LayerFusionProcessor."""

    @inference
    def label_log_probabilities(
        self,
        texts: str | list[str],
        processor: "LayerFusionProcessor",
        labels: list[str] | list[list[str]],
        prompt: str | list[str] = "",
        batch_size: int = 8,
        include_end: bool = True,
        normalize: str | None = None,
        source_lang: str | None = None,
    ) -> torch.Tensor:
        """The log-probability of each label as the whole answer behind each source and prompt.

        It is what `forward` would lose on the label's tokens, summed and negated, so a model is asked what it was trained to
        write. The source is encoded once and the LLM's states before the answer are computed once; all labels go on from them.

        Args:
            texts: sources.
            processor: the model's processor.
            labels: the labels, the same for all texts; or for each text a list of its own.
            prompt: what the LLM reads behind a source, one for all or one for each.
            batch_size: how many texts are read at a time; the LLM then reads as many rows as these have labels.
            include_end: count the end-of-text token behind the label. With it labels are different answers of which one alone
                is given, and their probabilities add up to at most 1. Without it a label is only how the answer begins: one
                that another begins with is never the less probable of the two, and with labels of one token each the LLM
                reads nothing beyond the prompt.
            normalize: None, or "tokens" for the mean over the tokens that count in place of their sum, which favours short
                labels less; these are no log-probabilities of answers any more.
            source_lang: code of the sources' language, instead of the processor's own.

        Returns:
            Natural logarithms of shape (texts, labels), float32 on the CPU; where texts have different numbers of labels,
            (texts, most labels) with minus infinity behind those of a text that has fewer.

        Raises:
            ValueError: no labels, one without any token, two of a text that are written with the same tokens, a number of
                lists or prompts that is not that of the texts, or an unknown `normalize`.
            TypeError: for anything that is not text.
        """
        if normalize not in (None, "tokens"):
            raise ValueError(f"`normalize` must be None or 'tokens', got {normalize!r}.")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        texts = check_texts(texts)
        choices = labels_of_each(labels, len(texts))
        prompts = [prompt] * len(texts) if isinstance(prompt, str) else check_texts(prompt)
        if len(prompts) != len(texts):
            raise ValueError(f"Got {len(prompts)} prompts for {len(texts)} texts; pass one for each text.")
        tokens = _label_tokens(choices, processor, include_end)
        scores = torch.full((len(texts), max(map(len, choices), default=0)), -math.inf)
        options = {} if source_lang is None else {"source_lang": source_lang}
        for start in range(0, len(texts), batch_size):
            batch = slice(start, start + batch_size)
            inputs = processor(text=texts[batch], prompt=prompts[batch], return_tensors="pt", **options)
            rows = [[tokens[label] for label in row] for row in choices[batch]]
            for scored, row in zip(scores[batch], self._score_answers(inputs, rows), strict=True):
                scored[: len(row)] = row
        if normalize == "tokens":
            for scored, row in zip(scores, choices, strict=True):
                scored[: len(row)] /= torch.tensor([len(tokens[label]) for label in row])
        return scores

    def classify(
        self,
        texts: str | list[str],
        processor: "LayerFusionProcessor",
        labels: list[str] | list[list[str]],
        **scoring,
    ) -> list[list[tuple[str, float]]]:
        """Which label is the answer, with probabilities given that one of them is.

        Args:
            texts, processor, labels, scoring: as for `label_log_probabilities`.

        Returns:
            For each text its labels, each with its probability, the most probable first. The probabilities of a text add up
            to 1: they are the softmax of what `label_log_probabilities` gives.
        """
        texts = check_texts(texts)
        choices = labels_of_each(labels, len(texts))
        probabilities = self.label_log_probabilities(texts, processor, choices, **scoring).softmax(dim=-1).tolist()
        return [
            sorted(zip(row, found[: len(row)], strict=True), key=lambda pair: -pair[1])
            for row, found in zip(choices, probabilities, strict=True)
        ]

    def _score_answers(self, inputs, answers: list[list[list[int]]]) -> list[torch.Tensor]:
        """Log-probabilities of answers behind the rows of `inputs`: for each row a tensor (its answers,), on the CPU.

        Args:
            inputs: what the processor makes, padded on the left.
            answers: for each row its answers' token ids.
        """
        inputs = inputs.to(self.device)
        outputs = self(**inputs, use_cache=True, logits_to_keep=1)
        counts = [len(row) for row in answers]
        parents = torch.arange(len(answers), device=self.device).repeat_interleave(
            torch.tensor(counts, device=self.device)
        )
        answers = [answer for row in answers for answer in row]
        targets = torch.full((len(answers), max(map(len, answers))), -100)
        for target, answer in zip(targets, answers, strict=True):
            target[: len(answer)] = torch.tensor(answer)
        targets = targets.to(self.device)
        # What stands before the answer predicts its first token, and each of its tokens the next.
        logits = outputs.logits.to(self.device)[parents]
        if targets.shape[1] > 1:
            cache = outputs.past_key_values
            cache.batch_select_indices(parents)
            read = targets[:, :-1]
            mask = torch.cat([inputs["attention_mask"][parents], (read != -100).long()], dim=1)
            # Padding stands behind an answer, where nothing of it looks.
            continued = self(
                input_ids=read.clamp(min=0), attention_mask=mask, past_key_values=cache, use_cache=True
            ).logits.to(self.device)
            logits = torch.cat([logits, continued], dim=1)
        losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
        return list((-losses.sum(dim=1)).cpu().split(counts))


def labels_of_each(labels: list[str] | list[list[str]], count: int) -> list[list[str]]:
    """For each of `count` texts its labels, from one list for all or a list for each.

    Raises:
        ValueError: a text without labels or with one twice, or not as many lists as texts.
        TypeError: for labels that are not text.
    """
    if isinstance(labels, str) or not isinstance(labels, list | tuple):
        raise TypeError(f"`labels` must be a list of labels, or of such lists, got {type(labels).__name__}.")
    own = [isinstance(label, list | tuple) for label in labels]
    if any(own) and not all(own):
        raise TypeError("`labels` holds texts and lists; pass one list of labels, or a list of labels for each text.")
    if any(own) and len(labels) != count:
        raise ValueError(f"Got {len(labels)} lists of labels for {count} texts; pass one for each text.")
    choices = [check_texts(row) for row in labels] if any(own) else [check_texts(labels)] * count
    for row in choices:
        if not row:
            raise ValueError("There are no labels to choose from.")
        if len(set(row)) < len(row):
            twice = next(label for label in row if row.count(label) > 1)
            raise ValueError(f"The label {twice!r} is there twice.")
    return choices


def _label_tokens(
    choices: list[list[str]], processor: "LayerFusionProcessor", include_end: bool
) -> dict[str, list[int]]:
    """Token ids of every label, as the processor makes `labels` of an answer, with or without the end."""
    different = list(dict.fromkeys(label for row in choices for label in row))
    with_end = processor.encode_answers(different)
    ends = len(processor.encode_answers([""])[0])
    tokens = {}
    for label, row in zip(different, with_end, strict=True):
        if len(row) == ends:
            raise ValueError(f"The label {label!r} has no token, so it cannot be scored.")
        tokens[label] = row if include_end else row[: len(row) - ends]
    for row in choices:
        written = {tuple(tokens[label]): label for label in row}
        if len(written) < len(row):
            same = next(label for label in row if written[tuple(tokens[label])] != label)
            raise ValueError(
                f"The labels {same!r} and {written[tuple(tokens[same])]!r} are written with the same tokens, so they cannot "
                "be told apart."
            )
    return tokens
