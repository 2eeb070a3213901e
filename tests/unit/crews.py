"""Trainings on several processes, for the tests: a process that imports everything once and forks each of them.

    python crews.py DATA ROOT

runs every function of `SCENES` in a folder of ROOT and prints what they give as JSON.
"""

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from toys import TINY, digest, one_thread, order_of, strays

from skipway import api
from skipway.data.sampling import Batch
from skipway.errors import DataError, Problem, SkipwayError
from skipway.losses import LOSSES, each_class
from skipway.models import build
from skipway.request import Request
from skipway.runs import read_tensors
from skipway.training import prepare, schedule, session
from skipway.training.average import start_average
from skipway.training.ranks import ALONE, joined
from skipway.training.shards import divided
from skipway.training.step import learn, optimiser_of, placed
from skipway.training.together import batch_norm, whole_batch
from skipway.training.together import whole as whole_tensor

CPU = torch.device("cpu")


def crew(world, work, folder, said="said.txt", shard=False):
    """Run `work(ranks)` in `world` processes; exit codes by rank, what they wrote to standard error, seconds."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    born = [_member(rank, world, port, work, folder / said, shard) for rank in range(world)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in born]
    text = (folder / said).read_text()
    (folder / said).unlink()
    return {"codes": codes, "said": text.splitlines(), "seconds": time.monotonic() - began}


def _member(rank, world, port, work, said, shard):
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 2)
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        os.environ.update({"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}})
        with joined(shard) as ranks:
            work(ranks)
        code = 0
    except SkipwayError as error:
        os.write(2, "".join(f"{line}\n" for line in error.lines).encode())
        code = error.exit_code
    except SystemExit as error:
        code = error.code
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


# Steps alone: drawn batches, a real network, no folder.


def plan_of(model="unet", *, batch=4, size=(32, 32), **change):
    config = {"in_channels": 1, "classes": 2, "width": 4, "depth": 3, **change.pop("config", {})}
    config = {name: value for name, value in config.items() if value is not None}
    rest = {"batch": batch, "patch": size, "loss": "ce-dice", "optimiser": "sgd", "momentum": 0.9}
    rest |= {
        "learning_rate": 0.05,
        "weight_decay": 1e-2,
        "precision": "fp32",
        "clip": 5.0,
        "supervision": "equal",
    }
    rest |= {"micro": None}
    return SimpleNamespace(model=model, config=config, ndim=len(size), **{**rest, **change})


NETS = {
    "unet": plan_of(),
    "unet, weight map": plan_of(loss="weighted-ce-dice"),
    "unet, 3 patches": plan_of(batch=3),
    "unet, in parts": plan_of(config={"norm": "instance"}, loss="ce", batch=5, micro=1),
    "unet, adamw": plan_of(optimiser="adamw", learning_rate=1e-3),
    "unet++": plan_of("unet_plus_plus", config={"classes": 1, "supervised": True}, loss="unet++"),
    "unet++, last": plan_of("unet_plus_plus", config={"supervised": True}, supervision="last"),
    "nnunet": plan_of("nnunet", config={"ndim": 2}, supervision="halving"),
    "r2_unet": plan_of("r2_unet", config={"depth": 2}, size=(16, 16)),
    "unet of volumes": plan_of(size=(16, 16, 16), config={"ndim": 3, "depth": 2}),
    "unet 3+, guided": plan_of(
        "unet_3_plus", config={"depth": 2, "guided": True, "classes": 1}, loss="unet3+"
    ),
    "multilabel": plan_of(config={"classes": 3}),
    "one value a channel": plan_of(batch=2, size=(4, 4)),
    "trans_unet": plan_of(
        "trans_unet_small", config={"width": 8, "size": 32, "depth": None}, learning_rate=1e-3
    ),
}
DIVIDED = ("unet", "unet, adamw", "unet++, last", "trans_unet")
"""Those that are also trained with each process holding a part of the network."""
STEPS = 4


def drawn_batch(plan, number, part):
    """Batch `number`, of which `part` is given; one patch has little foreground, and some pixels are unknown."""
    rng = np.random.default_rng([number, plan.batch])
    image = torch.from_numpy(rng.normal(2.0, 3.0, (plan.batch, 1, *plan.patch)).astype(np.float32))
    target = (image[:, 0] > 2.0).long()
    target[0] = (image[0, 0] > 7.0).long()
    target[-1, :2] = 255
    weights = None
    if LOSSES[plan.loss].weighted:
        weights = torch.from_numpy(rng.uniform(0.1, 9.0, target.shape).astype(np.float32))[
            part.start : part.stop
        ]
    own = slice(part.start, part.stop)
    return Batch(image[own], target[own], weights, tuple(part))


def steps(plan, ranks, overlapping):
    """Losses of the first steps, and the weights after them."""
    torch.manual_seed(0)
    model = placed(build(plan.model, **plan.config), plan, CPU)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimiser = optimiser_of(plan, model)
    if ranks.shard:
        parts, _ = divided(ranks, plan, model, start_average(model))
        optimiser = parts.optimiser
    loss = LOSSES[plan.loss].function
    loss = each_class(loss) if overlapping else loss
    found = []
    for number in range(STEPS):
        batch = drawn_batch(plan, number, ranks.part(plan.batch))
        learnt = learn(plan, model, optimiser, loss, batch, plan.learning_rate, CPU, ranks)
        found.append(learnt.loss)
    return found, {name: whole_tensor(tensor).detach().numpy() for name, tensor in model.state_dict().items()}


def nets(folder, names=NETS, shard=False):
    """For each net the losses of one and of two processes, and how far the weights are apart in the end."""
    folder.mkdir()
    plans = {name: NETS[name] for name in names}

    def work(ranks):
        for index, (name, plan) in enumerate(plans.items()):
            losses, weights = steps(plan, ranks, name == "multilabel")
            np.savez(folder / f"{index}-{ranks.rank}.npz", losses=losses, **weights)

    ended = crew(2, work, folder, shard=shard)
    found = {}
    for index, (name, plan) in enumerate(plans.items() if not any(ended["codes"]) else ()):
        losses, weights = steps(plan, ALONE, name == "multilabel")
        first, second = (np.load(folder / f"{index}-{rank}.npz") for rank in (0, 1))
        found[name] = {
            "one": losses,
            "two": first["losses"].tolist(),
            "same": all(np.array_equal(first[key], second[key]) for key in first),
            "apart": max(float(np.abs(first[key] - weights[key]).max()) for key in weights),
            "largest": max(float(np.abs(array).max()) for array in weights.values()),
        }
    return {"nets": found, **ended}


def nets_divided(folder):
    """The same of nets that are divided over the processes."""
    return nets(folder, DIVIDED, shard=True)


def losses(folder):
    """For each loss: the largest relative difference of its value and of its gradient, one to three processes."""
    folder.mkdir()
    count, space = 5, (24, 24)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(count, 3, *space, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (count, *space), generator=generator)
    target[1, :5] = 255
    weights = torch.rand(count, *space, generator=generator, dtype=torch.float64)

    def value_of(choice, channels, ranks):
        own = ranks.part(count)
        mine = logits[own.start : own.stop, :channels].clone().requires_grad_()
        sizes = [len(ranks.part(count, rank)) for rank in range(ranks.world)]
        known, map_ = target[own.start : own.stop], weights[own.start : own.stop] if choice.weighted else None
        if not ranks.alone:
            known = whole_batch(ranks, known, sizes)
            map_ = None if map_ is None else whole_batch(ranks, map_, sizes)
        value = choice.function(whole_batch(ranks, mine, sizes), known, map_)
        value.backward()
        return value.item(), mine.grad

    def work(ranks):
        worst = {}
        for name, choice in LOSSES.items():
            for channels in (1, 3):
                one, slope = value_of(choice, channels, ALONE)
                found, part = value_of(choice, channels, ranks)
                own = ranks.part(count)
                away = (part - slope[own.start : own.stop]).abs().max() / slope.abs().max()
                worst[f"{name} {channels}"] = max(abs(found - one) / abs(one), away.item())
        (folder / f"{ranks.rank}.json").write_text(json.dumps(worst))

    ended = crew(3, work, folder)
    return {"worst": [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)], **ended}


def norm(folder):
    """Batch norm of five maps on two processes against torch's of all five, in double precision: differences."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(5, 3, 6, 7, generator=generator, dtype=torch.float64) * 4 + 30
    slope = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    scale, shift = torch.randn(2, 3, generator=generator, dtype=torch.float64)

    def pass_(maps, given, function):
        w, b = scale.clone().requires_grad_(), shift.clone().requires_grad_()
        running = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        maps = maps.clone().requires_grad_()
        y = function(maps, *running, w, b, True, 0.3, 1e-5)
        (y * given).sum().backward()
        return y.detach(), maps.grad, w.grad, b.grad, *running

    def work(ranks):
        part = slice(ranks.part(5).start, ranks.part(5).stop)
        y, dx, dw, db, mean, var = pass_(x[part], slope[part], lambda *given: batch_norm(ranks, *given))
        ranks.summed([dw, db])
        whole = pass_(x, slope, F.batch_norm)
        want = (whole[0][part], whole[1][part], *whole[2:])
        found = [(a - b).abs().max().item() for a, b in zip((y, dx, dw, db, mean, var), want, strict=True)]
        (folder / f"{ranks.rank}.json").write_text(json.dumps(found))

    ended = crew(2, work, folder)
    return {"away": [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)], **ended}


