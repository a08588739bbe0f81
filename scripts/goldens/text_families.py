"""Goldens of the text decoders: llama with every rope type in new and old spelling, qwen3 tied and untied."""
import json
import os

import torch

from cases import forward_rows, greedy, measure
from reference import GOLDENS, error, float64_everywhere, load, make_checkpoint, plain_float32, tokens, write

SHAPE = dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
             bos_token_id=None, eos_token_id=505, pad_token_id=503)


def text_rows(name, *lengths):
    return [{"prompt_ids": tokens(f"{name}.prompt{i}", p), "completion_ids": tokens(f"{name}.completion{i}", c)} for i, (p, c) in enumerate(lengths)]


SHORT = [1.0, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4]
LONG = [1.0, 1.3, 1.8, 2.5, 3.2, 4.0, 5.5, 7.0]
# name: (max_position_embeddings, rope_parameters, further config keys)
ROPES = {
    "default": (128, {"rope_type": "default", "rope_theta": 10000.0}),
    "linear": (128, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}),
    "dynamic": (32, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
    "llama3": (256, {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 32}),
    "yarn": (128, {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}),
    "yarn-attention-factor": (128, {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32,
                                    "attention_factor": 0.85, "beta_fast": 4.0, "beta_slow": 0.25}),
    "yarn-mscale": (128, {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 0.707,
                          "mscale_all_dim": 1.3, "truncate": False, "beta_fast": 2.0}),
    "longrope": (128, {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32,
                       "short_factor": SHORT, "long_factor": LONG}),
    "longrope-attention-factor": (128, {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32,
                                        "attention_factor": 1.25, "short_factor": SHORT, "long_factor": LONG}),
}
# name: (name of the equal config or None, changes to a transformers 4 config)
OLD = {
    "old-default": ("default", 128, {"rope_theta": 10000.0, "rope_scaling": None}),
    "old-no-theta": ("default", 128, {}),
    "old-linear-type": ("linear", 128, {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.5}}),
    "old-linear-rope-type": ("linear", 128, {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
    "old-dynamic": ("dynamic", 32, {"rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    "old-llama3": ("llama3", 256, {"rope_theta": 10000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
    "old-yarn": ("yarn", 128, {"rope_theta": 10000.0, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}),
    "old-yarn-without-original": (None, 32, {"rope_theta": 10000.0, "rope_scaling": {"type": "yarn", "factor": 4.0}}),
    "old-longrope": ("longrope-attention-factor", 128, {"rope_theta": 10000.0, "original_max_position_embeddings": 32, "rope_scaling": {
        "type": "longrope", "attention_factor": 1.25, "short_factor": SHORT, "long_factor": LONG}}),
}


def llama_config(limit, rope):
    from transformers import LlamaConfig

    return LlamaConfig(**SHAPE, num_hidden_layers=2, max_position_embeddings=limit, tie_word_embeddings=False, rope_parameters=dict(rope),
                       attention_bias=False, mlp_bias=False)


def fresh_rope(model):
    """Rope types with state forget the rows before: transformers itself keeps the frequencies of the longest row seen."""
    inner = model.model
    with plain_float32():
        inner.rotary_emb = type(inner.rotary_emb)(config=model.config)


def frequencies(cls, config, rows):
    """The inverse frequencies and the attention factor that each row's forward pass used."""
    model = load(cls, "micro-llama", torch.float32, config)
    out = []
    for row in rows:
        with torch.no_grad():
            forward_rows(model, [row], torch.float32, fresh_rope)
        out.append({"inv_freq": [float(x) for x in model.model.rotary_emb.inv_freq], "attention_factor": float(model.model.rotary_emb.attention_scaling)})
    return out


def llama():
    from transformers import AutoConfig, LlamaForCausalLM

    limit, rope = ROPES["default"]
    make_checkpoint("micro-llama", LlamaForCausalLM, llama_config(limit, rope))
    rows = text_rows("llama", (12, 6), (40, 8), (1, 5))
    tensors, info = measure("llama", LlamaForCausalLM, "micro-llama", rows, reset=fresh_rope)
    info["generate"] = greedy(LlamaForCausalLM, "micro-llama", rows)

    folder = os.path.join(GOLDENS, "micro-llama")
    with open(os.path.join(folder, "config.json"), encoding="utf8") as f:
        plain = json.load(f)
    ropes, rows = {}, text_rows("llama.rope", (12, 6), (40, 8))
    keep = lambda n: "layers.0" in n and n.endswith(("q_proj.weight", "k_proj.weight"))  # noqa: E731
    for name, (limit, rope) in ROPES.items():
        file = f"config-{name}.json"
        changed = plain | {"max_position_embeddings": limit, "rope_parameters": rope}
        save_config(folder, file, changed)
        config = AutoConfig.from_pretrained(os.path.join(folder, file))
        t, case = measure("llama.rope", LlamaForCausalLM, "micro-llama", rows, config=config, reset=fresh_rope, keep=keep, lm=False)
        case |= {"config": file, "frequencies": frequencies(LlamaForCausalLM, config, rows)}
        if name not in ("dynamic",):  # its generation rotates old keys by other frequencies than a forward pass does
            case["generate"] = greedy(LlamaForCausalLM, "micro-llama", rows, config=config)
        tensors |= {f"{name}.{k}": v for k, v in t.items()}
        ropes[name] = case
    olds = {}
    for name, (same, limit, change) in OLD.items():
        file = f"config-{name}.json"
        changed = {k: v for k, v in plain.items() if k != "rope_parameters"} | {"max_position_embeddings": limit} | change
        changed["torch_dtype"] = changed.pop("dtype")
        changed["transformers_version"] = "4.46.0"
        save_config(folder, file, changed)
        config = AutoConfig.from_pretrained(os.path.join(folder, file))
        olds[name] = {"config": file, "same_as": same, "frequencies": frequencies(LlamaForCausalLM, config, rows)}
        if same is not None:
            assert olds[name]["frequencies"] == ropes[same]["frequencies"], name
            model = load(LlamaForCausalLM, "micro-llama", torch.float64, config)
            with float64_everywhere(), torch.no_grad():
                got = torch.cat(forward_rows(model, rows, torch.float64, fresh_rope))
            assert error(got, tensors[f"{same}.logits_64"])["max_abs"] < 1e-6, name
    info |= {"ropes": ropes, "old_spellings": olds, "note": [
        "config-*.json beside micro-llama/config.json share its model.safetensors; tensors of a rope type are prefixed with its name",
        "dynamic and longrope look at the row's own length (largest position + 1). transformers keeps dynamic's frequencies of the longest row seen "
        "so far until a row shorter than max_position_embeddings comes: here every row starts afresh",
        "longrope takes the long factors when the length exceeds original_max_position_embeddings; the attention factor does not change with it",
        "old-yarn-without-original: the original length is max_position_embeddings"]}
    write("llama", tensors, info)


def save_config(folder, file, config):
    with open(os.path.join(folder, file), "w", encoding="utf8") as f:
        json.dump(config, f, indent=2)
        f.write("\n")


def qwen3():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    for name, layers, tied in (("qwen3", 2, True), ("qwen3_untied", 1, False)):
        folder = "micro-" + name.replace("_", "-")
        make_checkpoint(folder, Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=32, num_hidden_layers=layers, max_position_embeddings=128,
                                                              tie_word_embeddings=tied, rope_parameters=rope, attention_bias=False))
        rows = text_rows(name, (10, 9), (31, 6), (1, 4))
        tensors, info = measure(name, Qwen3ForCausalLM, folder, rows)
        info["generate"] = greedy(Qwen3ForCausalLM, folder, rows)
        write(name, tensors, info)


__all__ = ["llama", "qwen3", "text_rows"]
