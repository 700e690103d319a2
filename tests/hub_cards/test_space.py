"""The Space: naive translation as evaluation has it, answers by gradio_client without this package, the page in a browser."""

import configparser
import contextlib
import html
import json
import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import parts
import pytest
import yaml
from hypothesis import given, settings
from nasty_texts import HTML, NO_TEXTS, TEXTS, anything
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tall_hf.evaluation.approach import Question
from tall_hf.evaluation.approaches.naive import Naive
from tall_hf.evaluation.build import model_loader


gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install 'tall-hf[space]'")
gradio_client = pytest.importorskip("gradio_client")

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "hub_cards" / "space"


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("there is no Chromium with its driver here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking"):
        options.add_argument(f"--{option}")
    options.add_argument("--window-size=1080,1000")
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield Page(opened)
    opened.quit()


class Page:
    """A browser's view of the Space; every look waits for what is looked for."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        self.driver.get(url)
        self.find("#sentence textarea")

    def wait(self, look, seconds=60):
        from selenium.common.exceptions import WebDriverException

        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(WebDriverException):  # the page is replacing what was looked at
                if found := look():
                    return found
            assert time.monotonic() < until, self.driver.find_element("css selector", "body").text
            time.sleep(0.1)

    def find(self, selector):
        return self.wait(lambda: self.driver.find_elements("css selector", selector))[0]

    def texts(self, selector, count):
        """The texts of so many elements."""

        def look():
            found = [one.text for one in self.driver.find_elements("css selector", selector)]
            return found if len(found) == count else None

        return self.wait(look)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def sentence(self):
        return self.run("return document.querySelector('#sentence textarea').value")

    def ask(self, text):
        self.find("#sentence textarea").clear()
        self.find("#sentence textarea").send_keys(text)
        self.find("#ask").click()


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "language, expected",
    [
        ("he", "rtl"),
        ("heb_Hebr", "rtl"),
        ("he_IL", "rtl"),
        ("fa-IR", "rtl"),
        ("ckb", "rtl"),
        ("kas_Deva", "ltr"),
        ("kas_Arab", "rtl"),
        ("aze-Latn-AZ", "ltr"),
        ("en", "ltr"),
        ("yor_Latn", "ltr"),
        (None, "auto"),
        ("", "auto"),
    ],
)
def test_direction_of_a_language(app, language, expected):
    assert app.page.direction(language) == expected


@pytest.mark.parametrize(
    "translator, llm",
    [
        ("marian", "qwen2"),
        ("m2m_100", "gpt2"),
        ("nllb", "bloom"),
        ("mbart50", "gemma"),
        ("marian", "opt"),
        ("marian", "llama"),
    ],
)
def test_naive_words_are_those_of_the_evaluation(app, composed, part_folders, translator, llm):
    """Also where the LLM and its head are the TALL's own."""
    folders = part_folders(translator, llm)
    languages = {name: folders.get(name) for name in ("source_lang", "pivot_lang")}
    expected = Naive(
        model_loader(AutoModelForCausalLM, folders["llm"]),
        model_loader(AutoModelForSeq2SeqLM, folders["hr_lr"]),
        **languages,
    )
    naive = app.NaiveTranslation(*composed("gated", translator, llm))
    translations = [*parts.TRANSLATIONS, "Hello world .", ""]
    answers = expected.answer([Question("", "", translation) for translation in translations], "clean")
    words = [naive.next_words(translation) for translation in translations]
    assert [tuple(one.word for one in row) for row in words] == [answer.words for answer in answers]
    assert any(words)
    # The first word of each, in the English sentence that it came from.
    for text, row, answer in zip(translations, words, answers, strict=True):
        assert (f"{text.rstrip(' .')} {row[0].english}".strip() if row else None) == answer.translation
    added = dict(expected.model.next_words(["Hello world"], 5)[0])
    for one in words[-2]:
        assert one.probability == pytest.approx(added[one.english], rel=1e-3)


