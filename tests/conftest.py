"""Tiny models, a tiny tokenizer and tiny data, shared by the session.

Every model is made from a configuration with a seed and saved as an ordinary Hugging Face folder; nothing
is downloaded.

Three rules that every test here follows:

1. It waits for an event, never for a time: a file, a pipe, a line on standard output, another process that has come
   (``tests/reference/events.py``); a process that must die does so at a point of its work
   (``tests/reference/nursery.py``). The only bound is ``HANGING``, which no machine is slow enough to reach. What is
   about times has a clock of its own: a patched one, or one that counts the work (``tests/reference/work_clock.py``).
   A pause may make a mistake easier to see; a test of what is right passes whatever a pause takes.
2. Its outcome depends on nothing but the code: not on the load, the number of cores, the machine's rounding (a loss
   that must rise has a rate that ruins every model; bytes are compared with bytes made here), or the tests before it.
3. What takes long is made once, in a fixture of the module or the session that is read only, and copied by who writes;
   folders of :data:`LONGEST` begin first, so that ``make test`` ends on all cores at once.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.reference.events import HANGING
from tests.zoo import OTHERS, ZOO, make_config

# The same examples in every run, however slow the machine; `--hypothesis-profile=default` explores others.
settings.register_profile(
    "composer", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("composer")
# The hub's client waits 10 seconds for an answer, which a busy machine may need; it reads these when it is imported.
os.environ["HF_HUB_DOWNLOAD_TIMEOUT"] = os.environ["HF_HUB_ETAG_TIMEOUT"] = f"{HANGING:.0f}"
os.environ.pop("HF_HUB_OFFLINE", None)  # the hub of the tests is on this machine

MEMORY = Path("/dev/shm")
"""Folder in memory, where there is one: the tests write and remove some hundred thousand small files."""
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

LONGEST = ("integration", "steps", "forecast", "test_docs.py", "training", "report", "assess")
"""What takes longest, in this order: the rest is short enough to fill whatever core is free."""

SPECIALS = ("<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
SUBJECTS = {"man": "mann", "dog": "hund", "cat": "kater", "boy": "junge"}
VERBS = {"sees": "sieht", "likes": "mag", "finds": "findet"}
ADJECTIVES = {"old": "alte", "small": "kleine", "red": "rote"}
SMALL_WORDS = ("a", "the", "der", "den", "good", "bad", "film", "very", "not")
WORDS = (
    *SMALL_WORDS,
    *SUBJECTS,
    *SUBJECTS.values(),
    *VERBS,
    *VERBS.values(),
    *ADJECTIVES,
    *ADJECTIVES.values(),
)
VOCABULARY = len(SPECIALS) + len(WORDS)

Folder = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first; within them nothing changes."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        first = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        return LONGEST.index(first) if first in LONGEST else len(LONGEST)

    items.sort(key=place)


def make_tokenizer(
    template: str,
    *,
    words: Sequence[str] = WORDS,
    pair: str | None = None,
    inputs: Sequence[str] = ("input_ids", "attention_mask"),
) -> Any:
    """A word-level tokenizer; ``template`` as ``"$A </s>"``, ``pair`` as ``"[CLS] $A [SEP] $B:1 [SEP]:1"``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate([*SPECIALS, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        pair=pair or "$A $B",
        special_tokens=[(name, ids[name]) for name in SPECIALS if name in template + (pair or "")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=list(inputs),
    )


def t5_config(**changes: Any) -> Any:
    """A T5 of two layers with four heads; the inner width (16) differs from the model's (12)."""
    from transformers import T5Config

    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return T5Config(**({"vocab_size": VOCABULARY, "dropout_rate": 0.1, **sizes, **ids} | changes))


def distilbert_config(**changes: Any) -> Any:
    """A DistilBERT of two layers with four heads."""
    from transformers import DistilBertConfig

    sizes = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 128}
    return DistilBertConfig(**({"vocab_size": VOCABULARY, "pad_token_id": 0, **sizes, **_labels()} | changes))


def bert_config(**changes: Any) -> Any:
    """A BERT of two layers with four heads."""
    from transformers import BertConfig

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"vocab_size": VOCABULARY, "max_position_embeddings": 128, "pad_token_id": 0}
    return BertConfig(**({**sizes, **more, **_labels()} | changes))


