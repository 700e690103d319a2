"""Is there a mapping out of the little world's multilingual encoder that its language model can read, and how exact must it be?

No model is trained. The encoder -> LLM model needs such a mapping, whatever its recipe, so here one is fitted by least squares: a
linear map from the encoder's states of English questions to the language model's own embeddings of the same words. Fitted
on and asked about are different people, all of the train split; the test people are not touched. Asked are the relations
whose English sentence ends in the value, so that the question's own text is a prompt that the language model knows ("drives
the red car" has its value in the middle).

    python -m tall_hf.microworld.build --output DIR --multilingual he tr en
    python examples/microworld_mapping.py DIR/many_en

It takes about half a minute of one core and prints a table in Markdown.
"""

import argparse
import random
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from tall_hf.microworld import LANGUAGES, World, component_path
from tall_hf.microworld.vocabulary import FAMILY_NAMES, FEMALE_NAMES, MALE_NAMES, OPENERS
from tall_hf.modeling.fusion_tall import encode_layers
from tall_hf.modeling.text_rows_tall import pad_rows


NAMES = {*FEMALE_NAMES, *MALE_NAMES, *FAMILY_NAMES}
LAYERS = {"first layer": lambda states: states[:, 0], "last layer": lambda states: states[:, -1]}
LAYERS["mean of the layers"] = lambda states: states.mean(dim=1)


class Reader:
    """An encoder and its tokenizer: the states of texts, and where names stand in them."""

    def __init__(self, folder: str):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = (
            AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
            .get_encoder()
            .eval()
        )

    def pieces(self, text: str) -> list[str]:
        return [piece.strip("▁") for piece in self.tokenizer.tokenize(text)]

    @torch.inference_mode()
    def states(self, texts: list[str]) -> list[torch.Tensor]:
        """Of each text (pieces, layers, width), without the end-of-sentence token."""
        rows = [self.tokenizer(text)["input_ids"] for text in texts]
        ids, mask = pad_rows(rows, self.tokenizer.pad_token_id, "right")
        layers = torch.stack(encode_layers(self.encoder, ids, mask, every_layer=True), dim=2)
        return [states[: len(row) - 1] for states, row in zip(layers, rows, strict=True)]


class Answerer:
    """A language model that is asked by vectors in place of tokens."""

    def __init__(self, folder: str):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
        self.embeddings = self.model.get_input_embeddings().weight.detach()

    def own(self, text: str) -> torch.Tensor:
        """The embeddings of a text, (tokens, width)."""
        return self.embeddings[self.tokenizer(text)["input_ids"]]

    @torch.inference_mode()
    def accuracy(self, rows: list[torch.Tensor], questions) -> float:
        """Share of the questions whose right label is the likeliest of the relation's behind the question's vectors."""
        right = 0
        for row, question in zip(rows, questions, strict=True):
            logits = self.model(inputs_embeds=row[None], logits_to_keep=1).logits[0, -1]
            labels = [self.tokenizer(f" {label}")["input_ids"][0] for label in question.labels]
            right += question.labels[logits[labels].argmax()] == question.label
        return right / len(questions)


def linear_map(states: torch.Tensor, targets: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The linear map with a bias that is nearest to the targets in the mean of squares."""

    def with_one(rows):
        return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)

    # In double precision: English words that never come apart make columns that hardly differ.
    weight = torch.linalg.lstsq(with_one(states).double(), targets.double(), driver="gelsd").solution.float()
    return lambda rows: with_one(rows) @ weight


def questions_of(people: set[int], language: str, relations: set[str]) -> list:
    """Each fact of these people asked once, the openers taking turns; in every language the same ones."""
    world = World(language=language if language in LANGUAGES else "he")
    known, _ = world.questions(in_english=language == "en")
    openers = len(OPENERS)
    once = [known[place + place // openers % openers] for place in range(0, len(known), openers)]
    return [one for one in once if one.entity in people and one.relation in relations]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", help="the folder many_en")
    parser.add_argument("--llm", default=str(component_path("llm")), help="the embedded one if not given")
    parser.add_argument("--people", type=int, default=25, help="of the train split, to ask about (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of their draw, and of the noise")
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    torch.manual_seed(options.seed)
    reader, answerer = Reader(options.encoder), Answerer(options.llm)
    world = World()
    relations = {name for name, relation in world.relations.items() if relation.english.endswith("{value}")}
    people, _ = world.split()
    asked_about = set(random.Random(options.seed).sample(people, options.people))
    fitted_on = questions_of(set(people) - asked_about, "en", relations)
    languages = ("en", *LANGUAGES)
    asked = {language: questions_of(asked_about, language, relations) for language in languages}
    # What both cut alike stands word for word; the rest has no places to compare.
    alike = [
        place
        for place, one in enumerate(asked["en"])
        if reader.pieces(one.text) == one.text.split() and len(answerer.own(one.text)) == len(one.text.split())
    ]
    asked = {language: [questions[place] for place in alike] for language, questions in asked.items()}
    english = asked["en"]
    own = [answerer.own(one.text) for one in english]
    states = {language: reader.states([one.text for one in questions]) for language, questions in asked.items()}
    is_name = [torch.tensor([word in NAMES for word in one.text.split()]).unsqueeze(1) for one in english]

    def say(what: str, rows: list[torch.Tensor], language: str = "en"):
        print(f"| {what} | {answerer.accuracy(rows, asked[language]):.1%} |", flush=True)

    print(
        f"{len(english)} questions about {options.people} people\n\n| the language model reads | right |\n|---|---:|"
    )
    say("the question's own tokens", own)
    say(
        "the question's own tokens, and a vector of zeros behind them",
        [torch.cat([row, torch.zeros(1, row.shape[1])]) for row in own],
    )
    unit = answerer.embeddings.std()
    for noise in (0.25, 0.5, 1.0):
        say(
            f"the question's own tokens, with noise of {noise} of the embeddings' spread",
            [r + noise * unit * torch.randn_like(r) for r in own],
        )

    fitted = [
        (text_states, vectors)
        for text_states, one in zip(reader.states([one.text for one in fitted_on]), fitted_on, strict=True)
        if reader.pieces(one.text) == one.text.split() and len(vectors := answerer.own(one.text)) == len(text_states)
    ]
    targets = torch.cat([vectors for _, vectors in fitted])
    for name, layer in LAYERS.items():
        mapping = linear_map(torch.cat([layer(text_states) for text_states, _ in fitted]), targets)
        mapped = {language: [mapping(layer(row)) for row in rows] for language, rows in states.items()}
        for language in languages:
            say(f"{name}, linear map: {language}", mapped[language], language)
        if name != "last layer":
            continue
        rows = list(zip(mapped["en"], own, is_name, strict=True))
        say(
            "of the mapped vectors only the names, else the question's own tokens",
            [torch.where(n, m, o) for m, o, n in rows],
        )
        say("of the mapped vectors all but the names", [torch.where(n, o, m) for m, o, n in rows])
        for language in LANGUAGES:
            spelled = LANGUAGES[language].names
            placed = []
            for one, other, vectors, foreign in zip(english, asked[language], own, mapped[language], strict=True):
                pieces = reader.pieces(other.text)
                vectors = vectors.clone()
                for place, word in enumerate(one.text.split()):
                    if word in NAMES and spelled[word] in pieces:
                        vectors[place] = foreign[pieces.index(spelled[word])]
                placed.append(vectors)
            say(f"names mapped out of {language}, else the question's own English tokens", placed)


if __name__ == "__main__":
    main()
