"""Writing a model in another form, through transformers' own exporters and CTranslate2's converter."""

from __future__ import annotations

import copy
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OutputError
from ..files.records import RECORD, record, write_record
from ..models.exports import DECODER, ENCODER, RUNTIMES, TRANSLATOR, Form, check_packages
from ..models.folder import BaseModel
from ..models.shapes import KEY, SIMPLE
from .llama_cpp import FILE, check_gguf, write_gguf

if TYPE_CHECKING:
    from torch import Tensor, nn

BESIDE = (".json", ".txt", ".model", ".spm")
"""Suffixes of what stands beside a model's weights and goes with it."""
SAMPLE = (2, 8)
"""Batch size and length of the tokens that a graph is traced with; any others run as well."""


def check_form(base: BaseModel, form: Form) -> None:
    """Refuse, before anything is loaded, what the form cannot hold.

    Raises:
        OutputError: no such form, or another kind of model.
        ModelError: packages are missing.
    """
    if form not in RUNTIMES:
        raise OutputError(f"--to: got {form!r}; allowed: {', '.join(RUNTIMES)}")
    if base.export:
        raise OutputError(f"{base.name}: {base.export.can}; export the model that it was made from")
    translates = bool(base.config.get("is_encoder_decoder"))
    architecture = (base.config.get("architectures") or [""])[0]
    if form in ("ct2", "ct2-int8", "gguf") and base.config.get(SIMPLE):
        raise OutputError(f"--to: got {form}, and norms of {base.name} are a scale and a shift; use onnx or openvino")
    if form in ("ct2", "ct2-int8"):
        if not translates or "Classification" in architecture:
            raise OutputError(f"--to: got {form}, which is for translation; {base.name} is a {architecture}; use onnx")
        if (base.config.get(KEY) or {}).get("heads"):
            raise OutputError(
                f"--to: got {form}, which takes the same heads in every layer of a stack, and {base.name} has others; "
                "shrink its neurons only (any number in each layer), or with --form padded"
            )
    elif form == "gguf":
        check_gguf(base)
    if base.storage.library != "transformers":
        raise OutputError(f"{base.name}: is a model of {base.storage.library}; models of transformers can be exported")
    check_packages(form)


def convert(base: BaseModel, form: Form, folder: Path) -> nn.Module:
    """Write ``base`` into the empty ``folder``, with tokenizer, configuration and a record; returns the model.

    Raises:
        ModelError: the exporter cannot do this model.
    """
    model = base.load()
    write = _translate if form in ("ct2", "ct2-int8") else _gguf if form == "gguf" else _graph
    try:
        with _silence():
            write(base, model, form, folder)
    except (ValueError, RuntimeError, NotImplementedError, KeyError, AttributeError, TypeError) as bad:
        reason = (str(bad).splitlines() or [type(bad).__name__])[0]
        raise ModelError(f"{base.name}: cannot be exported to {form}: {reason}") from bad
    for path in sorted(base.folder.iterdir()):  # configuration, tokenizer, settings of generation: all but the weights
        if path.is_file() and path.suffix in BESIDE and path.name != RECORD and ".safetensors" not in path.name:
            shutil.copyfile(path, folder / path.name)
    export = {"form": form, "source": base.name, "fingerprint": base.fingerprint}
    write_record(folder, record({"model": base.fingerprint, "to": form}, export=export))
    return model


def _graph(base: BaseModel, model: Any, form: Form, folder: Path) -> None:
    """One graph with logits, for any batch size and length; of a translator two, for encoder and decoder."""
    inputs = dict(_sample(base))
    if not (base.config.get("is_encoder_decoder") and model.can_generate()):
        _exported(model, inputs, form).save_pretrained(folder)
        return
    save = _save_through_onnx if form == "openvino" else _save
    import torch

    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = model.get_encoder()(**given).last_hidden_state
    # Of a single token the length would be taken for a constant.
    step = {"decoder_input_ids": given["input_ids"][:, :3].contiguous(), "attention_mask": given["attention_mask"]}
    save(model.get_encoder(), given, form, folder / ENCODER)
    save(model, {**step, "encoder_outputs": (states,)}, form, folder / DECODER)


