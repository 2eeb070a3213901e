"""What a run says while it works: lines and a bar for a person, one JSON event a line for a program."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

Event = Mapping[str, Any]


class JsonLines:
    """Every event as one line of strict JSON."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def __call__(self, event: Event) -> None:
        """Print one event."""
        print(
            json.dumps(event, ensure_ascii=False, allow_nan=False, default=str), file=self._stream, flush=True
        )


class Console:
    """Lines as they come; a bar that rewrites itself on a terminal, a line now and then elsewhere."""

    def __init__(self, stream: TextIO | None = None, *, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._every = 0.2 if self._terminal else every
        self._last = 0.0
        self._bar = False
        self._began: tuple[float, int] | None = None
        self._loss: float | None = None
        self._score = ""
        self._total = 0

    def __call__(self, event: Event) -> None:
        """Print one event."""
        kind = event["event"]
        if kind == "line":
            self._line(f"{event['name']:<10} {event['text']}")
        elif kind == "step":
            self._step(event)
        elif kind == "validation":
            self._score = "n/a" if event["score"] is None else f"{event['score']:.3f}"
        elif kind == "planned":
            self._planned(event)
        elif kind == "rewound":
            text = f"batch {event['batch']} ({event['images']}) gave {event['what']}"
            self._line(f"warning: {text}; back from step {event['from']} to {event['to']}, without it")
        elif kind == "warning":
            self._line(f"warning: {event['text']}")
        elif kind == "region":
            self._region(event)
        elif kind == "file":
            self._progress(
                f"{event['done']}/{event['of']}  {event['name']}", last=event["done"] == event["of"]
            )

    def _planned(self, event: Event) -> None:
        """When it will be over; said again only where the number of steps has changed by a tenth."""
        total = event["total"]
        if not event["first"] and abs(total - self._total) < 0.1 * self._total:
            return
        self._total = total
        finish = time.strftime("%H:%M", time.localtime(time.time() + event["left"]))
        self._line(
            f"{'finish':<10} {finish}, {total:,} steps at {event['seconds_per_step']:.2g} s as measured"
        )

    def _step(self, event: Event) -> None:
        now = time.monotonic()
        if self._began is None or event["step"] <= self._began[1]:  # the next fold starts anew
            self._began = (now, event["step"])
        smooth = 0.95 if self._loss is not None else 0.0
        self._loss = smooth * (self._loss or 0.0) + (1 - smooth) * event["loss"]
        total, step = event["total"], event["step"]
        text = f"step {step}" + (f"/{total}" if total else "") + f"  loss {self._loss:.3f}"
        if self._score:
            text += f"  score {self._score}"
        if total and step > self._began[1] + 5:
            left = (now - self._began[0]) / (step - self._began[1]) * (total - step)
            finish = time.strftime("%H:%M", time.localtime(time.time() + left))
            text += f"  {_duration(left)} left, done at {finish}"
        if total:
            done = 24 * step // total
            text = f"[{'━' * done}{' ' * (24 - done)}] {text}"
        self._progress(text, last=step == total)

    def _region(self, event: Event) -> None:
        done, of, left = event["done"], event["of"], event["left"]
        finish = time.strftime("%H:%M", time.localtime(time.time() + left))
        text = f"{event['name']}  region {done}/{of}"
        if left:
            text += f"  {_duration(left)} left, done at {finish}"
        self._progress(text, last=done == of)

    def _progress(self, text: str, *, last: bool) -> None:
        now = time.monotonic()
        if not last and now - self._last < self._every:
            return
        self._last = now
        if self._terminal:
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if last else ""))
            self._bar = not last
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def _line(self, text: str) -> None:
        if self._bar:
            self._stream.write("\r\x1b[K")
            self._bar = False
        self._stream.write(text + "\n")
        self._stream.flush()


def _duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> _duration(75), _duration(4000)
    ('1 min 15 s', '1 h 06 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def events(as_json: bool) -> JsonLines | Console:
    """Who is told what happens."""
    return JsonLines() if as_json else Console()


def print_json(value: Any) -> None:
    """One object, for a program."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()
