"""What the programs of a card's peers share: arguments, the device's clock, rows of the schema of bench/results.

Rows name workload, shape and sizes as gavel_cuda_bench does, so that bench/report.mjs can set the figures side by side.
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch._dynamo
import torch._functorch.config

# Backward passes are timed over one recorded graph, which compiled ones must then not take apart.
torch._functorch.config.donated_buffer = False
# One function serves every layer of a model.
torch._dynamo.config.recompile_limit = 64

parser = argparse.ArgumentParser()
parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu only tries the programs")
parser.add_argument("--only", default="", help="workloads, by comma")
parser.add_argument("--seconds", type=float, default=0.3, help="of measuring a case")
parser.add_argument("--quick", action="store_true", help="tiny sizes")
parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile where a peer would")
parser.add_argument("--out", default="", help="file the JSON rows are appended to; else standard output")
parser.add_argument("--commit", default=os.environ.get("GAVEL_COMMIT", "unknown"))


def options(*extra):
    """Parses the command line; `extra` adds arguments first. Ends well, and says so, where there is no device."""
    for add in extra:
        add(parser)
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no device (torch.cuda.is_available() is false)")
        sys.exit(1 if os.environ.get("GAVEL_REQUIRE_CUDA") else 0)
    chosen.only = [name for name in chosen.only.split(",") if name]
    return chosen


def machine(device):
    if device == "cpu":
        return "cpu", ""
    p = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        driver = "unknown"
    mib, gib = p.L2_cache_size >> 20, p.total_memory >> 30
    name = f"{p.name}, sm_{p.major}{p.minor}, {p.multi_processor_count} multiprocessors, {mib} MiB L2, {gib} GiB"
    return name, f"{driver}, torch CUDA {torch.version.cuda}"


class Bench:
    def __init__(self, chosen):
        self.chosen, self.device, self.failed = chosen, torch.device(chosen.device), 0
        self.hardware, self.driver = machine(chosen.device)
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device=self.device) if chosen.device == "cuda" else None
        import transformers
        self.versions = f"torch {torch.__version__} transformers {transformers.__version__}"

    def selected(self, workload):
        return not self.chosen.only or workload in self.chosen.only

    def once(self, call):
        """Seconds of one call; the cache is flushed before."""
        if self.flush is None:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.zero_()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def time(self, call, seconds=None, least=10):
        """Median, tenth and ninetieth percentile, and runs."""
        for _ in range(3 if least > 2 else 1):
            last = self.once(call)
        runs = 1 if self.chosen.quick else int(min(200, max(least, (seconds or self.chosen.seconds) / max(last, 1e-6))))
        samples = sorted(self.once(call) for _ in range(runs))
        return statistics.median(samples), samples[int(0.1 * (runs - 1))], samples[int(0.9 * (runs - 1))], runs

    def row(self, workload, shape, peer, timing, amount, unit, dtype="bf16", **more):
        """`amount` of `unit` (per second) in a call of `timing`."""
        seconds, low, high, runs = timing
        line = {"workload": workload, "P": None, "C": None, "G": None, "V": None, "dtype": dtype, "threads": None,
                "loraRank": None, "shareOfLimit": None, "shape": shape, "peer": peer, "value": amount / seconds, "unit": unit,
                "seconds": seconds, "secondsLow": low, "secondsHigh": high, "runs": runs, "clock": "device", "device": "cuda",
                "hardware": self.hardware, "driver": self.driver, "commit": self.chosen.commit, "versions": self.versions,
                "load": round(os.getloadavg()[0], 2),
                "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z"), **more}
        self.write(line)

    def write(self, line):
        line = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}
        print(f"  {line['workload']} {line['shape']} {line['dtype']} {line['peer']}: {line['value']} {line['unit']}"
              f" ({1e6 * line['seconds']:.1f} us)", flush=True)
        text = json.dumps(line)
        if self.chosen.out:
            with open(self.chosen.out, "a") as file:
                file.write(text + "\n")
        else:
            print(text, flush=True)

    def guard(self, name, body):
        """A peer that fails costs its own rows alone."""
        if not self.selected(name.split(" ")[0]):
            return
        try:
            body()
        except Exception as error:  # noqa: BLE001
            self.failed += 1
            print(f"  failed: {name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
        if self.flush is not None:
            torch.cuda.empty_cache()

    def compiled(self, function):
        return torch.compile(function, dynamic=False) if self.chosen.compile else function

    def end(self):
        print(f"{self.failed} failed")
        sys.exit(1 if self.failed else 0)
