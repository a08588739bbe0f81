#!/usr/bin/env python3
"""Goldens of ranking losses and of a joint step: ranking.safetensors and ranking.json.

  python make_ranking.py [reward.safetensors reward.json]      needs torch, transformers 5, safetensors
Losses: PyTorch autograd in float64; expectations over z ~ N(m, s^2) are trapezoid sums over 40001 points within 13 s, which
are exact to rounding. Joint: transformers' Qwen2 of micro-text in float64 with two heads on the state of token 509, chain
of thought after it. The optional arguments are goldens of TRL 1.13's RewardTrainer, whose Bradley-Terry cases are kept.
"""
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
F = torch.nn.functional
S, H = 7, 3
gen = torch.Generator().manual_seed(5)
mu = torch.randn(S, H, generator=gen, dtype=torch.float64) * 1.5
log_sigma = torch.randn(S, H, generator=gen, dtype=torch.float64) * 0.7
log_sigma[0, 0], log_sigma[1, 1] = 2.5, -6.0  # beyond the clamp
chosen, rejected = torch.tensor([0, 1, 2, 5, 3]), torch.tensor([3, 4, 5, 6, 1])
margins = torch.rand(5, generator=gen, dtype=torch.float64)
ties = torch.tensor([0, 1, 0, 0, 1])
labels = torch.tensor([[1, -1, 2], [1, 1, -1], [2, 2, 2], [-1, 2, 1], [1, -1, -1]])
tie_labels = torch.tensor([[1, -1, 0], [0, 0, -1], [2, 2, 2], [-1, 2, 0], [1, -1, -1]])
targets = torch.randn(S, H, generator=gen, dtype=torch.float64)
targets[0, 1] = targets[4] = float("nan")
head_weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
K, LOW, HIGH = 5.0, -5.0, 2.0


def fuse(mean, variance, fusion):
    if fusion == "sum":
        return mean.sum(1), variance.sum(1)
    if fusion == "mean":
        return mean.mean(1), variance.sum(1) / H**2
    least = mean.argmin(1, keepdim=True)
    return mean.gather(1, least)[:, 0], variance.gather(1, least)[:, 0]


def expectation(f, m, s):
    u = torch.linspace(-13, 13, 40001, dtype=torch.float64)
    w = torch.exp(-u * u / 2)
    return (w / w.sum() * f(m[:, None] + s[:, None] * u)).sum(1)


def pair_loss(kind, m, s, tie, margin):
    if kind == "btt":
        a, b = torch.sigmoid(m - math.log(K)), torch.sigmoid(-m - math.log(K))
        return -torch.log(torch.where(tie, 1 - a - b, a))
    m = m - margin
    if kind == "bt":
        return -F.logsigmoid(m)
    if kind == "log_expectation":
        return -torch.log(expectation(torch.sigmoid, m, s))
    if kind == "expectation_log":
        return expectation(lambda z: -F.logsigmoid(z), m, s)
    return -F.logsigmoid(m / torch.sqrt(1 + math.pi * s * s / 8))  # probit


def run(kind, fusion="mean", margin=None, tie=None, label=None, centring=0.0):
    a, b = mu.clone().requires_grad_(), log_sigma.clone().requires_grad_()
    sigma = b.clamp(LOW, HIGH).exp()
    margin = torch.zeros(5, dtype=torch.float64) if margin is None else margin
    if kind == "regression":
        known = ~targets.isnan()
        w = known * head_weights
        rows = w.sum(1) > 0
        per_row = (w * (a - targets.nan_to_num()) ** 2)[rows].sum(1) / w[rows].sum(1)
        loss = per_row.mean()
    elif label is None:
        mean, variance = fuse(a, sigma**2, fusion)
        m, s = mean[chosen] - mean[rejected], (variance[chosen] + variance[rejected]).sqrt()
        tie = torch.zeros(5, dtype=torch.bool) if tie is None else tie.bool()
        loss = (pair_loss(kind, m, s, tie, margin) + centring * (mean[chosen] + mean[rejected]) ** 2).mean()
    else:
        total, pairs = 0.0, 0
        for p in range(5):
            w = head_weights * (label[p] != 2)
            if w.sum() == 0:
                continue
            pairs += 1
            for h in range(H):
                if label[p, h] == 2:
                    continue
                sign = -1.0 if label[p, h] < 0 else 1.0
                x, y = a[chosen[p], h], a[rejected[p], h]
                s = (sigma[chosen[p], h] ** 2 + sigma[rejected[p], h] ** 2).sqrt()
                one = pair_loss(kind, (sign * (x - y))[None], s[None], (label[p, h] == 0)[None], margin[p : p + 1])
                total = total + w[h] / w.sum() * (one[0] + centring * (x + y) ** 2)
        loss = total / pairs
    loss.backward()
    return {"loss": loss.detach()[None], "grad_mu": a.grad, "grad_log_sigma": torch.zeros_like(b) if b.grad is None else b.grad}