def test_special_tokens_of_what_is_written_are_text_to_the_naive_way_too(app, composed, monkeypatch):
    model, processor = composed("gated", "nllb", "qwen2")
    naive = app.NaiveTranslation(model, processor)
    seen = {}

    def reading(role, function):
        return lambda *args, **inputs: (
            seen.setdefault(role, inputs["input_ids"][0].tolist()) and function(*args, **inputs)
        )

    monkeypatch.setattr(naive.llm, "forward", reading("llm", naive.llm.forward))
    monkeypatch.setattr(naive.translator, "generate", reading("translator", naive.translator.generate))
    token, end = processor.llm_tokenizer.eos_token, naive.tokenizer.eos_token
    naive.next_words(f"Dana {token} {end}")
    assert processor.llm_tokenizer.eos_token_id not in seen["llm"]
    assert seen["translator"].count(naive.tokenizer.eos_token_id) == 1


def test_a_sentence_that_is_cut_keeps_the_language_it_is_translated_into(app, fresh, monkeypatch):
    model, processor = fresh("gated")
    processor.source_lang = "heb"
    processor.tokenizer.encoder[">>heb<<"] = 7
    naive = app.NaiveTranslation(model, processor)
    generate, seen = naive.translator.generate, {}
    monkeypatch.setattr(naive.translator, "generate", lambda **inputs: seen.update(inputs) or generate(**inputs))
    sentences, positions = ["Hello world " * 60, ">>fra<< Hello"], naive.translator.config.max_position_embeddings
    assert len(naive._translate_back(sentences)) == 2
    long, short = (naive.tokenizer(f" {sentence}")["input_ids"] for sentence in sentences)
    assert seen["input_ids"][0].tolist() == [7, *long[1 - positions :]]
    assert seen["input_ids"][1][seen["attention_mask"][1].bool()].tolist() == [7, *short]


def test_the_llm_is_the_talls_own_only_where_that_is_all_of_it(app, composed, fresh):
    def embeddings(model, processor):
        llm = app.NaiveTranslation(model, processor).llm
        assert not [name for name, parameter in llm.named_parameters() if parameter.is_meta]
        return llm.get_input_embeddings(), llm.get_output_embeddings()

    model, processor = composed("gated", "marian", "opt")
    assert model.config.llm_config.tie_word_embeddings
    read, written = embeddings(model, processor)
    assert read is model.encoder.llm.get_input_embeddings()
    assert written.weight is read.weight
    model, processor = composed("gated")
    assert not model.config.llm_config.tie_word_embeddings
    assert embeddings(model, processor)[0] is not model.encoder.llm.get_input_embeddings()
    merged, processor = fresh("gated", "marian", "opt")
    merged.config.components["llm"]["merged_lora"] = {"r": 4, "alpha": 8}
    assert embeddings(merged, processor)[0] is not merged.encoder.llm.get_input_embeddings()


def test_without_the_translator_back_the_tall_answers_alone(app, fresh, tmp_path):
    model, processor = fresh("gated")
    model.config.components["hr_lr"]["name_or_path"] = str(tmp_path / "gone")
    for made in (model, processor):
        made.save_pretrained(tmp_path / "tall")
    demo = app.Demo(str(tmp_path / "tall"))
    assert demo.naive is None
    assert "gone" in demo.naive_missing
    assert (demo.name, demo.language, demo.examples) == ("tall", None, [])
    translation, words = demo.answer("שלום")
    expected = model.next_words("שלום", processor)[0]
    assert [word for word, _ in words] == [word for word, _ in expected]
    assert [p for _, p in words] == pytest.approx([p for _, p in expected], rel=1e-5)
    assert translation == model.translate("שלום", processor)[0]


@pytest.fixture(scope="module")
def tiny_space(app, composed, tmp_path_factory):
    """What `/next_words` of a Space calls, around a tiny random model."""
    folder = tmp_path_factory.mktemp("tiny-space")
    for made in composed("gated"):
        made.save_pretrained(folder)
    demo = app.Demo(str(folder))
    assert demo.naive is not None
    functions = {one.api_name: one.fn for one in app.build(demo).fns.values()}
    return functions["next_words"]


