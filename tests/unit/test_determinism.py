"""What a run promises about its bits, in its first lines and in its folder."""

import pytest
import torch
from toys import digest, draw, one_thread, start

from skipway.data.patience import patiently
from skipway.errors import DataError, Interrupted, UsageError
from skipway.runs import Run
from skipway.training.determinism import going_on, level


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    one_thread()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data"))


class Heard(list):
    """Events; stops the training after a step by a signal's way, an exception of the hook."""

    def __call__(self, event):
        self.append(event)

    def line(self, name):
        return next(e["text"] for e in self if e["event"] == "line" and e["name"] == name)

    def warnings(self):
        return [e["text"] for e in self if e["event"] == "warning"]


def stopped(data, run, step=2):
    import os
    import signal

    heard = Heard()

    def hear(event):
        heard(event)
        if event.get("step") == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        start(data, run, event=hear, steps=4)
    return heard


def test_on_one_machine_it_is_exact_and_stays_so(data, tmp_path):
    heard = stopped(data, tmp_path / "run")
    assert heard.line("repeats").startswith("exact (cpu, 1 thread): ")
    assert Run(tmp_path / "run").read("run")["level"] == "exact (cpu, 1 thread)"
    again = Heard()
    start(data, tmp_path / "run", event=again, steps=4)
    assert again.line("repeats") == heard.line("repeats")
    assert not [text for text in again.warnings() if "statistical" in text]


def test_resumed_elsewhere_it_is_statistical_and_never_exact_again(data, tmp_path):
    run = tmp_path / "run"
    stopped(data, run)
    torch.set_num_threads(2)
    try:
        elsewhere = stopped(data, run, step=3)
    finally:
        torch.set_num_threads(1)
    assert elsewhere.line("repeats").startswith("statistical resume (threads 1 (now 2)): ")
    assert "statistical resume (threads 1 (now 2))" in elsewhere.warnings()
    back = Heard()
    start(data, run, event=back, steps=4)
    assert back.line("repeats").startswith("statistical resume (threads 1 (now 2)): ")
    assert Run(run).read("run")["level"].startswith("statistical")
    assert "exact" not in Run(run).read("run")["level"]


def test_a_finished_run_keeps_its_level_wherever_it_is_looked_at(data, tmp_path):
    start(data, tmp_path / "run", steps=2)
    torch.set_num_threads(2)
    try:
        heard = Heard()
        start(data, tmp_path / "run", steps=2, event=heard)
    finally:
        torch.set_num_threads(1)
    assert heard.line("repeats").startswith("exact (cpu, 1 thread): ")


def test_a_gpu_is_exact_with_deterministic_algorithms_only():
    cuda = torch.device("cuda")
    assert level(cuda) == "statistical (cuda without deterministic algorithms)"
    torch.use_deterministic_algorithms(True)
    try:
        assert level(cuda) == "exact (gpu)"
        assert level(torch.device("mps")).startswith("statistical")
    finally:
        torch.use_deterministic_algorithms(False)


def test_another_release_of_torch_is_statistical():
    found = going_on("exact (cpu, 2 threads)", "exact (cpu, 2 threads)", ["torch 2.9.0 (now 2.10.0)"])
    assert found == "statistical resume (torch 2.9.0 (now 2.10.0))"


@pytest.mark.parametrize("workers", [0, 4])
def test_workers_change_no_bit_and_are_none_of_what_makes_a_command_the_same(data, tmp_path, workers):
    from toys import TINY, order_of

    from skipway import api
    from skipway.request import Request

    request = Request(**{**TINY, "steps": 4})
    order = order_of(data, tmp_path / "many", request)
    other = api.Order(**{**vars(order), "workers": workers})
    api.train_run(other, lambda _: None)
    start(data, tmp_path / "one", steps=4)
    assert digest(tmp_path / "many") == digest(tmp_path / "one")
    assert other.asked == order.asked


def test_workers_that_cannot_be_are_refused(data, tmp_path):
    from toys import skipway

    code, _, said = skipway("train", data / "images", data / "masks", "-o", tmp_path / "x", "--workers", "-1")
    assert code == 2
    assert "--workers: found -1, expected 0 to 256" in said
    assert UsageError.exit_code == 2


def test_a_read_that_never_ends_names_its_files(tmp_path):
    from threading import Event

    with pytest.raises(DataError, match=r"slow\.tif or .*mask\.tif: took more than 0 s to read") as caught:
        patiently(Event().wait, [tmp_path / "slow.tif", tmp_path / "mask.tif"], 0.1)
    assert caught.value.problems[0].code == "F20"
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 // 0, [])