def _labels() -> dict[str, Any]:
    names = ["negative", "positive"]
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def make_folder(folder: Path, architecture: str, config: Any, template: str, *, dtype: str = "float32") -> Path:
    """Save a freshly made model of ``architecture`` with its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(sum(map(ord, architecture)))
    model = getattr(transformers, architecture)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # fresh biases are all 0 and fresh norms all 1: nothing would be tested
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "T5" not in architecture and "embeddings" not in name:
                parameter.mul_(8)  # fresh weights of 0.02 make attention all but uniform
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    make_tokenizer(template, pair="[CLS] $A [SEP] $B [SEP]").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums come out the same whatever the machine's number of cores, and the cores are left to others."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_search_for_garbage() -> Iterator[None]:
    """Accelerate ends every training with one, which looks through all of torch and takes a third of a second."""
    from accelerate.utils import memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "gc", SimpleNamespace(collect=lambda: 0))
        yield


@pytest.fixture(scope="module", autouse=True)
def _what_is_imported_is_no_garbage() -> None:
    """What is there before a file's tests, modules above all, lives on: searches for garbage look at it no more."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """What a process has written outlives it; only a power cut, which no test can make, needs more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def _progress_bars_as_before() -> Iterator[None]:
    """Loading a model switches the hub's progress bars off for the whole process: not for the next test."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    yield
    if are_progress_bars_disabled():
        enable_progress_bars()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Makes (once per session) and returns the folder of a tiny model by name; read only."""
    made: dict[str, Path] = {}
    zoo = {**ZOO, **OTHERS}
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    recipes: dict[str, tuple[str, Callable[[], Any], str]] = {
        "t5": ("T5ForConditionalGeneration", t5_config, "$A </s>"),
        "gated": ("T5ForConditionalGeneration", lambda: t5_config(**gated, num_decoder_layers=1), "$A </s>"),
        "mt5": ("MT5ForConditionalGeneration", _mt5_config, "$A </s>"),
        "t5-encoder": ("T5EncoderModel", t5_config, "$A </s>"),
        "t5-body": ("T5Model", t5_config, "$A </s>"),
        "distilbert": ("DistilBertForSequenceClassification", distilbert_config, "[CLS] $A [SEP]"),
        "distilbert-body": ("DistilBertModel", distilbert_config, "[CLS] $A [SEP]"),
        "bert": ("BertForSequenceClassification", bert_config, "[CLS] $A [SEP]"),
        "bert-masked": ("BertForMaskedLM", bert_config, "[CLS] $A [SEP]"),
        "bert-answering": ("BertForQuestionAnswering", bert_config, "[CLS] $A [SEP]"),
        "bert-body": ("BertModel", bert_config, "[CLS] $A [SEP]"),
    }

    def make(name: str) -> Path:
        if name not in made:
            if name in zoo:
                architecture, given = zoo[name]
                config, template = partial(make_config, architecture, given, VOCABULARY), "$A </s>"
            else:
                architecture, config, template = recipes[name]
            made[name] = make_folder(tmp_path_factory.mktemp("models") / name, architecture, config(), template)
        return made[name]

    return make


def _mt5_config() -> Any:
    from transformers import MT5Config

    return MT5Config(**{k: v for k, v in t5_config().to_dict().items() if k in _MT5_KEYS})


_MT5_KEYS = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_heads",
    "decoder_start_token_id",
    "pad_token_id",
    "eos_token_id",
)


@pytest.fixture(scope="session")
def t5_folder(model_folder: Folder) -> Path:
    """A tiny T5 for translation."""
    return model_folder("t5")


