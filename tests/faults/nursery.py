"""A process that imports everything once and forks a `skipway` command for each life that a test asks for.

One request a line on standard input, a JSON list of lives that run together; one JSON list of what became of them a
line on standard output. A life is a dictionary:

    words     what follows `skipway` on the command line
    plant     names and arguments of functions in planted.py, called in the child before it starts
    signals   [step, seconds, name]: that long after that step was told of (step 0: after the start; 0 s: at once)
    touch     [step, path]: remove or make this file when that step was told of
    deaf      close the pipe of its standard output at this step
    limit     seconds after which it counts as hung
    go        a file that is made when this is the only life left
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]

import planted
import torch._dynamo  # noqa: F401 (an optimiser loads it: five seconds here instead of in every life)
import toys


class Life:
    def __init__(self, asked):
        self.asked = asked
        self.out_end, out = os.pipe()
        self.err_end, err = os.pipe()
        self.began = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            os.dup2(out, 1)
            os.dup2(err, 2)
            for end in (self.out_end, self.err_end, out, err):
                os.close(end)  # or the child would be a reader of its own output
            _live(asked)
        os.close(out)
        os.close(err)
        self.text = {self.out_end: b"", self.err_end: b""}
        self.due = [(self.began + wait, name) for step, wait, name in asked.get("signals", ()) if step == 0]
        self.step, self.seen, self.code, self.hung, self.signalled = 0, 0, None, False, None

    def ends(self):
        return [end for end in (self.out_end, self.err_end) if end is not None]

    def hear(self, end):
        data = os.read(end, 1 << 16)
        self.text[end] += data
        if not data:
            self.shut(end)
        elif end == self.out_end:
            self.steps()

    def shut(self, end):
        os.close(end)
        if end == self.out_end:
            self.out_end = None
        else:
            self.err_end = None

    def steps(self):
        text = self.text[self.out_end]
        for line in text[self.seen : text.rfind(b"\n") + 1].splitlines():
            event = json.loads(line)
            if event.get("event") == "step":
                self.told(event["step"])
        self.seen = text.rfind(b"\n") + 1

    def told(self, step):
        self.step = step
        now, asked = time.monotonic(), self.asked
        self.due += [(now + wait, name) for at, wait, name in asked.get("signals", ()) if at == step and wait]
        if asked.get("touch", [None])[0] == step:
            path = Path(asked["touch"][1])
            if path.exists():
                path.rename(path.with_name(path.name + ".away"))
            else:
                path.write_bytes(b"")
        if asked.get("deaf") == step and self.out_end is not None:
            self.deaf = True

    def tick(self):
        now = time.monotonic()
        if getattr(self, "deaf", False) and self.out_end is not None:
            self.text["out"] = self.text[self.out_end]
            self.shut(self.out_end)
        for moment, name in [one for one in self.due if one[0] <= now]:
            self.due.remove((moment, name))
            self.signalled = self.signalled or now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, getattr(signal, name))
        if now - self.began > self.asked.get("limit", 120) and not self.hung:
            self.hung = True
            os.kill(self.pid, signal.SIGKILL)
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.ended = time.monotonic()
            self.code = os.waitstatus_to_exitcode(status)

    def found(self, out, err):
        for end in self.ends():
            while data := os.read(end, 1 << 16):
                self.text[end] += data
            os.close(end)
        text = self.text.get("out", self.text[out]).decode(errors="replace")
        events = [
            json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")
        ]
        return {
            "code": self.code,
            "hung": self.hung,
            "step": max([e["step"] for e in events if e["event"] == "step"], default=0),
            "events": [e for e in events if e["event"] not in ("step", "file")],
            "err": self.text[err].decode(errors="replace"),
            "seconds": self.ended - self.began,
            "to_end": None if self.signalled is None else self.ended - self.signalled,
        }


def _live(asked):
    code = 99
    try:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (those of the parent know another kind of file)
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.argv = ["skipway", *asked["words"]]
        for name, *arguments in asked.get("plant", ()):
            getattr(planted, name)(*arguments)
        for step, wait, name in asked.get("signals", ()):
            if step and not wait:  # from inside, on the very step
                planted.signal_at(step, name)
        from skipway.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def together(asked):
    lives = [Life(one) for one in asked]
    names = [(life.out_end, life.err_end) for life in lives]
    while alive := [life for life in lives if life.code is None]:
        if len(alive) == 1 and alive[0].asked.get("go"):
            Path(alive[0].asked["go"]).touch()
        by_end = {end: life for life in alive for end in life.ends()}
        ready, _, _ = select.select(list(by_end), [], [], 0.01)
        for end in ready:
            by_end[end].hear(end)
        for life in alive:
            life.tick()
    return [life.found(*ends) for life, ends in zip(lives, names, strict=True)]


def main():
    toys.one_thread()
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, dict):  # modules that a first life needed: here once instead of in every life
            for name in asked["import"]:
                with contextlib.suppress(BaseException):
                    __import__(name)
            print("[]", flush=True)
        else:
            print(json.dumps(together(asked)), flush=True)


if __name__ == "__main__":
    main()