# Whole trainings.


def training(data, run, event=lambda ranks, event: None, **choices):
    """What a process of a training does; `event` is told in each of them."""

    def work(ranks):
        request = Request(**{"steps": 8, **TINY, "batch": 3, **choices})
        api.train_run(order_of(data, run, request), lambda found: event(ranks, found), ranks=ranks)

    return work


def at_step(step, act):
    """Act in the second process after its step: it is told of nothing, so its loop is listened to."""

    def work(train):
        def acting(ranks):
            if ranks.rank == 1:
                kept, done = session.Hooks, [0]

                def hooks(**given):
                    asked = given["stopped"]

                    def stopped():
                        done[0] += 1
                        if done[0] == step:
                            act()
                        return asked()

                    return kept(**{**given, "stopped": stopped})

                session.Hooks = hooks
            train(ranks)

        return acting

    return work


def whole(folder, data):
    """A training of one process, and the same of two."""
    runs = [folder / "one", folder / "two"]
    crew(1, training(data, runs[0]), folder)
    found = crew(2, training(data, runs[1]), folder)
    return {
        **found,
        "weights": digest(runs[1])[0],
        "runs": [str(run) for run in runs],
        "strays": strays(folder),
    }


def killed(folder, data):
    """The second process is killed in step 6; then all are started again."""
    run = folder / "run"
    first = crew(2, at_step(6, lambda: os.kill(os.getpid(), signal.SIGKILL))(training(data, run)), folder)
    again = crew(2, training(data, run), folder)
    return {"first": first, "again": again, "weights": digest(run)[0], "strays": strays(folder)}


