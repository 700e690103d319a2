"""The Space of a TALL: the next words of a sentence as bars, beside those of naive translation; a click adds a word.

    python app.py org/name[@revision] --language he

Without arguments the model is that of the variable TALL_MODEL, or what `tall demo` left in outputs/demo.
"""

import argparse
import os
from pathlib import Path


# Before gradio is imported: nobody is told that this runs.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import page
from huggingface_hub import ModelCard
from naive import NaiveTranslation
from transformers import AutoModelForCausalLM, AutoProcessor
from transformers.utils import cached_file


MAX_CHARACTERS = 1000
MAX_WAITING = 32  # questions that wait for the model; gradio turns further ones away with a 503
TOP_K = 5
DEMO_OUTPUT = Path("outputs") / "demo"
HINT = "Write the beginning of a sentence: its next words will stand here."
_FONTS = ["system-ui", "sans-serif"]  # the browser's own; gradio's would be fetched from elsewhere
THEME = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=_FONTS, font_mono=_FONTS)


class Demo:
    """A TALL with what the page needs to know about it.

    Args:
        name: a folder, or an id on the Hub with an optional `@revision`.
        language: code of the low-resource language; the processor's, or the model card's, when not given.
    """

    def __init__(self, name: str, language: str | None = None):
        self.on_hub = not os.path.isdir(name)
        source, _, revision = name.partition("@") if self.on_hub else (name, "", "")
        self.name = source if self.on_hub else Path(source).resolve().name
        options = {"revision": revision or None, "trust_remote_code": True}
        self.model = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **options).eval()
        self.processor = AutoProcessor.from_pretrained(source, **options)
        card = read_card(source, revision or None)
        spoken = card.get("language")
        self.language = language or self.processor.source_lang or (spoken[0] if isinstance(spoken, list) else spoken)
        texts = [one["text"] for one in card.get("widget") or [] if isinstance(one.get("text"), str)]
        self.examples = list(dict.fromkeys(texts))  # a card may show two answers to one sentence
        self.naive, self.naive_missing = None, ""
        try:
            self.naive = NaiveTranslation(self.model, self.processor)
        except (OSError, ValueError) as error:
            # The comparison is gone with the part's repository; the TALL has its own copy and stays.
            self.naive_missing = f"Not to be had here: {str(error).strip().splitlines()[0]}"

    def answer(self, text: str) -> tuple[str, list[tuple[str, float]]]:
        """The translation that the TALL read, and the most probable next words."""
        translations = self.model.translate(text, self.processor)
        [words] = self.model.next_words(text, self.processor, top_k=TOP_K, translations=translations)
        return translations[0], words

    def note_on(self, text: str) -> str:
        """What a reader should know of a text that does not fit into the model's positions; empty if it does."""
        [whole] = self.processor.encode_target(text)
        [read] = self.processor(text=text, translations="")["decoder_input_ids"]
        if len(read) == len(self.processor.decoder_start_token_ids) + len(whole):
            return ""
        return "This text is longer than the model can read: only its end counts."


def read_card(name: str, revision: str | None) -> dict:
    """The metadata of the model's card; empty if it has none."""
    file = cached_file(name, "README.md", revision=revision, _raise_exceptions_for_missing_entries=False)
    return {} if file is None else ModelCard.load(file, ignore_metadata_errors=True).data.to_dict()


def check_text(text) -> str:
    """The text without surrounding spaces.

    Raises:
        ValueError: it is no text, has no word or is too long; the message is for whoever wrote it.
    """
    if not isinstance(text, str):
        raise ValueError("The sentence must be text.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"This text has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}. One sentence is enough: the next "
            "word depends most on the last ones."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("This text holds half of a surrogate pair, which is no character.") from None
    if not any(char.isalnum() for char in text):
        raise ValueError("There is no word yet. Write the beginning of a sentence.")
    return text.strip()