@pytest.fixture(scope="session")
def gated_folder(model_folder: Folder) -> Path:
    """A tiny T5 v1.1: gated feed-forwards, two encoder layers, one decoder layer."""
    return model_folder("gated")


@pytest.fixture(scope="session")
def mt5_folder(model_folder: Folder) -> Path:
    """A tiny mT5."""
    return model_folder("mt5")


@pytest.fixture(scope="session")
def distilbert_folder(model_folder: Folder) -> Path:
    """A tiny DistilBERT for sequence classification."""
    return model_folder("distilbert")


@pytest.fixture(scope="session")
def bert_folder(model_folder: Folder) -> Path:
    """A tiny BERT for sequence classification."""
    return model_folder("bert")


@pytest.fixture(scope="module")
def legacy_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of legacy-seq2seq, importable and, with its entry points, as if it were installed."""
    folder = Path(__file__).parent.parent / "legacy-seq2seq"
    with pytest.MonkeyPatch.context() as patch:
        install(patch, folder, tmp_path_factory.mktemp("installed"))
        yield folder


def install(patch: pytest.MonkeyPatch, folder: Path, site: Path) -> None:
    """Make the package in ``folder`` importable; ``site`` gets what an installer leaves of its pyproject.toml."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed(site, project["name"], project["version"], project["entry-points"])
    patch.syspath_prepend(folder)
    patch.syspath_prepend(site)


def installed(site: Path, name: str, version: str, points: Mapping[str, Mapping[str, str]]) -> None:
    """Leave in ``site`` what an installer leaves of a distribution: ``points`` are its entry points by group."""
    about = site / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    rows = [row for group, own in points.items() for row in (f"[{group}]", *(f"{k} = {v}" for k, v in own.items()))]
    (about / "entry_points.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def translation_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train``, ``val`` and ``test_tiny`` in ``.en`` and ``.de``: 24, 8 and 8 sentences of two lengths."""
    folder = tmp_path_factory.mktemp("translation")
    draw = random.Random(0)
    for split, size in {"train": 24, "val": 8, "test_tiny": 8}.items():
        pairs = [_sentence(draw) for _ in range(size)]
        for i, language in enumerate(("en", "de")):
            text = "".join(f"{pair[i]}\n" for pair in pairs)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


def _sentence(draw: random.Random) -> tuple[str, str]:
    subject, verb, thing = draw.choice([*SUBJECTS]), draw.choice([*VERBS]), draw.choice([*SUBJECTS])
    if draw.random() < 0.5:
        return (
            f"the {subject} {verb} a {thing}",
            f"der {SUBJECTS[subject]} {VERBS[verb]} den {SUBJECTS[thing]}",
        )
    word = draw.choice([*ADJECTIVES])
    return (
        f"the {word} {subject} {verb} the {thing}",
        f"der {ADJECTIVES[word]} {SUBJECTS[subject]} {VERBS[verb]} den {SUBJECTS[thing]}",
    )


@pytest.fixture(scope="session")
def classification_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train.tsv``, ``validation.tsv`` and ``test.tsv`` with the columns sentence and label."""
    folder = tmp_path_factory.mktemp("classification")
    draw = random.Random(0)
    for split, size in {"train": 24, "validation": 8, "test": 8}.items():
        rows = ["sentence\tlabel"]
        for i in range(size):
            word = draw.choice([*ADJECTIVES])
            subject = " ".join(draw.choices([*SUBJECTS], k=draw.randint(1, 4)))
            rows.append(f"the {word} {subject} film very {('bad', 'good')[i % 2]}\t{i % 2}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def running_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train.txt`` and ``valid.txt`` of one line each."""
    folder = tmp_path_factory.mktemp("running_text")
    for split in ("train", "valid"):
        (folder / f"{split}.txt").write_text(" ".join(random.Random(0).choices(WORDS, k=80)), encoding="utf-8")
    return folder
