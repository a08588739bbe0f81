"""The best loops over qwen2.py and qwen2_5_vl.py.  lean.py train_step|grpo_step|grpo_update FOLDER fp32|bf16 THREADS SIZES_JSON"""
import json
import sys

import torch
from batches import completions_of, draw_tokens, prompt_of
from qwen2 import Qwen2
from qwen2_5_vl import Qwen25Vl
from session import Meter, reward, serve

workload, folder, dtype, threads, sizes = *sys.argv[1:5], json.loads(sys.argv[5])
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
torch.set_num_threads(int(threads))
torch.manual_seed(1)
model = (Qwen25Vl if workload == "grpo_update" else Qwen2)(folder)
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


def grpo_update():
    q, g, c = sizes["prompts"], sizes["G"], sizes["C"]
    drawn = [prompt_of(i, sizes, model.config) for i in range(q)]
    groups = [(torch.tensor(ids), torch.stack(images), completions_of(i, sizes, model.config)) for i, (ids, images) in enumerate(drawn)]
    advantages = torch.tensor([1.0, -1.0]).repeat(g)[:g, None]

    def run():
        for prompt, pixels, completions in groups:
            new = model.logprobs_shared(prompt, completions, dtype, (pixels, sizes["grid"]))
            # One update a rollout: the sampler's log-probs are taken to be these.
            ratio = (new - new.detach()).exp()
            (-torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).sum() / (q * g * c)).backward()
        update()
    return run


serve({"train_step": train_step, "grpo_step": grpo_step, "grpo_update": grpo_update}[workload](), window=0)
