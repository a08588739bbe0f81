"""One golden case: logits, log-probs, entropies, GRPO and LM losses and gradients of a few rows, in float64 and float32.

A row is {prompt_ids, completion_ids, forward}: `forward` holds further arguments of the model's forward pass (pixel values,
grids), of which the floating ones follow the number format. Values of all rows' completion tokens are concatenated in order.
"""
import contextlib

import torch

from reference import GRPO, disk_names, error, float64_everywhere, load, uniform

ADVANTAGES = [1.25, -0.75, 0.5, -1.125, 0.875, -0.25]


def forward_rows(model, rows, dtype, reset=None):
    """Logits that predict the completion tokens, one tensor a row."""
    out = []
    for row in rows:
        if reset is not None:
            reset(model)
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        extra = {k: v.to(dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in row.get("forward", {}).items()}
        if "types" in row:
            kinds = torch.tensor([row["types"] + [0] * len(row["completion_ids"])])
            extra["mm_token_type_ids"] = kinds
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **extra).logits[0]
        out.append(logits[len(row["prompt_ids"]) - 1 : -1])
    return out


def logprobs_of(logits, ids, temperature=1.0):
    log_p = torch.log_softmax(logits / temperature, -1)
    return log_p.gather(-1, torch.tensor(ids)[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def grpo_loss(logps, old, ref, advantages, lengths):
    a = torch.cat([advantages[i].expand(n) for i, n in enumerate(lengths)])
    ratio = torch.exp(logps - old)
    clipped = ratio.clamp(1 - GRPO["epsilon"], 1 + GRPO["epsilon_high"])
    k3 = torch.exp(ref - logps) - (ref - logps) - 1
    return (-torch.minimum(ratio * a, clipped * a) + GRPO["beta"] * ratio * k3).sum() / sum(lengths)


def gradients(model, names):
    found = {names[n]: p.grad.detach().clone() if p.grad is not None else torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return found


def sample_of(name, g):
    flat = g.flatten()
    at = [int(x) for x in ((uniform("at." + name, 8) + 1) / 2 * flat.numel()).floor().clamp(0, flat.numel() - 1)]
    return {"norm": float(flat.norm()), "at": at, "values": [float(flat[i]) for i in at]}


def measure(name, cls, folder, rows, config=None, reset=None, keep=lambda _: True, lm=True, prepare=None):
    """(tensors, info): `keep` chooses the GRPO gradients stored whole; all others, and the LM's, go to the JSON as samples."""
    ids = [i for row in rows for i in row["completion_ids"]]
    lengths = [len(row["completion_ids"]) for row in rows]
    advantages = torch.tensor(ADVANTAGES[: len(rows)], dtype=torch.float64)
    results, base = {}, None
    for dtype in (torch.float64, torch.float32):
        model = load(cls, folder, dtype, config)
        names = disk_names(model, folder)
        if prepare is not None:
            model, names = prepare(model, names)
        with float64_everywhere() if dtype == torch.float64 else contextlib.nullcontext():
            logits = torch.cat(forward_rows(model, rows, dtype, reset))
            logps, entropies = logprobs_of(logits, ids, GRPO["temperature"])
            if base is None:
                base = logps.detach().clone()
                old, ref = base + uniform(name + ".old", len(ids), scale=0.35), base + uniform(name + ".ref", len(ids), scale=0.5)
            loss = grpo_loss(logps, old.to(dtype), ref.to(dtype), advantages.to(dtype), lengths)
            loss.backward()
            r = {"logits": logits.detach(), "logps": logps.detach(), "entropies": entropies.detach(), "grpo_loss": float(loss.detach()), "grpo": gradients(model, names)}
            if lm:
                plain, _ = logprobs_of(torch.cat(forward_rows(model, rows, dtype, reset)), ids)
                lm_loss = -plain.mean()
                lm_loss.backward()
                r |= {"lm_loss": float(lm_loss.detach()), "lm": gradients(model, names)}
        results[dtype] = r
    hi, lo = results[torch.float64], results[torch.float32]
    tensors = {"logits_64": hi["logits"].to(torch.float32), "logps_64": hi["logps"], "entropies_64": hi["entropies"], "advantages": advantages,
               "old_per_token_logps": old, "ref_per_token_logps": ref}
    errors = {k: error(lo[k], hi[k]) for k in ("logits", "logps", "entropies")}
    info = {"model": folder, "rows": [{k: v for k, v in row.items() if k != "forward"} for row in rows], "grpo_config": GRPO,
            "grpo_loss_64": hi["grpo_loss"], "grpo_loss_32": lo["grpo_loss"], "grpo_grad_samples": {}, "errors_of_torch_float32": errors}
    for kind in ("grpo", "lm") if lm else ("grpo",):
        errors[kind + "_grads"] = {}
        for n, g in hi[kind].items():
            errors[kind + "_grads"][n] = error(lo[kind][n], g) | {"norm": float(g.norm())}
            if kind == "grpo" and keep(n):
                tensors["grpo_grad." + n] = g.to(torch.float32)
            else:
                info.setdefault(kind + "_grad_samples", {})[n] = sample_of(n, g)
    if lm:
        info |= {"lm_loss_64": hi["lm_loss"], "lm_loss_32": lo["lm_loss"]}
    if not info["grpo_grad_samples"]:
        del info["grpo_grad_samples"]
    return tensors, info


def greedy(cls, folder, rows, count=8, config=None):
    """Greedy tokens of each prompt in float32, end tokens suppressed; an engine may differ where the margin is under 1e-4."""
    out = []
    for row in rows:
        model = load(cls, folder, torch.float32, config)
        prompt = torch.tensor([row["prompt_ids"]])
        extra = dict(row.get("forward", {}))
        if "types" in row:
            extra["mm_token_type_ids"] = torch.tensor([row["types"]])
        with torch.no_grad():
            made = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, min_new_tokens=count, do_sample=False,
                                  output_logits=True, return_dict_in_generate=True, **extra)
        chosen = made.sequences[0, prompt.shape[1] :]
        raw = torch.stack(made.logits, 1)[0].double()
        raw[:, 505] = -torch.inf
        logps = torch.log_softmax(torch.stack(made.logits, 1)[0].double(), -1).gather(-1, chosen[:, None])[:, 0]
        top = raw.topk(2, -1).values
        out.append({"tokens": chosen.tolist(), "logps": logps.tolist(), "margin_to_second": (top[:, 0] - top[:, 1]).tolist()})
    return out


def feature_rows(value):
    """The pooled features of get_image_features and get_video_features in one table."""
    value = value.pooler_output if hasattr(value, "pooler_output") else value
    return torch.cat(list(value)) if isinstance(value, (tuple, list)) else value


__all__ = ["feature_rows", "forward_rows", "greedy", "grpo_loss", "logprobs_of", "measure"]
