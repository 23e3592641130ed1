"""What identifies a model's weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from composer.errors import ModelError
from composer.files.safetensors import fingerprint, tensor_entries

TENSORS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([1, 2], dtype=np.int64),
    "c": np.zeros((0, 4), dtype=np.float16),
    "d": np.array(2.5, dtype=np.float64),
}
DTYPES = {"float32": "F32", "int64": "I64", "float16": "F16", "float64": "F64"}


def write(folder: Path, tensors: dict[str, np.ndarray] = TENSORS, **metadata: str) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata=metadata or None)
    return folder


def shard(folder: Path, *parts: list[str]) -> Path:
    folder.mkdir()
    where = {}
    for i, part in enumerate(parts):
        name = f"model-{i}.safetensors"
        save_file({key: TENSORS[key] for key in part}, folder / name)
        where |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def by_hand() -> str:
    digest = hashlib.sha256()
    for name in sorted(TENSORS):
        value = TENSORS[name]
        digest.update(f"{name}\0{DTYPES[str(value.dtype)]}\0{value.shape}\0".encode() + value.tobytes())
    return digest.hexdigest()


def test_it_is_the_sha256_over_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    assert fingerprint(write(tmp_path / "one")) == by_hand()


def test_order_metadata_and_shards_do_not_count(tmp_path: Path) -> None:
    turned = {name: TENSORS[name] for name in reversed(TENSORS)}
    assert fingerprint(write(tmp_path / "turned", turned, format="pt", note="other")) == by_hand()
    assert fingerprint(shard(tmp_path / "sharded", ["d", "b.weight"], ["a", "c"])) == by_hand()


@pytest.mark.parametrize(
    "change",
    [
        {"a": np.array([1, 3], dtype=np.int64)},
        {"a": np.array([1, 2], dtype=np.uint64)},
        {"a": np.array([[1, 2]], dtype=np.int64)},
        {"e": np.zeros(1, dtype=np.float32)},
        {"b.weight": -TENSORS["b.weight"]},  # differs in -0.0 and in signs
        {"c": np.zeros((0, 5), dtype=np.float16)},
    ],
)
def test_any_other_content_changes_it(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    assert fingerprint(write(tmp_path / "other", {**TENSORS, **change})) != by_hand()


def test_a_tensor_less_or_renamed_changes_it(tmp_path: Path) -> None:
    fewer = {name: value for name, value in TENSORS.items() if name != "a"}
    assert fingerprint(write(tmp_path / "fewer", fewer)) != by_hand()
    assert fingerprint(write(tmp_path / "renamed", {**fewer, "A": TENSORS["a"]})) != by_hand()


def test_entries_say_what_is_in_the_files(tmp_path: Path) -> None:
    entries = tensor_entries(shard(tmp_path / "sharded", ["d", "b.weight"], ["a", "c"]))
    assert [(e.name, e.dtype, e.shape, e.size) for e in entries] == [
        ("a", "I64", (2,), 2),
        ("b.weight", "F32", (2, 3), 6),
        ("c", "F16", (0, 4), 0),
        ("d", "F64", (), 1),
    ]


def test_weights_other_than_safetensors_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(
        ModelError,
        match=r"no model.safetensors; got only pytorch_model.bin, tf_model.h5; weights are read from safetensors only",
    ):
        fingerprint(tmp_path)


def test_folders_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model.safetensors; got none"):
        fingerprint(tmp_path)
    with pytest.raises(ModelError, match="no such model folder"):
        fingerprint(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file; a model folder is needed"):
        fingerprint(tmp_path / "file")


def test_missing_shards_are_all_named(tmp_path: Path) -> None:
    folder = shard(tmp_path / "sharded", ["a"], ["b.weight"], ["c", "d"])
    (folder / "model-0.safetensors").unlink()
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        fingerprint(folder)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        str(folder / "model-0.safetensors"),
        str(folder / "model-2.safetensors"),
    ]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "\xff"])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"model.safetensors.index.json: "):
        fingerprint(tmp_path)


def header(value: object, *, data: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file"),
        (b"1234", "not a safetensors file"),
        (b"\xff" * 64, "not a safetensors file: header longer than the file"),
        (b"\x04" + b"\0" * 7 + b"\xff\xfe{}", "not a safetensors file"),
        (header([1]), "not a safetensors file"),
        (header({"a": 3}), "not a safetensors file"),
        (header({"a": {"dtype": "F32", "shape": [1]}}), "not a safetensors file"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}), "not a safetensors file"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}}), "not a safetensors file"),
        (header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, data=b"1234"), "truncated"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=rf"model.safetensors: {message}"):
        fingerprint(tmp_path)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    file = write(tmp_path / "model") / "model.safetensors"
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"not a safetensors file|truncated"):
            fingerprint(file.parent)
