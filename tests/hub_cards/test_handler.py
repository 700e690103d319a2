"""The handler for Inference Endpoints: answers over HTTP without this package, limits, and what it refuses with a reason."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import parts
import psutil
import pytest
import torch
from huggingface_hub import InferenceClient, constants, get_session
from huggingface_hub.errors import BadRequestError
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty_texts import NO_TEXTS, TEXTS, anything

from tall_hf import publishing
from tall_hf.hub_cards import handler as handler_module
from tall_hf.hub_cards.handler import LIMITS, EndpointHandler, OverloadedError


CHILD = Path(__file__).with_name("endpoint_child.py")
SLOW = "לאט"  # a text that takes the endpoint a while
# What the memory of each endpoint is asked by.
memory = {}


@pytest.fixture(scope="module")
def repository(composed, tmp_path_factory):
    """The folder of a model's repository as an endpoint finds it."""
    folder = publishing.save(*composed("gated"), tmp_path_factory.mktemp("endpoint") / "repository")
    shutil.copy(handler_module.__file__, folder)
    return folder


@pytest.fixture(scope="module")
def endpoint(repository, tmp_path_factory):
    """Address of a server in a process of its own, which cannot import this package."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_", "TALL_"))
    }
    environment |= {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_OFFLINE": "1"}
    environment |= {"TALL_MAX_BATCH_SIZE": "6", "TALL_MAX_REQUESTS": "16"}
    command = [sys.executable, "-I", "-S", str(CHILD), sysconfig.get_path("purelib"), str(repository), SLOW]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process,
    ):
        try:
            port = process.stdout.readline().strip()
            assert port, process.communicate(timeout=10)[1][-3000:]
            patch.setattr(constants, "HF_HUB_OFFLINE", False)  # this machine's own address is all that is asked for
            patch.setenv("NO_PROXY", "127.0.0.1")
            memory[f"http://127.0.0.1:{port}"] = psutil.Process(process.pid).memory_info
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def handler(repository):
    return EndpointHandler(str(repository))


def post(endpoint, body):
    """(status, answer) of a request with this body, an object or JSON already."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    response = get_session().post(endpoint, content=content, headers=headers, timeout=300)
    return response.status_code, response.json()


def test_the_server_is_healthy(endpoint):
    assert get_session().get(endpoint).status_code == 200


def test_the_clients_text_generation_continues_a_text(endpoint, composed):
    model, processor = composed("gated")
    client = InferenceClient(model=endpoint)
    for text in parts.SENTENCES[:2]:
        expected = model.complete(text, processor, max_new_tokens=6)
        assert [client.text_generation(text, max_new_tokens=6)] == expected
    with pytest.raises(BadRequestError, match='Unknown parameter "stop"'):
        client.text_generation("שלום", stop=["."])
    with pytest.raises(BadRequestError, match='does not stream; leave "stream" out'):
        list(client.text_generation("שלום", stream=True))


def test_next_words_with_scores(endpoint, composed):
    model, processor = composed("gated")
    expected = model.next_words(parts.SENTENCES[:2], processor, top_k=3)
    status, alone = post(endpoint, {"inputs": parts.SENTENCES[0], "parameters": {"top_k": 3}})
    assert status == 200
    status, batch = post(endpoint, {"inputs": parts.SENTENCES[:2], "parameters": {"top_k": 3}})
    assert status == 200
    for answer, words in zip([alone, *batch], [expected[0], *expected], strict=True):
        assert [one["word"] for one in answer] == [word for word, _ in words]
        assert [one["score"] for one in answer] == pytest.approx([score for _, score in words], rel=1e-3)


def test_a_batch_is_continued(endpoint, composed):
    model, processor = composed("gated")
    parameters = {"max_words": 2, "refresh_words": 1, "repetition_penalty": 1.2, "top_k": None}
    status, answers = post(endpoint, {"inputs": parts.SENTENCES, "parameters": parameters, "stream": False})
    expected = model.complete(parts.SENTENCES, processor, max_words=2, refresh_words=1, repetition_penalty=1.2)
    assert (status, answers) == (200, [[{"generated_text": text}] for text in expected])
    assert post(endpoint, {"inputs": []}) == (200, [])


