"""Folders that `compose export` wrote: what they are, what runs them, which packages that needs. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..errors import ModelError
from ..files.jsonfile import read_json
from ..files.records import RECORD

Form = Literal["onnx", "onnx-int8", "openvino", "ct2", "ct2-int8", "gguf"]


@dataclass(frozen=True)
class Runtime:
    """What runs a form.

    Attributes:
        runs: module of :mod:`composer.models.runtimes` and class in it; empty for what nobody runs from here.
        extra: of this distribution, which brings the packages.
        packages: modules that must be there: to write it, and those of them that it takes to run it.
        int8: whether weights are stored in 8 bits.
    """

    title: str
    runs: str
    extra: str
    packages: tuple[str, ...]
    running: tuple[str, ...]
    int8: bool = False


_ONNX = ("onnx", "onnxscript", "onnxruntime")
RUNTIMES: Mapping[Form, Runtime] = {
    "onnx": Runtime("ONNX Runtime", "OnnxModel", "onnx", _ONNX, _ONNX),
    "onnx-int8": Runtime("ONNX Runtime, int8", "OnnxModel", "onnx", _ONNX, _ONNX, int8=True),
    # A translator's graphs reach OpenVINO by way of ONNX.
    "openvino": Runtime("OpenVINO", "OpenVinoModel", "openvino", ("openvino", "onnx", "onnxscript"), ("openvino",)),
    "ct2": Runtime("CTranslate2", "TranslateModel", "translate", ("ctranslate2",), ("ctranslate2",)),
    "ct2-int8": Runtime(
        "CTranslate2, int8", "TranslateModel", "translate", ("ctranslate2",), ("ctranslate2",), int8=True
    ),
    "gguf": Runtime("llama.cpp", "", "gguf", ("gguf",), ()),
}
"""The forms that a model can be exported to."""


ENCODER, DECODER = "encoder", "decoder"
"""Folders inside an export that hold the graphs of a translator."""
TRANSLATOR = "ctranslate2"
"""Folder inside an export that CTranslate2 reads."""


@dataclass(frozen=True)
class Export:
    """What the record of an exported folder says.

    ``source`` is the model that it was made from, ``fingerprint`` its weights'.
    """

    form: Form
    source: str
    fingerprint: str

    @property
    def runtime(self) -> Runtime:
        """What runs it."""
        return RUNTIMES[self.form]

    @property
    def can(self) -> str:
        """What such a folder is good for, for refusals of everything else."""
        runs = "it can be evaluated, predict and be timed" if self.runtime.runs else f"{self.runtime.title} runs it"
        return f"is an export for {self.runtime.title}: {runs}"


def export_of(folder: Path) -> Export | None:
    """What is exported there; None for a folder of any other kind.

    Raises:
        ModelError: an export of a form that this version does not know.
    """
    record = folder / RECORD
    if not record.is_file() or any(folder.glob("model*.safetensors")):
        return None
    content = read_json(record, ModelError)
    said = content.get("export") if isinstance(content, dict) else None
    if not isinstance(said, dict):
        return None
    if said.get("form") not in RUNTIMES:
        raise ModelError(f"{record}: form: got {said.get('form')!r}; allowed: {', '.join(RUNTIMES)}")
    return Export(said["form"], str(said.get("source")), str(said.get("fingerprint")))


def check_packages(form: Form, *, running: bool = False) -> None:
    """Refuse a form whose packages are not there.

    Args:
        running: only those that it takes to run what is exported.

    Raises:
        ModelError: in one line, with what to install.
    """
    runtime = RUNTIMES[form]
    needed = runtime.running if running else runtime.packages
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"{form}: needs {', '.join(missing)}, not installed; pip install 'composer-pruning[{runtime.extra}]'"
        )


def export_files(folder: Path) -> list[Path]:
    """The files of an export, without the record."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)


def export_fingerprint(folder: Path) -> str:
    """sha256 over the files of an export and their names."""
    digest = hashlib.sha256()
    for path in export_files(folder):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def program_bytes(folder: Path) -> int:
    """Bytes of what the runtime reads: programs and weights, without tokenizer and configuration."""
    weights = (".onnx", ".data", ".bin", ".xml", ".gguf")
    return sum(path.stat().st_size for path in export_files(folder) if path.suffix in weights)
