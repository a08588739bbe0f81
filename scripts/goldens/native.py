"""Writes test/goldens/native.safetensors: whole models in float64 for the native test programs, which have no Node.

PEERS/bin/python scripts/goldens/native.py. A case is two groups of one prompt and several completions. transformers runs every
completion as a row of its own, unshared and unpadded, in float64, over the weights of test/goldens/MODEL/model.safetensors as they
are (fp32) and rounded to bfloat16 (bf16). Tensors of case NAME:
  NAME.config.KEY            numbers of config.json under dotted names, text_config lifted to the top
  NAME.groups                [groups, 2]: tokens of the prompt, completions
  NAME.prompts NAME.lengths NAME.completions    all concatenated in order
  NAME.pixels NAME.grid      of the picture in each group's prompt, where there is one
  NAME.advantages NAME.DTYPE.old NAME.DTYPE.reference      a completion, a completion token
  NAME.DTYPE.logps NAME.DTYPE.entropies NAME.DTYPE.loss NAME.DTYPE.grad.PARAMETER
GRPO as reference.py has it (dapo, clip 0.2 and 0.28, k3 of weight 0.04, temperature 0.9).
"""
import json
import math
import os

import torch

from cases import ADVANTAGES, forward_rows, gradients, grpo_loss, logprobs_of
from reference import GOLDENS, GRPO, disk_names, float64_everywhere, load, pixels, save_tensors, tokens, uniform

GRID = (1, 12, 16)


def off_policy(name, count):
    """Old log-probs' distance from the policy's: no ratio within a tenth of where the loss clips it, so that bfloat16 clips alike."""
    gap = uniform(f"native.{name}.old", count, scale=0.35)
    for edge in (1 - GRPO["epsilon"], 1 + GRPO["epsilon_high"]):
        edge = -math.log(edge)
        near = (gap - edge).abs() < 0.1
        gap[near] = edge + 0.1 * torch.where(gap[near] < edge, -1.0, 1.0).double()
    return gap


def groups_of(name, picture):
    made = []
    for g, (prompt, lengths) in enumerate([(70, (5, 9, 7)), (9, (12, 3, 6))]):
        ids, types = tokens(f"native.{name}.prompt{g}", prompt), [0] * prompt
        if picture:
            count = GRID[1] * GRID[2] // 4
            ids, types = [506] + [508] * count + [507] + ids, [0] + [1] * count + [0] + types
        made.append((ids, types, [tokens(f"native.{name}.completion{g}.{i}", n) for i, n in enumerate(lengths)]))
    return made


def flatten(config):
    """What src/engine/model-config.ts gives the native side, numbers alone."""
    numbers = {}

    def walk(value, prefix):
        for key, one in value.items():
            if isinstance(one, dict):
                walk(one, f"{prefix}{key}.")
            elif isinstance(one, (bool, int, float)):
                numbers[prefix + key] = [float(one)]
            elif isinstance(one, list) and one and all(isinstance(x, (bool, int, float)) for x in one):
                numbers[prefix + key] = [float(x) for x in one]
    walk({k: v for k, v in config.items() if k != "text_config"} | config.get("text_config", {}), "")
    return numbers


def case(name, cls, folder, picture=False):
    groups = groups_of(name, picture)
    rows, images = [], []
    for g, (ids, types, completions) in enumerate(groups):
        more = {}
        if picture:
            images.append(pixels(700 + g, GRID[1] * GRID[2], 1176))
            more = {"types": types, "forward": {"pixel_values": images[-1], "image_grid_thw": torch.tensor([GRID])}}
        rows += [{"prompt_ids": ids, "completion_ids": one} | more for one in completions]
    drawn = [token for row in rows for token in row["completion_ids"]]
    lengths = [len(row["completion_ids"]) for row in rows]
    advantages = torch.tensor(ADVANTAGES[: len(rows)], dtype=torch.float64)
    with open(os.path.join(GOLDENS, folder, "config.json"), encoding="utf8") as file:
        numbers = flatten(json.load(file))
    whole = lambda values: torch.tensor(values, dtype=torch.int64)  # noqa: E731
    out = {f"config.{key}": torch.tensor(value, dtype=torch.float64) for key, value in numbers.items()}
    out |= {"groups": whole([[len(ids), len(c)] for ids, _, c in groups]), "prompts": whole([t for ids, _, _ in groups for t in ids]),
            "lengths": whole(lengths), "completions": whole(drawn), "advantages": advantages}
    if picture:
        out |= {"pixels": torch.stack(images), "grid": whole(GRID)}
    for dtype in ("fp32", "bf16"):
        model = load(cls, folder, torch.float64)
        names = disk_names(model, folder)
        if dtype == "bf16":
            with torch.no_grad():
                for p in model.parameters():
                    p.copy_(p.to(torch.float32).to(torch.bfloat16).double())
        with float64_everywhere():
            logps, entropies = logprobs_of(torch.cat(forward_rows(model, rows, torch.float64)), drawn, GRPO["temperature"])
            # Exact in float32, which is what the engine is given.
            old = (logps.detach() + off_policy(name, len(drawn))).numpy().astype("float32")
            reference = (logps.detach() + uniform(f"native.{name}.ref", len(drawn), scale=0.5)).numpy().astype("float32")
            old, reference = (torch.from_numpy(x.astype("float64")) for x in (old, reference))
            loss = grpo_loss(logps, old, reference, advantages, lengths)
            loss.backward()
            found = gradients(model, names)
        out |= {f"{dtype}.logps": logps.detach(), f"{dtype}.entropies": entropies.detach(), f"{dtype}.old": old,
                f"{dtype}.reference": reference, f"{dtype}.loss": loss.detach()[None]}
        out |= {f"{dtype}.grad.{n}": torch.from_numpy(g.numpy().astype("float32")) for n, g in found.items()}
    return {f"{name}.{key}": value.contiguous().clone() for key, value in out.items()}


def main():
    import transformers

    tensors = case("qwen2", transformers.Qwen2ForCausalLM, "micro-text")
    tensors |= case("qwen2_5_vl", transformers.Qwen2_5_VLForConditionalGeneration, "micro-vl", picture=True)
    tensors |= case("qwen3", transformers.Qwen3ForCausalLM, "micro-qwen3")
    path = os.path.join(GOLDENS, "native.safetensors")
    save_tensors(tensors, path)
    print(f"{path}: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


main()
