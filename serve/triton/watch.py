"""Seeing that a server or a process of one of its models died, or that the server hangs."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass

from xt.serve.client.http import ERRORS, TritonHttp
from xt.serve.triton.processes import model_processes

LIVE_EVERY = 1.0
"""Seconds between two questions whether the server lives."""
LIVE_SECONDS = 5.0
"""How long the answer may take: a busy machine is no dead server."""
LOST_SECONDS = 1.0
"""How long when a process of a model is gone: Triton answers at once, also while it loads models, unless it hangs."""
FAILURES = 3
"""With so many questions in a row unanswered, the server counts as hung although its process is there."""
MODELS_EVERY = 5.0
"""Seconds between two looks at which processes there should be; a reload brings new ones."""
CONFIRM_SECONDS = 0.3
CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a server."""

    reason: str
    by_model: bool = False
    """A process of a model died, and nothing but a new server brings it back."""


class Watch:
    """Looks at one server, again and again.

    Triton goes on calling a model ready whose process died. Mostly it lives on; but now and then it aborts at the next
    request, or waits for ever for a lock in the shared memory that the dead process held. All three are one trouble.
    """

    def __init__(self, process: subprocess.Popen[bytes], prefix: str, http: TritonHttp) -> None:
        """Note the server's processes; it must be ready.

        Args:
            process: the server's own.
            prefix: of the names of its shared memory.
            http: the server's HTTP, with its admin key.
        """
        self._process, self._prefix, self._http = process, prefix, http
        self._known = model_processes(prefix)
        self._looked = self._asked = time.monotonic()
        self._unanswered, self._lost = 0, ""

    def look(self) -> Trouble | None:
        """Return what is wrong now; None when nothing is, or when only a later look can tell."""
        code = self._process.poll()
        self._lost = self._lost or next((p.model for p in self._known if not p.alive()), "")
        if code is not None:
            if self._lost and -code in CRASHES:
                return Trouble(f"a process of the model {self._lost!r} died, and Triton with it (code {code})", True)
            return Trouble(f"Triton ended by itself with code {code}")
        try:
            if self._lost:
                return self._look_at_models(min(LOST_SECONDS, LIVE_SECONDS))
            if time.monotonic() - self._asked > LIVE_EVERY:
                return self._look_at_server()
            if not self._unanswered and time.monotonic() - self._looked > MODELS_EVERY:
                return self._look_at_models(LIVE_SECONDS)
        except OSError:
            pass  # this machine is out of files, say: the next look decides
        return None

    def _look_at_server(self) -> Trouble | None:
        try:
            lives = self._http.is_live(LIVE_SECONDS)
        except ERRORS:
            lives = False
        return self._note(lives)

    def _look_at_models(self, patience: float) -> Trouble | None:
        dead = self._dead_model(patience)
        if dead:
            time.sleep(CONFIRM_SECONDS)  # Triton may be about to end by it, or to call the model ready no more
            if self._process.poll() is None and dead == self._dead_model(patience):
                return Trouble(f"a process of the model {dead!r} died", True)
        elif dead == "":
            self._known, self._lost, self._looked = model_processes(self._prefix), "", time.monotonic()
        return self._note(dead is not None)

    def _note(self, answered: bool) -> Trouble | None:
        """Count the questions left unanswered in a row; a process that ended meanwhile is seen at the next look."""
        self._unanswered, self._asked = 0 if answered else self._unanswered + 1, time.monotonic()
        if self._unanswered < FAILURES or self._process.poll() is not None:
            return None
        if self._lost:
            return Trouble(f"a process of the model {self._lost!r} died, and Triton hangs", True)
        return Trouble(f"Triton hangs: it left {self._unanswered} questions in a row unanswered")

    def _dead_model(self, patience: float) -> str | None:
        """Return a model that Triton calls ready and that has fewer processes than instances.

        '' when there is none; None when Triton does not tell. During a reload the old processes end after the new ones
        have begun, so that there are never too few.
        """
        try:
            ready = self._http.ready_models(patience)
            live = Counter(p.model for p in model_processes(self._prefix))
            for name in ready:
                config = self._http.config(name, patience)
                if config.get("backend") != "python":
                    continue
                wanted = sum(g.get("count", 1) * max(1, len(g.get("gpus") or [])) for g in config["instance_group"])
                if live[name] < wanted:
                    return name
        except (*ERRORS, ValueError, KeyError, TypeError):
            return None
        return ""
