"""Reward-head scores by transformers, in padded batches of 8 of like length.  score.py FOLDER fp32|bf16 THREADS SIZES_JSON

Padding stands behind the last token, which causal attention never sees: no mask is needed, and the fastest attention runs.
"""
import json
import sys

import torch
from batches import pair_of
from session import serve
from transformers import AutoModel

folder, dtype, threads, sizes = *sys.argv[1:4], json.loads(sys.argv[4])
torch.set_num_threads(int(threads))
torch.manual_seed(1)
model = AutoModel.from_pretrained(folder, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).eval()
nn, width = torch.nn, model.config.hidden_size
head = nn.Sequential(nn.Linear(width, 1024), nn.ReLU(), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
rows = []
for i in range(sizes["pairs"]):
    prompt, answers = pair_of(i, sizes, model.config.to_dict())
    rows += [torch.tensor(prompt + one) for one in answers]
order = sorted(range(len(rows)), key=lambda i: len(rows[i]))


def run():
    scores = torch.empty(len(rows))
    with torch.inference_mode():
        for start in range(0, len(order), 8):
            some = order[start:start + 8]
            ids = nn.utils.rnn.pad_sequence([rows[i] for i in some], batch_first=True)
            hidden = model(input_ids=ids, use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(some)), torch.tensor([len(rows[i]) - 1 for i in some])]
            scores[some] = head(last.float())[:, 0]
    return {"count": len(rows)}


serve(run, window=0)
