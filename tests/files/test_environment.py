"""Versions and machine, as records keep them."""

from __future__ import annotations

import json
import os
import platform
import socket
from pathlib import Path

import pytest
import torch

import composer
from composer.files.environment import machine, versions


def test_versions_are_those_that_run() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["composer"] == composer.__version__
    assert {"transformers", "safetensors", "numpy"} <= found.keys()


def test_the_package_knows_its_version_under_whatever_name_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a clone it is not installed at all, and another distribution is called composer."""
    asked: list[str] = []
    monkeypatch.setattr("composer.files.environment.version", lambda name: asked.append(name) or "0")
    assert versions()["composer"] == composer.__version__
    assert asked
    assert not [name for name in asked if "composer" in name]


def test_the_machine_has_no_name_and_no_paths() -> None:
    found = machine()
    assert found["cores"] == os.cpu_count()
    assert found["threads"] == torch.get_num_threads()
    assert found["memory_gib"] > 0
    text = json.dumps(found)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