@settings(max_examples=8, deadline=None, database=None, derandomize=True)
@given(text=anything)
def test_the_function_answers_any_text_or_says_why_not(tiny_space, text):
    if text in NO_TEXTS.values() or not any(char.isalnum() for char in text):
        with pytest.raises(gradio.Error, match="half of a surrogate pair|There is no word yet"):
            tiny_space(text)
        return
    answer = json.loads(json.dumps(tiny_space(text), allow_nan=False))
    assert 0 < len(answer["words"]) <= 5 and all(0 < one["score"] <= 1 + 1e-6 for one in answer["words"])
    for one in answer["naive"]:
        assert one["word"] and one["sentence"].split() and 0 < one["probability"] <= 1 + 1e-6
    assert isinstance(answer["translation"], str) and isinstance(answer["note"], str)


def test_whatever_is_written_is_escaped(app):
    word = SimpleNamespace(word=HTML, english=HTML, probability=0.5, sentence=HTML)
    for answer in (
        app.page.tall_answer(HTML, [(HTML, 0.25)], HTML, HTML),
        app.page.naive_answer([word], HTML),
        app.page.header(HTML, on_hub=True),
        app.page.message(HTML),
    ):
        assert "<img" not in answer
        assert html.escape(HTML) in answer


def test_settings_agree_with_those_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = {line.replace(" ", "") for line in setup["options"]["install_requires"].split("\n")}
    wanted = [line for line in (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert set(wanted) <= declared
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert f"gradio=={header['sdk_version']}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert (SPACE / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60  # the Hub's limit


# --- by gradio_client ------------------------------------------------------------------------------------------------


def test_next_words_are_the_models(client, tall, records):
    model, processor = tall
    for record in records:
        answer = client.predict(record.truncated, api_name="/next_words")
        [translation] = model.translate(record.truncated, processor)
        [words] = model.next_words(record.truncated, processor, translations=[translation])
        assert (answer["translation"], answer["note"]) == (translation, "")
        assert [one["word"] for one in answer["words"]] == [word for word, _ in words]
        assert [one["score"] for one in answer["words"]] == pytest.approx([score for _, score in words], rel=1e-3)
        # The word order agrees, so what the LLM knows comes back.
        assert answer["naive"][0]["word"] == record.missing_word
        assert record.english.split()[-1] == answer["naive"][0]["english"]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no word yet"),
        (" \n\t ", "no word yet"),
        ("?!…", "no word yet"),
        (17, "must be text"),
        (None, "must be text"),
        (["a"], "must be text"),
        ("א" * 1001, "1,001 characters; the limit is 1,000"),
        ("שלום " * 1_050_000, "5,250,000 characters"),  # 10 MB
    ],
)
def test_what_is_no_sentence_is_refused_with_a_reason(client, text, reason):
    with pytest.raises(gradio_client.exceptions.AppError, match=re.escape(reason)):
        client.predict(text, api_name="/next_words")


def test_half_of_a_character_is_refused_with_a_reason(app):
    """JSON can hold one, and the tokenizer would end in an error of its own."""
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        app.check_text("שלום \ud800")


def test_any_text_is_answered_or_refused_with_a_reason(app, composed):
    demo = app.Demo.__new__(app.Demo)  # without a checkpoint
    demo.model, demo.processor = composed("gated")
    answered = 0
    for text in [*TEXTS.values(), *NO_TEXTS.values()]:
        try:
            text = app.check_text(text)
        except ValueError as error:
            assert re.search("no word yet|the limit is 1,000|half of a surrogate pair", str(error))
            continue
        answered += 1
        translation, words = demo.answer(text)
        assert 0 < len(words) <= app.TOP_K and all(0 < score <= 1 + 1e-6 for _, score in words)
        shown = app.page.tall_answer(translation, words, "he", demo.note_on(text))
        assert "<script" not in shown and "<img" not in shown
    assert answered > 30


def test_html_is_text_and_a_long_sentence_gets_a_note(client):
    answer = client.predict(HTML, api_name="/next_words")
    assert isinstance(answer["translation"], str)
    answer = client.predict("דנה גרה בעיר " * 70, api_name="/next_words")
    assert "only its end counts" in answer["note"]


