"""Common sense on real files, by Composer and by lm-eval's own run of the same files and model: the same figures?

    python benchmarks/lm_eval_parity.py MODEL [--data ../shared/data] [--limit 100] [-o .bench/parity]

Needs ``pip install 'composer-pruning[eval]'``. Prints, task by task, both accuracies and the largest difference of
a log-likelihood; exit status 1 where figures differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from composer.cli.app import call
from composer.files.environment import machine, versions
from composer.files.jsonfile import read_json, write_text

ASKED = "'Question: ' + question + '\\nAnswer:'"
TASKS = {
    "openbookqa": ("question", "choices", "answer"),
    "piqa": (ASKED, "choices", "answer"),
    "boolq": ("passage + '\\nQuestion: ' + question + '?\\nAnswer:'", "['no', 'yes']", "answer | int"),
}
"""Task -> prompt, choices and right answer as lm-eval's templates have them."""
YAML = """task: {name}_here
dataset_path: json
dataset_kwargs:
  data_files: {{validation: {file}}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{ {text} }}}}"
doc_to_target: "{{{{ {answer} }}}}"
doc_to_choice: "{{{{ {choices} }}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


def theirs(model: str, data: Path, limit: int, folder: Path) -> dict[str, Any]:
    """What lm-eval makes of the same files by itself."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    for name, (text, choices, answer) in TASKS.items():
        said = YAML.format(
            name=name,
            file=(data / f"csr/{name}.jsonl").resolve(),
            text=text.replace("\\", "\\\\"),
            choices=choices,
            answer=answer,
        )
        write_text(folder / f"{name}.yaml", said)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    names = [f"{name}_here" for name in TASKS]
    more: dict[str, Any] = {"limit": limit, "bootstrap_iters": 0, "log_samples": True, "device": "cpu"}
    tokenizer = AutoTokenizer.from_pretrained(model)
    nameless = tokenizer.bos_token_id is None and tokenizer.eos_token_id is None
    prefix = f",prefix_token_id={tokenizer.pad_token_id or 0}" if nameless else ""  # or it dies of a missing token
    found = lm_eval.simple_evaluate(
        "hf", f"pretrained={model},dtype=float32{prefix}", names, task_manager=manager, **more
    )
    assert found
    return dict(found)


def main() -> int:
    """Both sides in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/parity"))
    given = parser.parse_args()
    print("machine:", machine(), "\nversions:", versions(), flush=True)
    words = ["--suite-data", str(given.data), "--limit", str(given.limit), "-o", str(given.output / "ours")]
    if status := call(["evaluate", given.model, "--tasks", ",".join(TASKS), *words]):
        return status
    found = theirs(given.model, given.data, given.limit, given.output / "tasks")
    wrong = 0
    for name in TASKS:
        place = next((given.output / "ours").glob(f"*/{name}.json"))
        ours = [measure["value"] for measure in read_json(place)["result"]["measures"]]
        other = [found["results"][f"{name}_here"][key] for key in ("acc,none", "acc_norm,none")]
        samples = [json.loads(line) for line in place.with_suffix(".jsonl").read_text("utf-8").split("\n") if line]
        by_row = {s["doc_id"]: [one[0][0] for one in s["resps"]] for s in found["samples"][f"{name}_here"]}
        pairs = [(a, b) for s in samples for a, b in zip(s["log_likelihoods"], by_row[s["id"]], strict=True)]
        apart = max(abs(a - b) for a, b in pairs)
        wrong += ours != other or apart > 1e-3
        print(f"{name}: ours {ours}, lm-eval {other}; {len(pairs):,} log-likelihoods differ by at most {apart:.1e}")
    print(f"\nrepeat with: python {' '.join(sys.argv)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
