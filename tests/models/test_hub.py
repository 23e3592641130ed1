"""`composer.models.hub` with the real hub client, against the small server of ``hub_server``."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import composer
from composer.assess.masks.sources import open_sources
from composer.composing.card import Making, model_card
from composer.errors import ModelError, OutputError
from composer.models.folder import BaseModel
from composer.models.hub import ALIASES, RECORD, download
from composer.workspace import Workspace
from tests.hub_server import Hub, serve

T5 = ALIASES["t5"]
BASE = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def write_model(folder: Path) -> Path:
    """Write a tiny model folder with a real tokenizer; the weights are one matrix."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 8, "vocab_size": 3}))
    Tokenizer(WordLevel({"<unk>": 0, "good": 1, "day": 2}, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    save_file({"shared.weight": np.ones((3, 8), np.float32)}, folder / "model.safetensors")
    return folder


def write_shards(folder: Path, named: int = 2) -> None:
    """Replace the weights by two shards and an index that names ``named`` of them."""
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in names:
        save_file({name: np.ones(4, np.float32)}, folder / name)
    table = {f"w{i}": f"model-0000{i}-of-00002.safetensors" for i in range(1, named + 1)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_model(tmp_path / "source")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "models" / "base"


@pytest.fixture
def hub(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve({T5: source}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_alias_becomes_an_ordinary_folder(hub: Hub, out: Path, tmp_path: Path) -> None:
    got = download("t5", out)
    assert (got.repo, got.commit, got.folder, got.fetched) == (T5, hub.commit(T5), out, True)
    assert list(got.files) == BASE
    assert got.bytes == sum((out / name).stat().st_size for name in BASE)
    assert names(out) == sorted([*BASE, RECORD])
    assert json.loads((out / RECORD).read_text())["hub"] | {"files": None} == {
        "repo": T5, "revision": "main", "commit": got.commit, "files": None,
    }  # fmt: skip
    assert all((out / name).read_bytes() == content for name, content in hub.files(T5).items())
    assert names(out.parent) == ["base", *(f"base/{name}" for name in names(out))]
    assert not (tmp_path / "cache").exists()


def test_only_safetensors_and_what_belongs_to_them_are_fetched(hub: Hub, source: Path, out: Path) -> None:
    wanted = [
        "LICENSE",
        "chat_template.jinja",
        "generation_config.json",
        "merges.txt",
        "source.spm",
        "spiece.model",
        "vocab.json",
    ]
    foreign = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.onnx", "weights.pt", "a.pkl"]
    foreign += [
        "model.fp16.safetensors",
        "preprocessor_config.json",
        "model.py",
        "onnx/config.json",
        "openvino/a.bin",
    ]
    for name in wanted + foreign:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"{}")
    (source / "README.md").write_bytes(b"x" * 1_000_001)
    assert sorted(download(T5, out).files) == sorted([*BASE, *wanted])
    assert len(hub.gets()) == len([*BASE, *wanted]) - 1  # The weights are sent by the other host.
    asked = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
    assert asked == {*BASE, *wanted}


def test_shards_come_as_the_index_names_them(hub: Hub, source: Path, out: Path) -> None:
    write_shards(source)
    save_file({"w": np.ones(1)}, source / "model-00001-of-00003.safetensors")
    download(T5, out)
    assert [n for n in names(out) if n.startswith("model")] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]


def test_second_call_does_nothing(hub: Hub, out: Path) -> None:
    first = download("t5", out)
    stamps = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    hub.asked.clear()
    again = download("t5", out)
    assert (again.files, again.bytes, again.commit, again.fetched) == (
        first.files,
        first.bytes,
        first.commit,
        False,
    )
    assert hub.asked == [f"GET /api/models/{T5}"]
    download("t5", out, revision=first.commit)
    assert len(hub.asked) == 1
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in names(out)}


def test_new_commit_wants_force(hub: Hub, source: Path, out: Path) -> None:
    download("t5", out)
    old = hub.commit(T5)[:12]
    (source / "generation_config.json").write_text("{}")
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(OutputError, match=f"holds {T5} at {old}, .* which is {hub.commit(T5)[:12]}: --force"):
        download("t5", out)
    assert "generation_config.json" not in names(out)
    assert download("t5", out, force=True).commit == hub.commit(T5)
    assert names(out) == sorted({*BASE, RECORD, "generation_config.json"} - {"tokenizer_config.json"})
    assert os.listdir(out.parent) == ["base"]


def test_output_that_holds_something_else(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.mkdir(parents=True)
    download("t5", out)
    hub.asked.clear()
    with pytest.raises(OutputError, match=f"holds {T5} at .*, not acme/other: --force"):
        download("acme/other", out)
    (out / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(OutputError, match=r"model.safetensors has 3 bytes instead of \d+: --force downloads it"):
        download("t5", out)
    (out / "model.safetensors").unlink()
    with pytest.raises(OutputError, match=r"model.safetensors is missing: --force"):
        download("t5", out)
    (out / RECORD).unlink()
    with pytest.raises(OutputError, match=r"is no download of Composer's \(3 entries\): --force replaces it"):
        download("t5", out)
    with pytest.raises(OutputError, match=r"config.json is a file"):
        download("t5", out / "config.json", force=True)
    monkeypatch.chdir(out)
    with pytest.raises(OutputError, match="is, or contains, the current or the home folder"):
        download("t5", Path(".."), force=True)
    assert not hub.asked
    assert len(names(out)) == 3


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("distilbrt", "allowed are t5, distilbert or a hub id .* did you mean 'distilbert'"),
        ("t5-small", "did you mean 'google-t5/t5-small'"),
        ("https://hub/acme/toy", "unknown model 'https://hub/acme/toy'"),
        ("acme/../toy", "unknown model"),
        ("acme/toy.git", "unknown model"),
        ("", "unknown model ''"),
    ],
)
def test_bad_model_names(hub: Hub, out: Path, model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        download(model, out)
    assert not hub.asked


def test_repository_that_is_not_to_be_had(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=f"no model acme/none at {hub.url}.* private and no HF_TOKEN is set"):
        download("acme/none", out)
    with pytest.raises(ModelError, match=f"{T5} has no revision 'v9': allowed is a branch, a tag or a commit"):
        download("t5", out, revision="v9")
    hub.gated[T5] = "hf_good"
    with pytest.raises(ModelError, match=f"is gated and no HF_TOKEN is set: ask for access at {hub.url}/{T5}"):
        download("t5", out)
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(ModelError, match=r"does not accept the token given .*: look at HF_TOKEN"):
        download("t5", out)
    assert not list(out.parent.iterdir())
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert download("t5", out).fetched


def test_hub_that_is_not_there(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"the connection to http://127.0.0.1:9 failed when asked for goo"):
        download("t5", out)
    monkeypatch.setenv("HF_ENDPOINT", "hub.acme.org")
    with pytest.raises(ModelError, match=r"HF_ENDPOINT is 'hub.acme.org': it must begin with http"):
        download("t5", out)
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/elsewhere")
    with pytest.raises(ModelError, match="elsewhere answered 404 when asked for google-t5/t5-small at 'main'"):
        download("t5", out)
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/web")
    with pytest.raises(ModelError, match=r"/web is no model hub \(asked for google-t5/t5-small\)"):
        download("t5", out)
    assert not out.parent.exists()


def test_repository_without_the_needed_files(hub: Hub, source: Path, out: Path) -> None:
    for name in BASE:
        (source / name).unlink()
    (source / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        download("t5", out)
    weights, config, tokenizer = caught.value.problems
    assert "has only pytorch_model.bin: Composer reads safetensors only" in weights
    assert "convert it with https://huggingface.co/spaces/safetensors/convert" in weights
    assert "has no config.json" in config
    assert "has no tokenizer files: wanted is one of tokenizer.json" in tokenizer
    hub.offers[T5] = 3
    with pytest.raises(ModelError, match="the hub's bot has converted it: --revision refs/pr/3"):
        download("t5", out)
    assert not hub.gets()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"[]", "config.json is a list, not an object"),
        ("config.json", b"{}", "config.json has no model_type"),
        ("model.safetensors", b"version https://git-lfs", "model.safetensors is no whole safetensors file"),
    ],
)
def test_files_that_will_not_do(hub: Hub, source: Path, out: Path, name: str, content: bytes, message: str) -> None:
    (source / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{T5} at {hub.commit(T5)[:12]}: {message}"):
        download("t5", out)
    assert not list(out.parent.iterdir())
    assert not any("/cdn/" in line for line in hub.asked) or name == "model.safetensors"


def test_index_that_does_not_fit(hub: Hub, source: Path, out: Path) -> None:
    write_shards(source, named=3)
    with pytest.raises(ModelError, match=r"index.json names model-00003-of-00002.safetensors, which .* lacks"):
        download("t5", out)
    (source / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match=r"index.json names no shards"):
        download("t5", out)


def test_full_disk(hub: Hub, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    save_file({"shared.weight": np.ones((1000, 8), np.float32)}, source / "model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 9_000}))
        with pytest.raises(OutputError, match=r"needs 32,\d+ bytes, free on the disk are 9,000"):
            download("t5", out)
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "hf_hub_download", full)
        with pytest.raises(OutputError, match=r"the disk is full: .*base was not written"):
            download("t5", out)
    assert not list(out.parent.iterdir())
    with pytest.raises(OutputError, match=r"below: cannot be written: "):
        download("t5", source / "config.json" / "below")


def test_broken_transfer_leaves_nothing_and_can_be_repeated(hub: Hub, out: Path) -> None:
    hub.cut.add("model.safetensors")
    hub.down.add("model.safetensors")
    with pytest.raises(ModelError, match=f"(answered 500|failed) when asked for {T5}"):
        download("t5", out)
    assert not hub.cut
    assert not list(out.parent.iterdir())
    hub.down.clear()
    assert download("t5", out).fetched


def test_interrupt_leaves_the_old_folder(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download("t5", out)
    before, real = names(out), huggingface_hub.hf_hub_download

    def interrupted(repo: str, name: str, **options: Any) -> str:
        if name == "model.safetensors":
            raise KeyboardInterrupt
        return real(repo, name, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download("t5", out, force=True)
    assert os.listdir(out.parent) == ["base"]
    assert names(out) == before


def test_offline_uses_what_is_there(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.snapshot_download(T5, endpoint=hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set and acme/toy at 'main' is not in the local cache"):
        download("acme/toy", out)
    got = download("t5", out)
    assert (got.commit, names(out)) == (hub.commit(T5), sorted([*BASE, RECORD]))
    shutil.rmtree(constants.HF_HUB_CACHE)
    assert not download("t5", out).fetched
    assert not hub.asked


def test_quiet_switches_the_bars_off_for_the_time(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = set(), huggingface_hub.hf_hub_download

    def watched(*args: Any, **options: Any) -> str:
        seen.add(are_progress_bars_disabled())
        return real(*args, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", watched)
    download("t5", out, quiet=True)
    assert seen == {True}
    assert not are_progress_bars_disabled()


def test_own_process_reads_the_environment(hub: Hub, out: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from composer.models.hub import download\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        "print(download('t5', Path(sys.argv[1])).commit)"
    )
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code, str(out)], env=env, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (hub.commit(T5), "")
    assert names(out) == sorted([*BASE, RECORD])


def test_folder_loads_with_transformers(hub: Hub, out: Path) -> None:
    transformers = pytest.importorskip("transformers")
    download("t5", out)
    assert transformers.AutoConfig.from_pretrained(out).d_model == 8
    assert transformers.AutoTokenizer.from_pretrained(out)("good day")["input_ids"]


def test_an_id_stands_for_a_model_in_every_command(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distilbert_folder: Path
) -> None:
    hub.folders["acme/small"] = distilbert_folder
    monkeypatch.chdir(tmp_path)
    base = BaseModel("acme/small")
    assert (base.name, base.fingerprint) == ("acme/small", BaseModel(distilbert_folder).fingerprint)
    assert base.folder.is_relative_to(constants.HF_HUB_CACHE)
    conf = composer.generate_config(composer.Recipe(model="acme/small", folder=tmp_path / "run")).output
    assert json.loads(conf.read_text())["model"] == "acme/small"

    assert len([line for line in hub.asked if line.startswith("GET /api/models/acme/small")]) == 1
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert BaseModel("acme/small").load() is not None
    assert not hub.asked
    with pytest.raises(ModelError, match="acme/other: no such model folder, and no model of the hub: HF_HUB_OFFLINE"):
        BaseModel("acme/other")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ModelError, match=r"acme/other: no such model folder, .*: no model acme/other at"):
        BaseModel("acme/other")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert BaseModel("acme/small").folder == base.folder


def test_what_is_made_of_a_model_of_the_hub_is_named_by_its_id(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distilbert_folder: Path
) -> None:
    hub.folders["acme/small"] = distilbert_folder
    monkeypatch.chdir(tmp_path)
    base = BaseModel("acme/small")
    assert BaseModel(base.folder).title == base.title == "acme/small"  # also by its folder in the cache
    card = model_card(Making(base, "composed"), None, 0.5)
    assert "\nbase_model: acme/small\n" in card
    assert "\n# acme/small, 50.0% of target weights removed\n" in card
    assert base.beside("-shrunk") == Path("small-shrunk")  # in the working folder
    space = Workspace(composer.Recipe(model=str(distilbert_folder), folder=tmp_path / "run"))
    assert space.result_file(base).name == "small.json"
    with ExitStack() as files:
        assert [source.name for source in open_sources(["acme/small", "acme/small"], files)] == ["acme/small"] * 2


def test_a_path_that_was_misspelt_is_not_asked_for(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match=r"models/bse: no such model folder \(`compose download` brings one"):
        BaseModel("models/bse")
    assert not hub.asked
