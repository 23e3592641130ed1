"""`--cluster` on a local Ray with two workers, killed ones included: `make test-ray` (Ray is an extra)."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="Ray is not installed: `make test-ray` brings it and runs these tests")

import composer
from composer.errors import LibraryError, WorkerError
from composer.library.store import Library
from composer.parallel.ray import Cluster
from composer.recipe import Recipe
from composer.scheme.stored import load_scheme
from tests.reference import shares
from tests.reference.events import HANGING, Trap, until

pytestmark = pytest.mark.filterwarnings("ignore")

GIVEN = {
    "attention": [0.25, 0.5],
    "linear": [0.3, 0.5],
    "trainer": "least_squares",
    "calibration_size": 24,
    "block": {"valid_size": 6},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    os.environ["OMP_NUM_THREADS"] = "1"
    made = Cluster("local", 2, device="cpu")
    yield made
    made.close()


@pytest.fixture
def cwd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nothing() -> None:
    """Watches nothing."""


def workers() -> list[psutil.Process]:
    """Ray's processes that are in a task of ours."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.is_running() and "ray::_within" in " ".join(_words(process))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_results_come_in_order_from_several_workers(cluster: Cluster, tmp_path: Path) -> None:
    told = cluster.run(shares.which, [tmp_path] * 4, nothing)
    assert len({pid for pid, _ in told} - {os.getpid()}) >= 2  # more where the machine has more cores
    assert {threads for _, threads in told} == {"1"}
    assert cluster.run(shares.square, [3, 1, 2], nothing) == [9, 1, 4]


def test_the_share_of_a_killed_worker_is_done_again_and_no_other(cluster: Cluster, tmp_path: Path) -> None:
    names = ["quick", "mortal", "late"]
    assert cluster.run(shares.die_once, [(tmp_path, name) for name in names], nothing) == names
    assert [(tmp_path / f"{name}.begun").read_text() for name in names[:2]] == [".", ".."]


def test_a_work_that_kills_every_worker_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^--cluster: 4 times a worker died; finished work is kept$"):
        cluster.run(shares.die, [tmp_path], nothing)
    assert (tmp_path / "begun").read_text() == "...."


def test_errors_come_back_as_they_are(cluster: Cluster) -> None:
    with pytest.raises(LibraryError) as lacking:
        cluster.run(shares.lack, [1], nothing)
    assert lacking.value.problems == ("a.safetensors: damaged", "b.safetensors: no such block")
    with pytest.raises(RuntimeError, match="Peculiar: this and that"):
        cluster.run(shares.err, [1], nothing)


@pytest.mark.parametrize("ours", [True, False])
def test_ctrl_c_ends_tasks_in_the_middle(cluster: Cluster, tmp_path: Path, ours: bool) -> None:
    """Also where the connection is another's, and stays."""
    cluster.run(shares.square, [1], nothing)
    used = cluster if ours else Cluster("local", 2, device="cpu")

    def impatient() -> None:
        if [*tmp_path.glob("*.pid")]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        used.run(shares.sleep, [tmp_path], impatient)
    used.close(at_once=True)
    assert workers_are_free(tmp_path)


def workers_are_free(folder: Path) -> bool:
    """Whether no worker is in the task that left its number in ``folder`` any more."""
    pids = [int(path.stem) for path in folder.glob("*.pid")]
    until(lambda: not any(process.pid in pids for process in workers()))
    return bool(pids)


def recipe(folder: str, model: Path, data: Path, **given: object) -> Recipe:
    made = composer.load_recipe(
        given={"model": str(model), "data": str(data), "folder": folder, **GIVEN, **given}, file=False
    )
    composer.generate_config(made)
    composer.generate_scheme(made)
    composer.prune(made)
    return made


def blocks(folder: str) -> dict[str, str]:
    library = Path(folder) / "modules" / "finetuned"
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in library.glob("*.safetensors")}


class Killer(threading.Thread):
    """Kills a worker of two in the middle of a block, in whose place a trap is laid.

    Whoever is caught holds the library's lock: the other cannot end its share either.
    """

    def __init__(self, folder: str, traps: Iterable[str]) -> None:
        super().__init__(daemon=True)
        self.library, self.seen, self.workers = Library(Path(folder) / "modules" / "finetuned"), 0, 0
        self.traps = [Trap(self.library.path(address)) for address in traps]
        self.start()

    def run(self) -> None:
        until(lambda: any(trap.caught() for trap in self.traps))
        caught = next(trap for trap in self.traps if trap.caught())
        for trap in self.traps:
            if trap is not caught:  # before the lock is free again
                trap.remove()
        until(lambda: len(workers()) == 2)
        found = workers()
        self.workers, self.seen = len(found), sum(1 for _ in self.library.folder.glob("*.stats.json"))
        os.kill(found[0].pid, signal.SIGKILL)
        caught.remove()


def test_two_workers_of_which_one_is_killed_end_in_the_bytes_of_one_process(
    cluster: Cluster, t5_folder: Path, translation_data: Path, cwd: Path
) -> None:
    composer.finetune_blocks(recipe("alone", t5_folder, translation_data))
    spread = recipe("spread", t5_folder, translation_data, jobs=2, cluster="local")
    scheme = load_scheme(Path("alone") / "conf_prune.json")
    (manifest,) = Library(Path("alone") / "modules" / "finetuned").manifests().values()
    # In the second wave, so that there is finished work to be kept.
    killer = Killer("spread", {manifest["addresses"][node.hash] for node in scheme.at("sublayer")})

    done = composer.finetune_blocks(spread)

    killer.join(HANGING)
    assert blocks("spread") == blocks("alone")
    assert killer.workers == 2
    assert 0 < killer.seen < done.summary["tuned"]


def test_an_error_of_a_worker_names_the_block(
    cluster: Cluster, t5_folder: Path, translation_data: Path, cwd: Path
) -> None:
    place = recipe("damaged", t5_folder, translation_data, jobs=2, cluster="local", targets=["encoder.block.0.*.wi"])
    library = Library(Path("damaged") / "modules" / "pruned")
    path = library.path(next(library.addresses()))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LibraryError, match=rf"^{path}: damaged: its sha256 is not the one"):
        composer.finetune_blocks(place)


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:1", r"\(.*[Cc]onnection refused\)"), ("loca", r"\(no host and port\).*mean 'local'\?")],
)
def test_an_address_where_nobody_answers(cluster: Cluster, address: str, why: str) -> None:
    cluster.close()
    with pytest.raises(WorkerError, match=rf"^--cluster: got '{address}', where no Ray cluster answers {why}"):
        Cluster(address, 2, device="cpu").run(shares.square, [1], nothing)


def test_a_running_cluster_is_joined_and_left_as_it_is(cluster: Cluster, tmp_path: Path) -> None:
    """The cluster of another process: a head node and a second one, each with one core."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    cluster.close()
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    try:
        joined = Cluster(nodes.address, 2, device="auto")
        told = joined.run(shares.which, [tmp_path] * 4, nothing)
        assert len({pid for pid, _ in told}) == 2
        joined.close()
        assert not ray.is_initialized()
        ray.init(address=nodes.address, logging_level="ERROR")
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    finally:
        ray.shutdown()
        nodes.shutdown()