def test_requests_at_the_same_time_get_their_own_answers(endpoint):
    bodies = [{"inputs": text, "parameters": {"max_words": 2}} for text in parts.SENTENCES]
    alone = [post(endpoint, body) for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        assert list(pool.map(lambda body: post(endpoint, body), bodies)) == alone
    assert len({json.dumps(answer) for _, answer in alone}) > 1


@pytest.mark.parametrize("parameters", [{"top_k": 2}, {"max_words": 1}])
def test_any_text_within_the_limits_is_answered(handler, parameters):
    texts = [text for text in TEXTS.values() if len(text) <= LIMITS["max_characters"]]
    texts += ["א" * 10_000, "אא" + "\u0301\u0316" * 4_999]
    for start in range(0, len(texts), LIMITS["max_batch_size"]):
        batch = texts[start : start + LIMITS["max_batch_size"]]
        answers = handler({"inputs": batch, "parameters": parameters})
        assert len(answers) == len(batch)
        assert json.loads(json.dumps(answers, allow_nan=False)) == answers
        if "max_words" in parameters:
            assert all(
                answer["generated_text"].startswith(text.rstrip())
                for text, [answer] in zip(batch, answers, strict=True)
            )


@settings(max_examples=5, deadline=None, database=None, derandomize=True)
@given(
    text=anything,
    parameters=st.one_of(
        st.fixed_dictionaries({"top_k": st.integers(1, 3)}),
        st.fixed_dictionaries({"max_words": st.just(1)}, optional={"num_beams": st.integers(1, 2)}),
    ),
)
def test_any_text_beside_another_is_answered_or_refused(handler, text, parameters):
    neighbour = parts.SENTENCES[4]  # short, so that it is padded beside most texts
    request = {"inputs": [neighbour, text], "parameters": parameters}
    if text in NO_TEXTS.values():
        with pytest.raises(ValueError, match=r'"inputs\[1\]" holds half of a surrogate pair'):
            handler(request)
        return
    [beside, answer] = json.loads(json.dumps(handler(request), allow_nan=False))
    [alone] = handler({"inputs": [neighbour], "parameters": parameters})
    if "top_k" in parameters:
        assert 0 < len(answer) <= parameters["top_k"] and all(0 < one["score"] <= 1 + 1e-6 for one in answer)
        assert [one["word"] for one in beside] == [one["word"] for one in alone]
        assert [one["score"] for one in beside] == pytest.approx([one["score"] for one in alone], rel=1e-3)
    else:
        assert answer[0]["generated_text"].startswith(text.rstrip())
        assert beside == alone


def test_what_is_beyond_the_limits_or_no_text_is_refused(handler):
    for text in [*NO_TEXTS.values(), *(text for text in TEXTS.values() if len(text) > LIMITS["max_characters"])]:
        with pytest.raises(ValueError, match="surrogate pair|the limit is 10,000"):
            handler({"inputs": ["שלום", text]})


REFUSED = [
    ({"inputs": 3}, '"inputs" must be text, got a number'),
    ({"inputs": None}, '"inputs" must be text, got null'),
    ({"inputs": True}, '"inputs" must be text, got true or false'),
    ({"inputs": {"text": "שלום"}}, '"inputs" must be text, got an object'),
    ({"inputs": ["שלום", 3]}, r'"inputs\[1\]" must be text, got a number'),
    ({"inputs": [["שלום"]]}, r'"inputs\[0\]" must be text, got a list'),
    ({"inputs": "א" * 10_000_000}, '"inputs" has 10,000,000 characters; the limit is 10,000. Send its end'),
    ({"inputs": ["א", "א" * 10_001]}, r'"inputs\[1\]" has 10,001 characters'),
    ({"inputs": ["א"] * 7}, '"inputs" holds 7 texts; the limit is 6 in one request'),
    ({"inputs": "\ud800"}, '"inputs" holds half of a surrogate pair'),
    ({"inputs": "א", "options": {}}, 'Unknown "options"; a request has "inputs" and "parameters"'),
    ({"inputs": "א", "parameters": [3]}, '"parameters" must be an object, got a list'),
    (
        {"inputs": "א", "parameters": {"topk": 3}},
        'Unknown parameter "topk"; there are top_k, max_words, refresh_words',
    ),
    ({"inputs": "א", "parameters": {"generation_config": {}}}, 'Unknown parameter "generation_config"'),
    ({"inputs": "א", "parameters": {"top_k": True}}, '"top_k" must be a whole number from 1 to 50, got true or false'),
    ({"inputs": "א", "parameters": {"top_k": "3"}}, '"top_k" must be a whole number from 1 to 50, got text'),
    ({"inputs": "א", "parameters": {"top_k": 3.0}}, '"top_k" must be a whole number from 1 to 50, got a number'),
    ({"inputs": "א", "parameters": {"top_k": 0}}, '"top_k" must be a whole number from 1 to 50, got 0'),
    ({"inputs": "א", "parameters": {"top_k": 10**400}}, '"top_k" must be a whole number from 1 to 50, got 10000'),
    ({"inputs": "א", "parameters": {"max_words": 101}}, '"max_words" must be a whole number from 0 to 100, got 101'),
    ({"inputs": "א", "parameters": {"num_beams": 9}}, '"num_beams" must be a whole number from 1 to 8, got 9'),
    ({"inputs": "א", "parameters": {"do_sample": 1}}, '"do_sample" must be true or false, got a number'),
    (
        {"inputs": "א", "parameters": {"do_sample": True, "temperature": float("nan")}},
        '"temperature" must be a number from 0.01 to 100.0, got nan',
    ),
    (
        {"inputs": "א", "parameters": {"do_sample": True, "temperature": float("inf")}},
        '"temperature" must be a number from 0.01 to 100.0, got inf',
    ),
    ({"inputs": "א", "parameters": {"repetition_penalty": True}}, '"repetition_penalty" must be a number from 0.01'),
    ({"inputs": "א", "parameters": {"top_k": 3, "max_words": 2}}, '"max_words" belongs to continuing the text'),
    ({"inputs": "א", "parameters": {"temperature": 0.7}}, '"temperature" takes effect in sampling only'),
]


@pytest.mark.parametrize(("body", "reason"), REFUSED, ids=[reason[:40] for _, reason in REFUSED])
def test_bad_requests_are_refused_with_a_reason(endpoint, body, reason):
    status, answer = post(endpoint, body)
    assert (status, list(answer)) == (400, ["error"])
    with pytest.raises(ValueError, match=reason):
        raise ValueError(answer["error"])
    assert len(answer["error"]) < 500


@pytest.mark.parametrize("body", [b"", b"\xff", b"<html>", b"[3]", b'"text"', b"{}", b'{"inputs": "a'])
def test_what_is_no_request_is_refused(endpoint, body):
    status, _ = post(endpoint, body)
    assert status == 400


@pytest.mark.parametrize("data", [None, "text", ["inputs"], {}, {"parameters": {}}])
def test_the_handler_itself_asks_for_inputs(handler, data):
    with pytest.raises(ValueError, match='Expected a JSON object with "inputs"'):
        handler(data)


def test_sampling_takes_its_settings(handler):
    parameters = {"do_sample": True, "temperature": 5.0, "top_p": 0.99, "max_words": 3, "max_new_tokens": 8}
    answers = set()
    for seed in range(3):
        torch.manual_seed(seed)
        [answer] = handler({"inputs": parts.SENTENCES[0], "parameters": parameters})
        answers.add(answer["generated_text"])
    assert len(answers) > 1


@pytest.mark.parametrize("sampling", [{"temperature": 1, "top_p": 1}, {"repetition_penalty": 2}])
def test_whole_numbers_are_numbers(handler, sampling):
    parameters = {"do_sample": True, "max_words": 1, **sampling}
    as_floats = {name: float(value) if name in sampling else value for name, value in parameters.items()}
    answers = []
    for asked in (parameters, as_floats):
        torch.manual_seed(0)
        answers.append(handler({"inputs": parts.SENTENCES[0], "parameters": asked}))
    assert answers[0] == answers[1]


def test_a_request_is_not_changed(handler):
    data = {"inputs": ["שלום"], "parameters": {"max_words": 1, "max_new_tokens": 3}}
    handler(data)
    assert data == {"inputs": ["שלום"], "parameters": {"max_words": 1, "max_new_tokens": 3}}


@pytest.mark.parametrize(
    ("parameters", "texts_at_once"), [({"top_k": 50}, 5), ({"top_k": 3}, 32), ({"max_words": 1, "num_beams": 8}, 32)]
)
def test_rows_computed_together_are_limited_at_the_limits(handler, parameters, texts_at_once):
    """A row of logits is as long as the vocabulary, so it is rows that memory is spent on."""
    rows, texts = [], [f"{parts.SENTENCES[0]} {number}" for number in range(LIMITS["max_batch_size"])]

    def count(module, _, inputs):
        rows.append(len(inputs["decoder_input_ids"]))

    beams = min(
        max(16, 2 * parameters["top_k"]) if "top_k" in parameters else 8,
        handler.pipe.model.final_logits_bias.shape[-1],
    )
    hook = handler.pipe.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        together = handler({"inputs": texts, "parameters": parameters})
    finally:
        hook.remove()
    assert max(rows) == texts_at_once * beams <= LIMITS["max_rows"] == 512
    assert len(together) == len(texts)
    for text, answer in list(zip(texts, together, strict=True))[::9]:
        [alone] = handler({"inputs": [text], "parameters": parameters})
        assert [one.get("word", one.get("generated_text")) for one in answer] == [
            one.get("word", one.get("generated_text")) for one in alone
        ]


def test_one_text_is_answered_however_few_rows_there_may_be(repository, monkeypatch):
    asked = []
    monkeypatch.setenv("TALL_MAX_ROWS", "40")
    monkeypatch.setattr(handler_module, "pipeline", lambda **settings: lambda texts, **given: asked.append(given))
    handler = EndpointHandler(str(repository))
    for parameters in ({"top_k": 50}, {"top_k": 1}, {"num_beams": 8}, {}):
        handler({"inputs": ["א"] * 32, "parameters": parameters})
    assert [given["batch_size"] for given in asked] == [1, 2, 5, 32]


@pytest.mark.parametrize("limit", sorted(LIMITS.keys() - {"max_requests", "max_rows"}))
def test_environment_variables_move_the_limits(repository, monkeypatch, limit):
    variable = f"TALL_{limit.upper()}"
    monkeypatch.setenv(variable, "2")
    # The check comes before the model is asked, so none is loaded.
    monkeypatch.setattr(handler_module, "pipeline", lambda **settings: None)
    handler = EndpointHandler(str(repository))
    over = {
        "max_characters": {"inputs": "abc"},
        "max_batch_size": {"inputs": ["a", "b", "c"]},
        "max_top_k": {"inputs": "a", "parameters": {"top_k": 3}},
        "max_words": {"inputs": "a", "parameters": {"max_words": 3}},
    }[limit]
    with pytest.raises(ValueError, match="the limit is 2|to 2, got 3"):
        handler(over)
    for wrong in ("0", "-1", "many", "", "2.5", "²"):
        monkeypatch.setenv(variable, wrong)
        with pytest.raises(ValueError, match=f"{variable} must be a positive whole number, got '{wrong}'"):
            EndpointHandler(str(repository))


def test_one_request_too_many_is_turned_away(repository, monkeypatch):
    answering, go_on, computed = threading.Event(), threading.Event(), []

    def pipe(texts, **settings):
        computed.append(texts)
        answering.set()
        assert go_on.wait(60)
        return [{"generated_text": texts}]

    monkeypatch.setenv("TALL_MAX_REQUESTS", "3")
    monkeypatch.setattr(handler_module, "pipeline", lambda **settings: pipe)
    handler = EndpointHandler(str(repository))
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(handler, {"inputs": "0"})
        assert answering.wait(60)
        waiting = [pool.submit(handler, {"inputs": str(i)}) for i in (1, 2)]
        while handler._room._value:  # until both have come in
            assert not any(one.done() for one in waiting)
            time.sleep(0.01)
        with pytest.raises(OverloadedError, match="3 requests are waiting already; try again later") as refused:
            handler({"inputs": "3"})
        assert refused.value.status_code == 503
        time.sleep(0.2)  # in which the two would come to the model if they did not wait for it
        assert computed == ["0"]
        # What is wrong is said all the same.
        with pytest.raises(ValueError, match="must be text"):
            handler({"inputs": 3})
        go_on.set()
        assert [one.result() for one in (first, *waiting)] == [[{"generated_text": str(i)}] for i in range(3)]
    assert handler({"inputs": "4"}) == [{"generated_text": "4"}]


def test_64_clients_get_their_own_answers_or_are_turned_away(endpoint):
    bodies = [{"inputs": [text, SLOW], "parameters": {"top_k": 3}} for text in parts.SENTENCES[:4]]
    alone = [post(endpoint, body) for body in bodies]
    assert len({json.dumps(answer) for _, answer in alone}) > 1
    before, start = memory[endpoint]().rss, threading.Barrier(64)

    def ask(client):
        start.wait(60)
        return post(endpoint, bodies[client % 4])

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))
    for client, (status, answer) in enumerate(answers):
        if status == 503:
            assert "16 requests are waiting already" in answer["error"]
        else:
            assert (status, answer) == alone[client % 4]
    # 16 stay, and one comes in for each that is answered while the others knock.
    statuses = [status for status, _ in answers]
    assert statuses.count(200) >= 16 and statuses.count(503) >= 24
    # One is computed at a time, so 64 take hardly more than one.
    assert memory[endpoint]().rss - before < 200 * 2**20


