"""The lean model against transformers' on the same folder: largest difference of log-probs, in fp32.

check_lean.py FOLDER SIZES_JSON [LOGPROBS_JSON]     a third set, [G][C] numbers of ours, is compared too
"""
import json
import sys

import torch
from batches import completions_of, prompt_of
from qwen2 import Qwen2
from qwen2_5_vl import Qwen25Vl
from session import answer
from transformers import AutoModelForCausalLM, Qwen2_5_VLForConditionalGeneration

folder, sizes = sys.argv[1], json.loads(sys.argv[2])
vision = "grid" in sizes
lean = (Qwen25Vl if vision else Qwen2)(folder)
ids, images = prompt_of(0, sizes, lean.config)
prompt, completions = torch.tensor(ids), completions_of(0, sizes, lean.config)
pictures = (torch.stack(images), sizes["grid"]) if vision else ()
reference = (Qwen2_5_VLForConditionalGeneration if vision else AutoModelForCausalLM).from_pretrained(folder, dtype=torch.float32)
rows = torch.cat([prompt.expand(sizes["G"], -1), completions], 1)
extra = {}
if vision:
    grids = torch.tensor([[1, *sizes["grid"]]] * (len(images) * sizes["G"]))
    kinds = (rows == lean.config["image_token_id"]).int()
    extra = {"pixel_values": torch.cat(images * sizes["G"]), "image_grid_thw": grids, "mm_token_type_ids": kinds}
with torch.no_grad():
    ours = lean.logprobs_shared(prompt, completions, torch.float32, pictures)
    half = lean.logprobs_shared(prompt, completions, torch.bfloat16, pictures)
    logits = reference(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False, **extra).logits
    theirs = Qwen2.select_logits(logits[:, sizes["P"] - 1:-1].float(), completions)
given = json.loads(sys.argv[3]) if len(sys.argv) > 3 else None
answer(
    leanMinusTransformers=(ours - theirs).abs().max().item(), leanBf16=(half - theirs).abs().max().item(), mean=theirs.mean().item(),
    **({} if given is None else {"oursMinusTransformers": (torch.tensor(given) - theirs).abs().max().item()}))
