#!/usr/bin/env python3
"""Makes the goldens of the model families with transformers in float64 (test/goldens/README.md says what each file holds).

    python scripts/goldens/families.py [SECTION ...]      (torch 2.13.0, transformers 5.17.0, safetensors, numpy; lora: peft 0.21)
"""
import sys
import time

import torch

from adapters import lora, trajectories
from reference import keep_frequencies_in_float32
from text_families import llama, qwen3
from vision_families import ov_multi, qwen3_vl, vl_windows

SECTIONS = {"llama": llama, "qwen3": qwen3, "vl_windows": vl_windows, "ov_multi": ov_multi, "qwen3_vl": qwen3_vl,
            "lora": lora, "trajectories": trajectories}

if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_frequencies_in_float32()
    for section in sys.argv[1:] or SECTIONS:
        begun = time.perf_counter()
        SECTIONS[section]()
        print(f"{section}: {time.perf_counter() - begun:.1f} s")
