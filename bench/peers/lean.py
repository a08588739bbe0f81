"""The best loops over qwen2.py.  lean.py train_step|grpo_step FOLDER fp32|bf16 THREADS SIZES_JSON"""
import json
import sys

import torch
from qwen2 import Qwen2
from session import Meter, draw_tokens, reward, serve

workload, folder, dtype, threads, sizes = *sys.argv[1:5], json.loads(sys.argv[5])
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
torch.set_num_threads(int(threads))
torch.manual_seed(1)
model = Qwen2(folder)
vocabulary = model.embedding.shape[0]
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0, fused=True)


def update():
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def train_step():
    n = sizes["tokens"] + 1
    ids = torch.tensor([draw_tokens(i * n, n, vocabulary) for i in range(sizes["sequences"])])

    def run():
        loss = -model.logprobs(ids, dtype).mean()
        loss.backward()
        update()
        return {"loss": loss.item()}
    return run


def grpo_step():
    q, g, p, c = sizes["prompts"], sizes["G"], sizes["P"], sizes["C"]
    prompts = torch.tensor([draw_tokens(i * p, p, vocabulary) for i in range(q)])

    def run():
        meter = Meter()
        completions, old = model.rollout(prompts, g, c, dtype, torch.tensor([2]))
        rollout = meter.stop()
        rewards = torch.tensor([reward(row) for row in completions.tolist()]).view(q, g)
        advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).view(-1, 1)
        meter, gap = Meter(), 0.0
        for i in range(q):
            rows = slice(i * g, (i + 1) * g)
            new = model.logprobs_shared(prompts[i], completions[rows], dtype)
            ratio, a = (new - old[rows]).exp(), advantages[rows]
            (-torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a).sum() / (q * g * c)).backward()
            gap = max(gap, (new.detach() - old[rows]).abs().max().item())
        update()
        return {"rollout": rollout, "train": meter.stop(), "gap": gap}
    return run


serve({"train_step": train_step, "grpo_step": grpo_step}[workload](), window=0)
