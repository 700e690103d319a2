"""The Space under more questions at once than it answers."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import psutil
import pytest


def test_what_waits_for_the_model_is_limited(app):
    """64 at once and a slow model: 32 wait at most, one is computed at a time, and each of those gets its own answer."""
    turn, started = threading.Lock(), threading.Barrier(64)

    def answer(text):
        assert turn.acquire(blocking=False)
        time.sleep(0.15)
        turn.release()
        return f"of {text}", [(text, 0.5)]

    def ask(number):
        started.wait(60)
        joined = httpx.post(f"{url}gradio_api/call/next_words", json={"data": [f"word {number}"]}, timeout=60)
        if joined.status_code != 200:
            return joined.status_code, joined.json()["detail"]
        answered = httpx.get(f"{url}gradio_api/call/next_words/{joined.json()['event_id']}", timeout=60)
        assert answered.text.startswith("event: complete"), answered.text
        return 200, json.loads(answered.text.split("data: ")[1])[0]

    demo = SimpleNamespace(
        name="m", on_hub=False, language="he", examples=[], naive=None, answer=answer, note_on=lambda text: ""
    )
    blocks = app.build(demo)
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    before = psutil.Process().memory_info().rss
    try:
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(ask, range(64)))
    finally:
        blocks.close()
    for number, (status, said) in enumerate(answers):
        if status == 200:
            assert (said["translation"], said["words"][0]["word"]) == (f"of word {number}", f"word {number}")
        else:
            assert status == 503 and "queue is full" in said.lower()
    statuses = [status for status, _ in answers]
    assert statuses.count(200) >= 32 and statuses.count(503) >= 16
    assert psutil.Process().memory_info().rss - before < 200 * 2**20


@pytest.mark.slow
def test_64_clients_get_their_own_answers_or_are_turned_away(server, client, records):
    texts = [record.truncated for record in records[:2]]
    alone = [client.predict(text, api_name="/next_words") for text in texts]
    before = server.process.memory_info().rss
    with ThreadPoolExecutor(64) as pool:
        jobs = [pool.submit(client.predict, texts[i % 2], api_name="/next_words") for i in range(64)]
    answered = 0
    for i, job in enumerate(jobs):
        if (error := job.exception()) is None:
            assert job.result() == alone[i % 2]
            answered += 1
        else:
            assert "queue is full" in str(error).lower()
    assert answered >= 32
    # One is computed at a time.
    assert server.process.memory_info().rss - before < 200 * 2**20
