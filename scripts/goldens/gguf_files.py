#!/usr/bin/env python3
"""Makes test/goldens/gguf/: small GGUF files and what the `gguf` package's reference dequantizers read in them.

blocks.gguf      one matrix of every storage type, of random blocks (every bit pattern of the codes, finite scales).
blocks.safetensors   the same matrices in float32.
micro-llama.gguf and micro-qwen2.gguf   the first layer of the micro checkpoints of test/goldens in mixed types, with the names,
                 the row order of q and k and the metadata that converters write, and a byte-level tokenizer.
models.safetensors   q and k of the first, dequantized and in the checkpoint's order.

    python scripts/goldens/gguf_files.py        (gguf 0.19.0, safetensors, numpy)
"""
import json
import os

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "goldens")
OUT = os.path.join(GOLDENS, "gguf")
RANDOM = np.random.default_rng(7)


def random_blocks(kind, rows, cols):
    """Raw bytes of a matrix: every bit pattern of codes, scales that are ordinary half floats."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = RANDOM.integers(0, 256, (rows * cols // block, size), dtype=np.uint8)
    scales = {Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q4_K: [0, 2], Type.Q6_K: [208]}[kind]
    for at in scales:
        values = RANDOM.normal(0, 0.02, len(raw)).astype(np.float16)
        values[0] = np.float16(3e-7)  # a denormal half
        raw[:, at : at + 2] = values.view(np.uint8).reshape(-1, 2)
    return raw.reshape(rows, -1)


def write_blocks():
    writer = gguf.GGUFWriter(os.path.join(OUT, "blocks.gguf"), "llama")
    values = {}
    for kind in (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q4_K, Type.Q6_K):
        raw = random_blocks(kind, 2, 512)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        values[kind.name] = np.ascontiguousarray(gguf.dequantize(raw, kind).reshape(2, 512).astype(np.float32))
    plain = RANDOM.normal(0, 1, (2, 512)).astype(np.float32)
    for kind in (Type.F32, Type.F16, Type.BF16):
        raw = gguf.quantize(plain, kind)
        writer.add_tensor(kind.name, raw, raw_dtype=kind if kind == Type.BF16 else None)
        values[kind.name] = np.ascontiguousarray(gguf.dequantize(raw, kind).astype(np.float32).reshape(2, 512))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(values, os.path.join(OUT, "blocks.safetensors"))


def interleave(weight, heads):
    """The rows of rotary halves as the pairs that llama.cpp rotates."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    stem, suffix = name.rsplit(".", 1)
    if not stem.startswith("model.layers."):
        return f"{NAMES[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.{suffix}"


def byte_tokens(vocabulary):
    """A byte-level vocabulary with a few merges, padded with unused tokens; special tokens at the end."""
    alphabet = sorted(gguf_bytes().values())
    merges = ["Ġ t", "h e", "Ġt he", "i n", "e r", "1 2", "Ċ Ċ"]
    tokens = alphabet + [merge.replace(" ", "") for merge in merges]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens += [f"[PAD{i}]" for i in range(vocabulary - len(tokens) - len(special))] + special
    kinds = [1 if i < len(alphabet) + len(merges) else 5 for i in range(len(tokens))]
    for token in special:
        kinds[tokens.index(token)] = 3
    return tokens, kinds, merges


def gguf_bytes():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [byte for byte in range(256) if byte not in keep]
    return {byte: chr(byte) for byte in keep} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def write_model(folder, architecture):
    config = json.load(open(os.path.join(GOLDENS, folder, "config.json")))
    tensors = load_file(os.path.join(GOLDENS, folder, "model.safetensors"))
    writer = gguf.GGUFWriter(os.path.join(OUT, f"micro-{architecture}.gguf"), architecture)
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_name(f"micro {architecture}")
    writer.add_block_count(1)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or config
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    tokens, kinds, merges = byte_tokens(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if architecture == "llama" else "qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_pad_token_id(len(tokens) - 3)
    writer.add_chat_template(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    kinds_of = {"attn_k": Type.F32, "ffn_up": Type.Q4_0, "ffn_gate": Type.Q4_1, "attn_v": Type.F16, "ffn_down": Type.BF16}
    values = {}
    for name, weight in tensors.items():
        if "layers.1." in name or (name == "lm_head.weight" and config.get("tie_word_embeddings")):
            continue
        stored = weight.astype(np.float32)
        short = gguf_name(name)
        if architecture == "llama" and ".attn_q." in short:
            stored = interleave(stored, heads)
        if architecture == "llama" and ".attn_k." in short:
            stored = interleave(stored, kv)
        kind = Type.F32 if stored.ndim == 1 else kinds_of.get(short.split(".")[-2], Type.Q8_0)
        raw = gguf.quantize(stored, kind)
        writer.add_tensor(short, raw, raw_dtype=None if kind in (Type.F32, Type.F16) else kind)
        # Whole again, in the order of the checkpoint.
        back = gguf.dequantize(raw, kind).astype(np.float32).reshape(stored.shape)
        if architecture == "llama" and (".attn_q." in short or ".attn_k." in short):
            n = heads if ".attn_q." in short else kv
            back = back.reshape(n, back.shape[0] // n // 2, 2, *back.shape[1:]).swapaxes(1, 2).reshape(back.shape)
        values[name] = np.ascontiguousarray(back)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


os.umask(0o022)
os.makedirs(OUT, exist_ok=True)
write_blocks()
expected = {}
for folder, architecture in (("micro-llama", "llama"), ("micro-text", "qwen2")):
    for name, value in write_model(folder, architecture).items():
        # What the row order moves: the types are tested by blocks.gguf.
        if architecture == "llama" and name.endswith(("layers.0.self_attn.q_proj.weight", "layers.0.self_attn.k_proj.weight")):
            expected[f"{architecture}.{name}"] = value.astype(np.float32)
save_file(expected, os.path.join(OUT, "models.safetensors"))
for name in os.listdir(OUT):
    os.chmod(os.path.join(OUT, name), 0o644)
