"""A measuring session: says it is ready in one JSON line, then answers every line of stdin with one measurement."""
import json
import os
import resource
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def answer(**fields):
    print(json.dumps(fields), flush=True)


def memory_bytes():
    """Peak resident set: on Linux of this program alone, where ru_maxrss starts at what the parent held when it forked."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Meter:
    """Wall and CPU seconds (of all threads) since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self):
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


def serve(run, window=0.15, warm=None):
    """Answers with seconds per call over at least `window` seconds; what `run` returns is sent along.

    `warm` is run instead where a request is {"warm":true}.
    """
    answer(ready=True, memoryBytes=memory_bytes())
    for line in sys.stdin:
        work = warm if warm is not None and "warm" in line else run
        meter, calls, extra = Meter(), 0, None
        while calls == 0 or time.perf_counter() - meter.wall < window:
            extra = work()
            calls += 1
        total = meter.stop()
        answer(wall=total["wall"] / calls, cpu=total["cpu"] / calls, calls=calls, memoryBytes=memory_bytes(), **(extra or {}))


def reward(tokens):
    return len(set(tokens)) / len(tokens) + 0.001 * (sum(tokens) % 17)