cases = {
    "bt": dict(kind="bt"),
    "bt_margins_centred": dict(kind="bt", fusion="sum", margin=margins + 0.25, centring=0.01),
    "bt_min": dict(kind="bt", fusion="min"),
    "bt_labels": dict(kind="bt", label=labels, margin=margins, centring=0.02),
    "btt": dict(kind="btt", tie=ties),
    "btt_labels": dict(kind="btt", label=tie_labels),
    "regression": dict(kind="regression"),
    "log_expectation": dict(kind="log_expectation"),
    "log_expectation_sum": dict(kind="log_expectation", fusion="sum", margin=margins),
    "log_expectation_min": dict(kind="log_expectation", fusion="min"),
    "log_expectation_labels": dict(kind="log_expectation", label=labels),
    "expectation_log": dict(kind="expectation_log"),
    "expectation_log_labels": dict(kind="expectation_log", label=labels),
    "probit": dict(kind="probit"),
    "probit_labels": dict(kind="probit", label=labels),
}
tensors = {f"{name}.{key}": value.contiguous() for name, case in cases.items() for key, value in run(**case).items()}
tensors |= {"mu": mu, "log_sigma": log_sigma, "chosen": chosen, "rejected": rejected, "margins": margins, "ties": ties,
            "labels": labels, "tie_labels": tie_labels, "targets": targets, "head_weights": head_weights}
grid = [(m, s2) for m in (-6.0, -1.0, 0.0, 0.3, 4.0) for s2 in (1e-4, 0.5, 4.0, 25.0, 100.0)]
m, s = (torch.tensor(v, dtype=torch.float64) for v in zip(*[(m, math.sqrt(s2)) for m, s2 in grid]))
tensors |= {"grid.m": m, "grid.s": s, "grid.log_expectation": -torch.log(expectation(torch.sigmoid, m, s)),
            "grid.expectation_log": expectation(lambda z: -F.logsigmoid(z), m, s)}
about = {"source": __doc__, "reward_token": 509, "hidden_sizes": [24, 16], "alpha": 0.7}

if len(sys.argv) == 3:
    trl = load_file(sys.argv[1])
    tensors |= {f"trl.{name}": trl[name] for name in ("chosen", "rejected", "margin")}
    for case in json.loads(Path(sys.argv[2]).read_text())["cases"]:
        tensors[f"trl.{case['name']}.loss"] = torch.tensor([case["loss"]], dtype=torch.float64)
        tensors[f"trl.{case['name']}.grad"] = torch.tensor(case["grad"], dtype=torch.float64)


def joint(model):
    sizes = [model.config.hidden_size, *about["hidden_sizes"], 2]
    rng = torch.Generator().manual_seed(9)
    heads = {}
    for h in range(2):
        for i in range(3):
            scale = 1 / math.sqrt(sizes[i])
            for part, shape in (("weight", (sizes[i + 1], sizes[i])), ("bias", (sizes[i + 1],))):
                heads[f"reward_head.{h}.{2 * i}.{part}"] = (torch.randn(shape, generator=rng) * scale).double().requires_grad_()
    rows = []
    for length, cot in ((9, 6), (14, 3), (5, 11), (20, 4)):
        rows.append((torch.randint(3, 500, (length,), generator=rng), torch.randint(3, 500, (cot,), generator=rng)))
    scores, lm, tokens = [], 0.0, 0
    for prompt, cot in rows:
        ids = torch.cat([prompt, torch.tensor([about["reward_token"]]), cot])
        hidden = model.model(ids[None]).last_hidden_state[0]
        at = len(prompt)
        outs = []
        for h in range(2):
            x = hidden[at]
            for i in range(3):
                x = F.linear(F.relu(x) if i else x, heads[f"reward_head.{h}.{2 * i}.weight"], heads[f"reward_head.{h}.{2 * i}.bias"])
            outs.append(x)
        scores.append(torch.stack(outs))
        logp = F.log_softmax(model.lm_head(hidden[at : at + len(cot)]), -1)
        lm, tokens = lm - logp.gather(1, cot[:, None]).sum(), tokens + len(cot)
    scores = torch.stack(scores)  # [S, H, 2]
    mean, variance = scores[:, :, 0].mean(1), (2 * scores[:, :, 1].clamp(LOW, HIGH)).exp().sum(1) / 4
    first, second = torch.tensor([0, 2]), torch.tensor([1, 3])
    rank = pair_loss("log_expectation", mean[first] - mean[second], (variance[first] + variance[second]).sqrt(), None, 0.0).mean()
    lm = lm / tokens
    ((1 - about["alpha"]) * rank + about["alpha"] * lm).backward()
    out = {"joint.scores": scores.detach(), "joint.rank_loss": rank.detach()[None], "joint.lm_loss": lm.detach()[None]}
    for i, (prompt, cot) in enumerate(rows):
        out |= {f"joint.prompt{i}": prompt, f"joint.cot{i}": cot}
    for name, value in heads.items():
        out |= {f"joint.{name}": value.detach().float(), f"joint_grad.{name}": value.grad.float()}
    for name, value in model.named_parameters():
        if name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"):
            out[f"joint_grad.{name}"] = value.grad.float()
    return out


# transformers names float32 inside norms and rotary embeddings.
micro = AutoModelForCausalLM.from_pretrained(HERE / "micro-text", attn_implementation="eager").double()
single = torch.float32
torch.float32 = torch.float64
try:
    tensors |= joint(micro)
finally:
    torch.float32 = single
save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "ranking.safetensors")
(HERE / "ranking.json").write_text(json.dumps(about, indent=1) + "\n")
print(len(tensors), "tensors", sum(v.numel() * v.element_size() for v in tensors.values()), "bytes")