@pytest.mark.parametrize("path", ["", "org/name", "no/such/folder"])
def test_only_a_folder_is_trusted(path):
    with pytest.raises(ValueError, match=f"Expected the folder of the model's repository, got '{path}'"):
        EndpointHandler(path)


@pytest.mark.parametrize(
    ("available", "bf16", "expected"),
    [(False, False, {}), (True, False, {"device": 0}), (True, True, {"device": 0, "dtype": torch.bfloat16})],
)
def test_a_gpu_is_used_in_bfloat16_where_it_has_it(repository, monkeypatch, available, bf16, expected):
    made = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 and not including_emulation)
    monkeypatch.setattr(handler_module, "pipeline", lambda **settings: made.update(settings))
    EndpointHandler(str(repository))
    assert made == {"model": str(repository), "trust_remote_code": True, **expected}


def test_bfloat16_weights_are_served_in_bfloat16(composed, fresh, tmp_path):
    model, processor = fresh("gated")
    handler = EndpointHandler(str(publishing.save(model.to(torch.bfloat16), processor, tmp_path / "half")))
    assert handler.pipe.model.dtype == torch.bfloat16
    [answer] = handler({"inputs": parts.SENTENCES[0], "parameters": {"max_words": 2}})
    assert answer["generated_text"].startswith(parts.SENTENCES[0])
    json.dumps(handler({"inputs": parts.SENTENCES[0], "parameters": {"top_k": 2}}), allow_nan=False)