def test_only_this_is_offered_to_clients(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/next_words"}


# --- in a browser ----------------------------------------------------------------------------------------------------


def test_a_sentence_is_completed_by_clicking(browser, server, tall, records):
    model, processor = tall
    text = records[0].truncated
    browser.open(server.url)
    assert browser.run("return getComputedStyle(document.querySelector('#sentence textarea')).direction") == "rtl"
    browser.ask(text)
    words = [word for word, _ in model.next_words(text, processor)[0]]
    assert browser.texts("#tall li .word", 5) == words
    assert browser.find("#tall .read .text").text == model.translate(text, processor)[0]
    assert browser.find("#naive li .word").text == records[0].missing_word
    # From right to left, and as wide as the word is probable.
    row, bar = (
        browser.run("return document.querySelector(arguments[0]).getBoundingClientRect()", f"#naive li {part}")
        for part in ("button", ".bar")
    )
    assert bar["right"] == pytest.approx(row["right"], abs=2)
    share = float(browser.find("#naive .probability").text.split()[-1].rstrip("%")) / 100
    assert bar["width"] / row["width"] == pytest.approx(share, abs=0.02)

    browser.find("#naive li button").click()
    longer = f"{text} {records[0].missing_word}"
    browser.wait(lambda: browser.sentence() == longer)
    browser.wait(lambda: browser.find("#tall .read .text").text == model.translate(longer, processor)[0])
    word = browser.texts("#tall li .word", 5)[1]
    browser.driver.find_elements("css selector", "#tall li button")[1].click()
    browser.wait(lambda: browser.sentence() == f"{longer} {word}")
    for expected in (longer, text):
        browser.find("#back").click()
        browser.wait(lambda expected=expected: browser.sentence() == expected)
    browser.wait(lambda: browser.texts("#tall li .word", 5) == words)
    browser.find("#clear").click()
    browser.wait(lambda: browser.sentence() == "" and not browser.driver.find_elements("css selector", "#tall li"))


def test_examples_are_the_cards_and_can_be_clicked(browser, server):
    browser.open(server.url)
    assert browser.find("header a").get_attribute("href") == "https://huggingface.co/tall-tests/space"
    shown = browser.texts("#examples button", 2)
    assert shown[0] == "דנה גרה בעיר"
    assert shown[1].startswith(HTML[:50])  # a long one is cut
    for index, text in enumerate(("דנה גרה בעיר", HTML)):
        browser.driver.find_elements("css selector", "#examples button")[index].click()
        browser.wait(lambda text=text: browser.sentence() == text)
        browser.texts("#tall li .word", 5)
    assert browser.run("return window.hacked") is None


def test_a_refusal_is_shown_in_the_page(browser, server):
    browser.open(server.url)
    browser.find("#ask").click()
    assert "no word yet" in browser.find("#tall [role=alert]").text
    # Pasted; to type it would take minutes.
    browser.run(
        "const area = document.querySelector('#sentence textarea'); area.value = 'א'.repeat(100000);"
        "area.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    browser.find("#ask").click()
    browser.wait(lambda: "100,000 characters" in browser.find("#tall [role=alert]").text)


def test_html_from_the_model_is_text_in_the_page(browser, app):
    """The models cannot be made to say it, so something says it in their place."""
    demo = SimpleNamespace(
        name=HTML,
        on_hub=False,
        language=None,
        examples=[HTML],
        naive=None,
        naive_missing=HTML,
        answer=lambda text: (HTML, [(HTML, 0.75), ("שלום", 0.25)]),
        note_on=lambda text: HTML,
    )
    blocks = app.build(demo)
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        browser.open(url)
        browser.ask("שלום")
        assert browser.texts("#tall li .word", 2) == [HTML, "שלום"]
        shown = [
            browser.find(selector).text for selector in ("#tall .read .text", "#tall ol + .message", "#naive .message")
        ]
        assert shown == [HTML] * 3
        browser.find("#tall li button").click()
        browser.wait(lambda: browser.sentence() == f"שלום {HTML}")
        assert browser.run("return [window.hacked ?? null, document.querySelectorAll('img[src=x]').length]") == [
            None,
            0,
        ]
    finally:
        blocks.close()


def test_nobody_is_told(app):
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not gradio.analytics.analytics_enabled()
