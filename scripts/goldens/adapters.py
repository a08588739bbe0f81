"""Goldens of LoRA through peft (Hu et al. 2021, arXiv:2106.09685; rsLoRA: arXiv:2312.03732) and of AdamW trajectories."""
import contextlib
import json
import os
import shutil

import torch

from cases import forward_rows, logprobs_of, measure
from reference import FLOAT32, GOLDENS, error, float64_everywhere, load, save_tensors, uniform, write
from text_families import text_rows

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name: LoraConfig arguments
ADAPTERS = {
    "list": dict(r=4, lora_alpha=8, target_modules=ALL),
    "rslora": dict(r=4, lora_alpha=8, target_modules=ALL, use_rslora=True),
    "all-linear": dict(r=2, lora_alpha=4, target_modules="all-linear"),
    "pattern": dict(r=4, lora_alpha=8, target_modules=r".*layers\.1\..*(q_proj|v_proj|down_proj)", rank_pattern={"down_proj": 2},
                    alpha_pattern={"q_proj": 3}),
    "tokens": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], trainable_token_indices=[300, 511]),
}


def short_name(name):
    return name.replace("base_model.model.", "").replace(".default", "")


def attach(name):
    """A `prepare` for cases.measure: wraps the model and fills the adapter with hashed float32 values."""
    from peft import LoraConfig, get_peft_model

    def prepare(model, names):
        wrapped = get_peft_model(model, LoraConfig(**ADAPTERS[name]), autocast_adapter_dtype=False)
        inverse = {}
        for n, p in wrapped.named_parameters():
            if p.requires_grad:
                inverse[n] = short_name(n)
                values = uniform(f"adapter.{name}.{short_name(n)}", *p.shape, scale=0.1)
                if "trainable_tokens" in n:  # rows of the embedding themselves: shifted, not replaced
                    values = p.detach().double() + values
                p.data = values.to(FLOAT32).to(p.dtype)
        return wrapped, inverse

    return prepare


def lora():
    from transformers import Qwen2ForCausalLM

    rows = text_rows("lora", (12, 7), (25, 9), (1, 4))
    rows[0]["prompt_ids"][2], rows[1]["completion_ids"][4], rows[1]["prompt_ids"][7] = 511, 300, 300  # the trainable tokens
    tensors, cases = {}, {}
    ids, plain = [i for row in rows for i in row["completion_ids"]], load(Qwen2ForCausalLM, "micro-text", torch.float64)
    with float64_everywhere(), torch.no_grad():
        base, _ = logprobs_of(torch.cat(forward_rows(plain, rows, torch.float64)), ids, 0.9)
    tensors["adapter_off.logps_64"] = base
    for name in ADAPTERS:
        t, info = measure("lora." + name, Qwen2ForCausalLM, "micro-text", rows, prepare=attach(name))
        tensors |= {f"{name}.{k}": v for k, v in t.items()}
        folder = "lora-" + name
        model, names = attach(name)(load(Qwen2ForCausalLM, "micro-text", torch.float32), None)
        path = os.path.join(GOLDENS, folder)
        shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(path)
        os.remove(os.path.join(path, "README.md"))
        tidy(path)
        merged = attach(name)(load(Qwen2ForCausalLM, "micro-text", torch.float64), None)[0].merge_and_unload()
        with float64_everywhere(), torch.no_grad():
            logits = torch.cat(forward_rows(merged, rows, torch.float64))
        info["merged_logits_difference"] = error(logits, tensors[f"{name}.logits_64"])
        for n, p in merged.named_parameters():
            if n in ("model.layers.1.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight") and name in ("list", "rslora"):
                tensors[f"{name}.merged.{n}"] = p.detach().to(FLOAT32)
        del info["rows"], info["model"]
        cases[name] = info | {"folder": folder, "trainable": sorted(names.values()), "arguments": ADAPTERS[name]}
    write("lora", tensors, {"model": "micro-text", "rows": rows, "cases": cases, "notes": [
        "tensors of a case are prefixed with its name; gradients are those of the adapter's own parameters, named as in its adapter_model.safetensors "
        "less base_model.model.", "adapter_off.logps_64 (temperature 0.9) is the policy with the adapter off",
        "merged weights give the logits of the adapter (merged_logits_difference: float64 against the stored, rounded logits); list.merged.* and rslora.merged.* hold two of them in float32",
        "scale is alpha / r, alpha / sqrt(r) for rslora; peft's rank_pattern and alpha_pattern change r and alpha of the matching layers",
        "tokens: rows 300 and 511 of the tied embedding train as whole rows, and the head sees them too"]})