def build(demo: Demo) -> gr.Blocks:
    """The page, and the endpoint `/next_words` for gradio_client."""

    def show(text):
        try:
            text = check_text(text)
        except ValueError as error:
            yield page.tall_panel(page.message(str(error), "refusal")), page.naive_panel(page.message(HINT))
            return
        translation, words = demo.answer(text)
        tall = page.tall_panel(page.tall_answer(translation, words, demo.language, demo.note_on(text)))
        if demo.naive is None:
            yield tall, page.naive_panel(page.message(demo.naive_missing))
            return
        yield tall, page.naive_panel(page.message("Translating back …", "wait"))
        yield tall, page.naive_panel(page.naive_answer(demo.naive.next_words(translation, TOP_K), demo.language))

    def add_word(text, event: gr.EventData):
        return f"{text.rstrip()} {event.word}"

    def next_words(text: str) -> dict:
        """The translation that the TALL read, its next words with probabilities, and the answer of naive translation."""
        try:
            text = check_text(text)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        translation, words = demo.answer(text)
        naive = [] if demo.naive is None else demo.naive.next_words(translation, TOP_K)
        return {
            "translation": translation,
            "words": [{"word": word, "score": probability} for word, probability in words],
            "naive": [vars(one) for one in naive],
            "note": demo.note_on(text),
        }

    with gr.Blocks(title=f"TALL · {demo.name}", analytics_enabled=False) as blocks:
        gr.HTML(page.header(demo.name, demo.on_hub), apply_default_css=False)
        rtl = page.direction(demo.language) == "rtl"
        attributes = gr.InputHTMLAttributes(lang=demo.language, spellcheck=False, autocomplete="off")
        sentence = gr.Textbox(
            label="The beginning of a sentence",
            placeholder=demo.examples[0] if demo.examples else None,
            lines=1,
            max_lines=4,
            rtl=rtl,
            autofocus=True,
            elem_id="sentence",
            elem_classes="plain" if page.direction(demo.language) == "auto" else None,
            html_attributes=attributes,
        )
        with gr.Row(elem_id="actions"):
            ask = gr.Button("Next words", variant="primary", scale=2, min_width=80, elem_id="ask")
            back = gr.Button("Take back", min_width=80, elem_id="back")
            clear = gr.Button("Clear", min_width=80, elem_id="clear")
        examples = gr.Dataset(
            components=[sentence],
            samples=[[text] for text in demo.examples[:6]],
            label="Sentences to try",
            visible=bool(demo.examples),
            elem_id="examples",
        )
        empty = page.tall_panel(page.message(HINT)), page.naive_panel(page.message(HINT))
        with gr.Row(equal_height=True, elem_id="panels"):
            panels = [
                gr.HTML(value, js_on_load=page.ON_CLICK, apply_default_css=False, elem_id=name)
                for name, value in zip(("tall", "naive"), empty, strict=True)
            ]
        private = {"api_visibility": "private", "show_progress": "hidden"}
        edit = {"inputs": sentence, "outputs": sentence, "queue": False, **private}
        # A model answers one question at a time, and the last one asked is always answered.
        turn = {"concurrency_id": "model", "trigger_mode": "always_last"}
        shown = {"fn": show, "inputs": sentence, "outputs": panels, **turn, **private}
        answering = [
            gr.on([ask.click, sentence.submit], **shown),
            examples.click(lambda sample: sample[0], **{**edit, "inputs": examples}).then(**shown),
            *(panel.click(add_word, **edit).then(**shown) for panel in panels),
            back.click(lambda text: " ".join(text.split()[:-1]), **edit).then(**shown),
        ]
        clear.click(lambda: ("", *empty), None, [sentence, *panels], cancels=answering, queue=False, **private)
        gr.api(next_words, api_name="next_words", concurrency_id="model")
    return blocks.queue(max_size=MAX_WAITING)


def main() -> None:
    parser = argparse.ArgumentParser(description="Show a TALL in the browser.")
    parser.add_argument("model", nargs="?", default=os.environ.get("TALL_MODEL"), help="a folder or an id on the Hub")
    parser.add_argument("--language", default=os.environ.get("TALL_LANGUAGE"), help="code such as 'he' or 'heb_Hebr'")
    arguments = parser.parse_args()
    name = arguments.model or (str(DEMO_OUTPUT) if DEMO_OUTPUT.is_dir() else None)
    if name is None:
        parser.error(
            "no model is named: pass a folder or an id on the Hub, or set the variable TALL_MODEL. `tall demo` trains a "
            f"small one into {DEMO_OUTPUT}."
        )
    build(Demo(name, arguments.language)).launch(
        theme=THEME,
        css_paths=Path(__file__).with_name("app.css"),
        footer_links=["api"],
        ssr_mode=False,
    )


if __name__ == "__main__":
    main()
