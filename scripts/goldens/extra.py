#!/usr/bin/env python3
"""Makes test/goldens/extra.{json,safetensors} with transformers in float64: what the other goldens do not cover.

nll      micro-text, two groups of one prompt and several completions: the mean negative log-likelihood of the completion
         tokens at temperature 1 and the gradient of every parameter. transformers runs every completion with its own copy of
         the prompt, so equality also proves that sharing the prompt changes nothing.
windows  micro-vl, one picture of 10 x 14 merged units, so that window attention has whole and cut windows: image features,
         log-probs and the gradient of every vision parameter.

    python scripts/goldens/extra.py        (torch 2.13.0, transformers 5.17.0, safetensors, numpy)
"""
import contextlib
import json
import os

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "goldens")


@contextlib.contextmanager
def float64_everywhere():
    """transformers casts to float32 inside norms and rotary embeddings: alias the name while it runs."""
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved
        torch.set_default_dtype(torch.float32)


def load(cls, name):
    return cls.from_pretrained(os.path.join(GOLDENS, name), dtype=torch.float64, attn_implementation="eager").eval()


def completion_logprobs(logits, prompt, completion):
    rows = torch.log_softmax(logits[0, len(prompt) - 1 : len(prompt) + len(completion) - 1], -1)
    return rows.gather(-1, torch.tensor(completion)[:, None])[:, 0]


def main():
    torch.set_num_threads(1)
    rng = np.random.default_rng(5)
    tensors, meta = {}, {"source": "transformers 5.17.0, torch 2.13.0, float64"}

    words = lambda n: [int(x) for x in rng.integers(5, 500, n)]  # noqa: E731
    groups = [{"prompt": words(70), "completions": [words(9), words(1), words(30)]}, {"prompt": words(3), "completions": [words(80), words(4)]}]
    model = load(AutoModelForCausalLM, "micro-text")
    with float64_everywhere():
        logps = []
        for g in groups:
            for c in g["completions"]:
                ids = torch.tensor([g["prompt"] + c])
                logps.append(completion_logprobs(model(input_ids=ids, use_cache=False).logits, g["prompt"], c))
        loss = -torch.cat(logps).mean()
        loss.backward()
    meta["nll"] = {"groups": groups, "loss": float(loss)}
    tensors["nll.logps"] = torch.cat(logps).detach()
    for name, p in model.named_parameters():
        tensors["nll.grad." + name] = p.grad.to(torch.float32)

    grid, columns, merge = [1, 20, 28], 1176, 2
    count = grid[1] * grid[2]
    pixels = torch.from_numpy(rng.uniform(-1.5, 1.5, (count, columns))).to(torch.float32)
    image, start, end = 508, 506, 507
    prompt = words(6) + [start] + [image] * (count // merge**2) + [end] + words(5)
    completion = words(7)
    model = load(AutoModelForImageTextToText, "micro-vl")
    with float64_everywhere():
        ids = torch.tensor([prompt + completion])
        kinds = (ids == image).to(torch.int64)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, pixel_values=pixels.double(),
                    image_grid_thw=torch.tensor([grid]), use_cache=False)
        logp = completion_logprobs(out.logits, prompt, completion)
        loss = -logp.mean()
        loss.backward()
    meta["windows"] = {"grid": grid, "prompt": prompt, "completion": completion, "loss": float(loss)}
    tensors["windows.pixels"] = pixels
    tensors["windows.logps"] = logp.detach()
    for name, p in model.named_parameters():
        if "visual" in name:
            tensors["windows.grad." + name.replace("model.visual.", "visual.")] = p.grad.to(torch.float32)

    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(GOLDENS, "extra.safetensors"))
    with open(os.path.join(GOLDENS, "extra.json"), "w", encoding="utf8") as f:
        json.dump(meta, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
