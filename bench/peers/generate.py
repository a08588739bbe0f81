"""Grouped decoding by transformers' generate, the prompts repeated G times.  generate.py FOLDER DTYPE THREADS SIZES_JSON"""
import json
import sys

import torch
from batches import prompt_of
from session import serve
from transformers import AutoModelForCausalLM

folder, dtype, threads, sizes = *sys.argv[1:4], json.loads(sys.argv[4])
torch.set_num_threads(int(threads))
torch.manual_seed(1)
model = AutoModelForCausalLM.from_pretrained(folder, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).eval()
p, c = sizes["P"], sizes["C"]
ids = torch.tensor([prompt_of(i, sizes, model.config.to_dict())[0] for i in range(sizes["prompts"])])


def run(c=c):
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            num_return_sequences=sizes["G"], min_new_tokens=c, max_new_tokens=c, eos_token_id=2, pad_token_id=0)
    return {"tokens": int((out.shape[1] - p) * out.shape[0])}


serve(run, window=0, warm=lambda: run(4))