def _save(model: Any, inputs: dict[str, Any], form: Form, folder: Path) -> None:
    _exported(model, inputs, form).save_pretrained(folder)


def _save_through_onnx(model: Any, inputs: dict[str, Any], form: Form, folder: Path) -> None:
    """OpenVINO's graph of a part of a translator, made from the one in ONNX.

    What OpenVINO 2026.4.1 makes of PyTorch's own graph of a decoder corrupts the process's memory; its reader of ONNX
    does not look at that.
    """
    import openvino
    from transformers.exporters import ExportedModel
    from transformers.exporters.base import ExportedComponent
    from transformers.exporters.configs import ExportFormat

    graph = _exported(model, inputs, "onnx")
    with TemporaryDirectory(dir=folder.parent) as place:  # OpenVINO reads weights from there until it has saved them
        graph.save_pretrained(place)
        program = openvino.convert_model(Path(place) / "model.onnx")
        part = ExportedComponent(program, graph.components["model"].metadata)
        ExportedModel({"model": part}, ExportFormat.OPENVINO, config=graph.config).save_pretrained(folder)


def _exported(model: Any, inputs: dict[str, Any], form: Form) -> Any:
    """What transformers' exporter makes of a model that is called like this."""
    if form == "openvino":
        from transformers.exporters import OpenVINOConfig, OpenVINOExporter

        return OpenVINOExporter().export(model, inputs, config=OpenVINOConfig(dynamic=True))
    from transformers.exporters import OnnxConfig, OnnxExporter

    config = OnnxConfig(dynamic=True, quantizer=_int8() if RUNTIMES[form].int8 else None)
    return OnnxExporter().export(model, inputs, config=config)


def _gguf(base: BaseModel, model: Any, _: Form, folder: Path) -> None:
    write_gguf(base, model, folder / FILE)


def _int8() -> Any:
    """8-bit weights, a scale for each output; in 7 bits where the processor's sums of products would overflow.

    Without VNNI two products of 8-bit numbers are added in 16 bits, which may not hold them (ONNX Runtime's
    documentation of quantization, section on ``reduce_range``).
    """
    from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    return OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True, reduce_range=not has_vnni()))


def has_vnni() -> bool:
    """Whether this processor adds products of 8-bit numbers in 32 bits (VNNI, or not an x86 at all)."""
    import platform

    if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
        return True
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in text or "avx_vnni" in text


def _sample(base: BaseModel) -> Mapping[str, Tensor]:
    """Tokens to trace with; with token types where the tokenizer gives them to the model."""
    import torch
    from transformers import AutoTokenizer

    from ..tasks import load_tokenizer

    tokenizer: AutoTokenizer = load_tokenizer(base.folder)
    names = [name for name in tokenizer.model_input_names if name in ("input_ids", "token_type_ids", "attention_mask")]
    vocabulary = int(base.config.get("vocab_size") or 2)
    ids = torch.arange(SAMPLE[0] * SAMPLE[1]).reshape(SAMPLE) % vocabulary
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: values[name] for name in dict.fromkeys([*names, "attention_mask"])}


def _translate(base: BaseModel, model: Any, form: Form, folder: Path) -> None:
    """CTranslate2's own folder. Its converter changes the model that it is given, so it gets a copy."""
    from ctranslate2.converters import TransformersConverter

    class Loaded(TransformersConverter):
        def load_model(self, *_: Any, **__: Any) -> Any:
            given = copy.deepcopy(model)
            if hasattr(given.config, "scale_decoder_outputs"):
                # Whether a T5 scales its outputs: the converter looks at a name that is always True in transformers 5.
                given.config.tie_word_embeddings = given.config.scale_decoder_outputs
            return given

    place = folder / TRANSLATOR  # it has a config.json of its own
    Loaded(str(base.folder)).convert(str(place), quantization="int8" if RUNTIMES[form].int8 else None)


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters report every step of theirs; what fails is an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
