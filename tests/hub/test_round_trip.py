"""Published and loaded again: by a process without this package, from a Hub, over HTTP, with the real clients."""

import json
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import parts
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, snapshot_download
from safetensors.torch import load_file

from tall_hf import TALLForCausalLM, publishing
from tall_hf.training.light import save_light


CARD = ModelCard("---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n# A TALL\n")
FIRST, SECOND, PRIVATE = "tall-tests/first", "tall-tests/second", "tall-tests/private"
LIGHT = "tall-tests/light"


def logits(model, processor):
    inputs = processor(text=parts.SENTENCES, translations=parts.TRANSLATIONS, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits


def load_in_new_process(hub, folder, steps, environment):
    """(tensors, report, requests of each step) of `stranger.py`, with steps `(name, loader, repo_id, options)`."""
    folder.mkdir()
    request = {
        "site_packages": sysconfig.get_path("purelib"),
        "threads": torch.get_num_threads(),
        "texts": parts.SENTENCES,
        "translations": parts.TRANSLATIONS,
        "steps": [dict(zip(("name", "loader", "repo_id", "options"), step, strict=True)) for step in steps],
    }
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    script = Path(__file__).with_name("stranger.py")
    requests = {}
    with (
        (folder / "stderr").open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-I", "-S", script, folder],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as child,
    ):
        hub.requests.clear()
        for name, *_ in steps:
            if child.stdout.readline().strip() != name:
                break
            requests[name] = Counter(hub.requests)
            hub.requests.clear()
            child.stdin.write("\n")
            child.stdin.flush()
    said = (folder / "stderr").read_text()
    assert child.returncode == 0, said[-3000:]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return load_file(folder / "tensors.safetensors"), report | {"stderr": said}, requests


@pytest.fixture(scope="module")
def published(hub, composed, tmp_path_factory):
    """What is on the Hub: models and the folders they were published from by name, and commits of the first repository.

    The first repository has three commits: a model, another in its place, and remote code that says that it is new.
    """
    root = tmp_path_factory.mktemp("models")
    made = {
        "first": composed("gated"),
        "new": composed("gated", "marian", "llama"),
        "second": composed("none"),
        "private": composed("marian", "marian", "gpt2"),
    }
    folders = {name: publishing.save(*one, root / name) for name, one in made.items()}
    # As they come from a folder: numbers read into memory of another alignment may be summed in another order.
    models = {name: (TALLForCausalLM.from_pretrained(folders[name]), made[name][1]) for name in made}
    old = publishing.publish(folders["first"], FIRST, card=CARD, verify=False)
    new = publishing.publish(folders["new"], FIRST, verify=False)
    code = (folders["new"] / "modeling_tall.py").read_text(encoding="utf-8") + '\nEDITION = "new"\n'
    api = HfApi(token=hub.token)
    api.upload_file(path_or_fileobj=code.encode(), path_in_repo="modeling_tall.py", repo_id=FIRST)
    publishing.publish(folders["second"], SECOND, card=CARD, verify=False)
    publishing.publish(folders["private"], PRIVATE, private=True, card=CARD, verify=False)
    api.create_repo(LIGHT)
    api.upload_folder(repo_id=LIGHT, folder_path=save_light(*made["first"], root / "light"))
    return {"models": models, "folders": folders, "old": old.commit, "new": new.commit}


@pytest.fixture(scope="module")
def loaded(hub, published, tmp_path_factory):
    """(tensors, report, requests of each step) of a stranger who has no token, and whose cache is empty at first."""
    old, new = published["old"], published["new"]
    steps = [
        ("model", "AutoModel", FIRST, {}),
        ("again", "AutoModel", FIRST, {}),
        ("causal", "AutoModelForCausalLM", FIRST, {}),
        ("seq2seq", "AutoModelForSeq2SeqLM", FIRST, {}),
        ("pipeline", "pipeline", FIRST, {}),
        ("old revision", "AutoModel", FIRST, {"revision": old}),
        ("old code", "AutoModel", FIRST, {"code_revision": new}),
        ("second", "AutoModel", SECOND, {}),
        ("bf16", "AutoModel", FIRST, {"dtype": "bfloat16"}),
        ("device map", "AutoModel", FIRST, {"device_map": "auto"}),
        ("no token", "AutoModel", PRIVATE, {}),
        ("stranger's token", "AutoModel", PRIVATE, {"token": hub.add_user("ruth")}),
        ("bad token", "AutoModel", PRIVATE, {"token": "hf_wrong"}),
        ("member's token", "AutoModel", PRIVATE, {"token": hub.add_user("yossi", ("tall-tests",), role="read")}),
        ("light", "AutoModel", LIGHT, {}),
        ("missing revision", "AutoModel", FIRST, {"revision": "0" * 40}),
    ]
    root = tmp_path_factory.mktemp("stranger")
    environment = hub.environment(token=False, home=root / "home")
    assert not (root / "home").exists()
    found = load_in_new_process(hub, root / "online", steps, environment)
    # All of it, once more, from the cache and with no network: what `HF_HUB_OFFLINE` promises.
    offline = [step for step in steps if step[0] in ("model", "pipeline", "old revision", "second")]
    nobody = {**environment, "HF_HUB_OFFLINE": "1"}
    return {"online": found, "offline": load_in_new_process(hub, root / "offline", offline, nobody)}


def test_this_package_is_not_there(loaded):
    for name in ("online", "offline"):
        _, report, _ = loaded[name]
        print(f"{name}: {report['without']}")
        assert report["without"] == "No module named 'tall_hf'"
        assert report["imported"] == []


@pytest.mark.parametrize("step", ["model", "again", "causal", "seq2seq", "device map", "old code"])
def test_every_auto_class_gives_the_same_logits(published, loaded, step):
    tensors, report, _ = loaded["online"]
    assert "error" not in report[step]
    expected = logits(*published["models"]["new"])
    assert torch.equal(tensors[step], expected)
    assert report[step]["class"]["name"] == "TALLForCausalLM"
    for made in ("class", "processor"):
        assert report[step][made]["module"].startswith("transformers_modules.")


def test_pipeline_without_the_name_of_a_task(published, loaded):
    model, processor = published["models"]["new"]
    for name in ("online", "offline"):
        _, report, _ = loaded[name]
        assert report["pipeline"]["class"]["name"] == "TALLTextGenerationPipeline"
        for words, text in zip(report["pipeline"]["words"], parts.SENTENCES, strict=True):
            [expected] = model.next_words([text], processor, top_k=3)
            assert [(one["word"], one["score"]) for one in words] == expected


def test_requests(hub, loaded):
    _, _, requests = loaded["online"]
    for step, counts in requests.items():
        print(f"{step}: {counts.total()} requests: {dict(sorted(counts.items()))}")
    assert hub.unknown == []
    first, again = requests["model"], requests["again"]
    # Weights and sentencepiece models, some of which two tokenizers share: each content came once.
    large = {blob.sha256 for blob in hub.repository(FIRST).resolve().files.values() if blob.lfs}
    assert first["GET download"] == len(large)
    assert again["GET download"] == again["GET resolve"] == 0
    assert again.total() < first.total()
    # A first load stays as cheap as it is: more requests than these should be known of.
    assert first.total() <= 90
    # Another commit with the same weights sends none of the large files again.
    assert requests["old code"]["GET download"] == 0


def test_offline_after_the_first_load(published, loaded):
    tensors, _, requests = loaded["offline"]
    assert sum(counts.total() for counts in requests.values()) == 0
    assert torch.equal(tensors["model"], logits(*published["models"]["new"]))
    assert torch.equal(tensors["old revision"], logits(*published["models"]["first"]))
    assert torch.equal(tensors["second"], logits(*published["models"]["second"]))


def test_pinned_revision_and_code_revision(published, loaded):
    tensors, report, _ = loaded["online"]
    assert torch.equal(tensors["old revision"], logits(*published["models"]["first"]))
    editions = {step: report[step]["class"]["edition"] for step in ("model", "old revision", "old code")}
    assert editions == {"model": "new", "old revision": None, "old code": None}
    assert not torch.equal(tensors["model"], tensors["old revision"])
    assert "0" * 40 in report["missing revision"]["error"]


def test_two_repositories_and_two_revisions_in_one_process(published, loaded):
    tensors, report, _ = loaded["online"]
    assert torch.equal(tensors["second"], logits(*published["models"]["second"]))
    modules = {report[step]["class"]["module"] for step in ("model", "old revision", "second")}
    assert len(modules) == 3
    again = [name for name in tensors if name.endswith(" again")]
    assert len(again) == 10  # every step that loads a model
    for name in again:
        assert torch.equal(tensors[name], tensors[name.removesuffix(" again")]), name


def test_bf16(published, loaded):
    tensors, report, _ = loaded["online"]
    assert report["bf16"]["dtype"] == "torch.bfloat16"
    cast = TALLForCausalLM.from_pretrained(published["folders"]["new"], dtype=torch.bfloat16)
    assert torch.equal(tensors["bf16"], logits(cast, published["models"]["new"][1]))


def test_private_is_refused_without_a_token_that_may_read(hub, published, loaded):
    tensors, report, requests = loaded["online"]
    for step in ("no token", "stranger's token", "bad token"):
        assert report[step]["error"].startswith("OSError"), report[step]
        assert requests[step]["GET download"] == 0
    assert torch.equal(tensors["member's token"], logits(*published["models"]["private"]))
    said = json.dumps(report)
    assert not [token for token in (*hub.users, "hf_wrong") if token in said]


def test_adapters_alone_say_how_to_load_them_and_fetch_no_weights(loaded):
    _, report, requests = loaded["online"]
    assert "tall_hf.load_light(folder)" in report["light"]["error"]
    assert requests["light"]["GET resolve"]
    assert not requests["light"]["GET download"]


def test_an_interrupted_upload_leaves_the_old_version_whole(hub, published, fresh, tmp_path):
    """Killed while weights go up, refused while weights go up, refused at the commit; and then it is done."""
    repo_id, old = "tall-tests/interrupted", published["folders"]["first"]
    model, processor = fresh("gated")
    new = publishing.save(parts.stir(model), processor, tmp_path / "new")  # weights that the Hub has not seen
    before = publishing.publish(old, repo_id, verify=False)

    def assert_whole():
        assert hub.repository(repo_id).resolve().oid == before.commit
        at = snapshot_download(repo_id, cache_dir=tmp_path / "cache")
        for file in before.files:
            content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
            assert Path(at, file.path_in_repo).read_bytes() == content, file.path_in_repo
        loaded = TALLForCausalLM.from_pretrained(at)
        assert torch.equal(logits(loaded, published["models"]["first"][1]), logits(*published["models"]["first"]))

    call = f"from tall_hf import publishing; publishing.publish({str(new)!r}, {repo_id!r}, verify=False)"
    hub.requests.clear()
    # 503 is tried again, so that the process is in the middle of the upload for seconds.
    with hub.failing("PUT upload", status=503):
        child = subprocess.Popen([sys.executable, "-c", call], env=hub.environment(), stderr=subprocess.DEVNULL)
        stop = time.monotonic() + 120
        while hub.requests["PUT upload"] < 2 and child.poll() is None and time.monotonic() < stop:
            time.sleep(0.05)
        child.kill()
        assert child.wait() == -9
    assert_whole()
    for request, error in (("PUT upload", ConnectionError), ("POST commit", PermissionError)):
        with hub.failing(request, status=403), pytest.raises(error):
            publishing.publish(new, repo_id, verify=False)
        assert_whole()
    # The large files are there since the last attempt, and need not be sent again.
    hub.requests.clear()
    after = publishing.publish(new, repo_id, verify=False)
    assert hub.requests["PUT upload"] == 0
    assert hub.repository(repo_id).resolve().oid == after.commit
    assert [commit.oid for commit in hub.repository(repo_id).history()][:2] == [after.commit, before.commit]
    assert {file.path_in_repo for file in after.files} <= set(hub.repository(repo_id).files())