def tidy(path):
    """peft orders some keys of its config by hash and names the folder of this machine: fix both."""
    file = os.path.join(path, "adapter_config.json")
    with open(file, encoding="utf8") as f:
        config = json.load(f)
    config["base_model_name_or_path"] = "../micro-text"
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    with open(file, "w", encoding="utf8") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")
    from safetensors.torch import load_file

    weights = os.path.join(path, "adapter_model.safetensors")
    save_tensors({k: v.contiguous() for k, v in sorted(load_file(weights).items())}, weights)


def trajectories():
    """Loss and gradient norm over AdamW steps (Loshchilov and Hutter 2017, arXiv:1711.05101) on one fixed batch."""
    from transformers import Qwen2ForCausalLM, get_scheduler

    rows, out = text_rows("trajectory", (12, 7), (25, 9), (1, 4)), {}
    ids = [i for row in rows for i in row["completion_ids"]]
    runs = {
        "all": dict(decay="all", schedule="constant", warmup=0, adapter=None, clip=1.0),
        "matrices": dict(decay="matrices", schedule="cosine", warmup=3, adapter=None, clip=1.0),
        "unclipped": dict(decay="matrices", schedule="linear", warmup=0, adapter=None, clip=None),
        "lora": dict(decay="all", schedule="linear", warmup=2, adapter="list", clip=1.0),
    }
    steps, lr, decay = 10, 3e-3, 0.1
    for name, run in runs.items():
        result = dict(run, steps=steps, lr=lr, weight_decay=decay, betas=[0.9, 0.95], eps=1e-8)
        for dtype, tag in ((torch.float64, "64"), (torch.float32, "32")):
            model = load(Qwen2ForCausalLM, "micro-text", dtype)
            if run["adapter"]:
                model, _ = attach(run["adapter"])(model, None)
            with float64_everywhere() if dtype == torch.float64 else contextlib.nullcontext():
                trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
                matrix = lambda n, p: p.ndim > 1 and "embed_tokens" not in n  # noqa: E731
                decayed = [p for n, p in trained if run["decay"] == "all" or matrix(n, p)]
                others = [p for n, p in trained if not (run["decay"] == "all" or matrix(n, p))]
                optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=lr,
                                              betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
                schedule = get_scheduler(run["schedule"], optimizer, num_warmup_steps=run["warmup"], num_training_steps=steps)
                trace = []
                for _ in range(steps):
                    optimizer.zero_grad()
                    loss = -logprobs_of(torch.cat(forward_rows(model, rows, dtype)), ids)[0].mean()
                    loss.backward()
                    norm = torch.nn.utils.clip_grad_norm_([p for _, p in trained], run["clip"] or 1e30)
                    trace.append({"loss": float(loss.detach()), "grad_norm": float(norm), "lr": schedule.get_last_lr()[0]})
                    optimizer.step()
                    schedule.step()
            result["trace_" + tag] = trace
            result["final_norms_" + tag] = {short_name(n): float(p.detach().double().norm()) for n, p in trained}
        out[name] = result
    write("trajectories", {}, {"model": "micro-text", "rows": rows, "runs": out, "notes": [
        "loss: mean negative log-likelihood of the completion tokens at temperature 1; lr is the rate of that step",
        "decay 'matrices' leaves out embeddings, norms and biases; the tied head counts as the embedding",
        "lora starts from the weights of lora-list"]})


__all__ = ["lora", "trajectories"]