def restarted(folder, data):
    """The second process is killed in step 6, and torch's launcher starts both again, as `torchrun` does."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    run = folder / "run"
    folder.mkdir()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=1,
        monitor_interval=0.1,
        start_method="fork",
    )

    def member():
        life = os.environ["TORCHELASTIC_RESTART_COUNT"]
        (folder / f"{os.environ['RANK']}.{life}").touch()
        work = training(data, run)
        with joined() as ranks:
            (at_step(6, lambda: os.kill(os.getpid(), signal.SIGKILL))(work) if life == "0" else work)(ranks)

    pid = os.fork()
    if not pid:
        code = 99
        try:
            handle = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(handle, 2)
            elastic_launch(config, member)()
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lives = sorted(path.name for path in folder.glob("*.?"))
    return {
        "code": code,
        "lives": lives,
        "weights": digest(run)[0],
        "said": (folder / "said.txt").read_text(),
    }


def divided_up(folder, data):
    """A training of which each process holds a part; the same killed in step 6 and started again."""
    runs = [folder / "never", folder / "killed"]
    whole = crew(2, training(data, runs[0]), folder, shard=True)
    work = training(data, runs[1])
    first = crew(2, at_step(6, lambda: os.kill(os.getpid(), signal.SIGKILL))(work), folder, shard=True)
    again = crew(2, work, folder, shard=True)
    return {
        "codes": [found["codes"] for found in (whole, first, again)],
        "said": [found["said"] for found in (whole, first, again)],
        "weights": [digest(run)[0] for run in runs],
        "runs": [str(run) for run in runs],
    }


def stopped(folder, data):
    """The second process alone is asked to stop after step 5."""
    run = folder / "run"
    first = crew(2, at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM))(training(data, run)), folder)
    _, facts = read_tensors(run / "state.safetensors")
    again = crew(2, training(data, run), folder)
    return {"first": first, "step": facts["progress"]["step"], "again": again, "weights": digest(run)[0]}


def resumed(folder, data):
    """Stopped after step 5, then on with another number of processes; the lines that the second start says."""
    found = {}
    for before, after in ((2, 1), (1, 2)):
        run, lines = folder / f"run{before}{after}", []
        stop = crew(before, _stopping(data, run, 5), folder)

        def hear(ranks, event, lines=lines):
            lines.append(event.get("text", ""))

        def going_on(ranks, run=run, hear=hear, lines=lines):
            training(data, run, hear)(ranks)
            if ranks.first:
                (run / "lines.json").write_text(json.dumps(lines))

        again = crew(after, going_on, folder)
        found[f"{before} to {after}"] = {
            "codes": [stop["codes"], again["codes"]],
            "lines": json.loads((run / "lines.json").read_text()),
            "run": str(run),
        }
    return found


def _stopping(data, run, step):
    def hear(ranks, event):
        if event["event"] == "step" and event["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return training(data, run, hear)


def faulty(folder, data):
    """The second process cannot read an image any more in step 4, or has a fault in its code; a batch of one."""

    def breaking(error):
        def act():
            raise error

        return at_step(4, act)(training(data, folder / type(error).__name__))

    problem = Problem("cannot be read", "c3.tif", fix="mend it", code="D101")
    return {
        "data": crew(2, breaking(DataError(problem)), folder),
        "fault": crew(2, breaking(KeyError("surprise")), folder),
        "memory": crew(2, breaking(MemoryError()), folder),
        "batch": crew(2, training(data, folder / "one", batch=1), folder),
        "folders": sorted(path.name for path in folder.iterdir()),
    }


def poisoned(folder, data):
    """A batch of which the second process's patch is not finite is left out by both."""
    make, events = session.make_batch, []

    def poison(samples, plan, k, part=None):
        batch = make(samples, plan, k, part)
        if k == 5 and part.stop == plan.batch_size:
            image = batch.image.clone()
            image[-1] = float("nan")
            return replace(batch, image=image)
        return batch

    def hear(ranks, event):
        if event["event"] == "rewound":
            events.append(event)
            (folder / "rewound.json").write_text(json.dumps(events))

    folder.mkdir()
    found, runs = [], []
    for world in (1, 2):
        session.make_batch = poison
        run = folder / f"run{world}"
        (folder / "rewound.json").unlink(missing_ok=True)
        codes = crew(world, training(data, run, hear), folder)["codes"]
        found.append([codes, json.loads((folder / "rewound.json").read_text())])
        runs.append(str(run))
    session.make_batch = make
    return {"found": found, "runs": runs}


SCENES = (whole, killed, restarted, divided_up, stopped, resumed, faulty, poisoned)


def main(data, root):
    one_thread()
    for heavy in (
        "torch._dynamo",
        "torch.distributed.fsdp",
        "torch.distributed.tensor",
        "torch.distributed.launcher.api",
    ):
        importlib.import_module(heavy)  # seconds here instead of in every process
    prepare.fast_bf16 = lambda device: False  # equal to within float32
    schedule.VALIDATIONS = 2  # and as many saves: after steps 4 and 8
    found = {scene.__name__: scene(root / scene.__name__) for scene in (nets, nets_divided, losses, norm)}
    found |= {scene.__name__: scene(root / scene.__name__, data) for scene in SCENES}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
