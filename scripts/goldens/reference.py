"""Float64 reference runs of transformers models, shared by the scripts beside this file (see families.py for the usage).

Weights come from a counter hash, so any language can make them again; every row runs alone, unpadded, with positions from 0.
GRPO: Shao et al. 2024 (arXiv:2402.03300) with DAPO's token mean and asymmetric clip (arXiv:2503.14476); KL estimator k3
(Schulman 2020), weighted by the ratio as TRL 1.13 does by default.
"""
import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

GOLDENS = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "goldens"))
GRPO = dict(loss_type="dapo", beta=0.04, epsilon=0.2, epsilon_high=0.28, temperature=0.9)
FLOAT32 = torch.float32
MASK = (1 << 64) - 1


# ------------------------------------------------------------------------------------------------------ number formats
def _alias(dtype, method):
    torch.float32 = torch.float = dtype
    torch.Tensor.float = method
    torch.set_default_dtype(dtype)


_SINGLE = torch.Tensor.float


@contextlib.contextmanager
def float64_everywhere():
    """transformers casts to float32 inside norms and rotary embeddings: alias the name while it runs."""
    _alias(torch.float64, torch.Tensor.double)
    try:
        yield
    finally:
        _alias(FLOAT32, _SINGLE)


@contextlib.contextmanager
def plain_float32():
    """Inside float64_everywhere: what must stay float32, such as the inverse frequencies."""
    was = torch.float32
    _alias(FLOAT32, _SINGLE)
    try:
        yield
    finally:
        if was == torch.float64:
            _alias(torch.float64, torch.Tensor.double)


def keep_frequencies_in_float32():
    """Rope types that recompute frequencies in the forward pass must still round them to float32, as every engine sees them."""
    from transformers import modeling_rope_utils as rope

    def wrap(compute):
        def rounded(*args, **kwargs):
            with plain_float32():
                return compute(*args, **kwargs)

        return rounded

    for kind in list(rope.ROPE_INIT_FUNCTIONS):
        rope.ROPE_INIT_FUNCTIONS[kind] = wrap(rope.ROPE_INIT_FUNCTIONS[kind])


# ------------------------------------------------------------------------------------------------------- counter hashes
def _fnv1a(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def hash_uniform(name, shape):
    """float32 in [-1, 1): splitmix64(fnv1a64(name) + i), its upper 24 bits."""
    with np.errstate(over="ignore"):
        z = np.uint64(_fnv1a(name)) + np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return u.reshape(shape)


def uniform(name, *shape, scale=1.0):
    return torch.from_numpy(hash_uniform("golden." + name, shape)).double() * scale


def tokens(name, count, low=5, high=503):
    u = (hash_uniform("golden." + name, (count,)).astype(np.float64) + 1) / 2
    return [int(x) for x in np.floor(u * (high - low)) + low]


def pixels(seed, *shape):
    """Exact float32 pixels of a 32-bit integer hash (Wellons' lowbias32): (byte - 127.5) / 64 of element i."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
    return torch.from_numpy(((x >> np.uint32(24)).astype(np.float32) - np.float32(127.5)) / np.float32(64)).reshape(shape)


PIXELS = ("flat element i of item `seed`: x = i + seed * 0x9E3779B9 (mod 2^32); x = (x ^ x>>>16) * 0x7FEB352D; "
          "x = (x ^ x>>>15) * 0x846CA68B; x ^= x>>>16; value = ((x >>> 24) - 127.5) / 64, exact in float32")


def weight(name, shape, hidden):
    u = hash_uniform(name, shape)
    if len(shape) == 1:
        u = u * np.float32(0.1)
        return np.float32(1) + u if name.endswith(".weight") else u
    owner = name.split(".")[-2]
    wide = "embed_tokens" in name or owner in ("lm_head", "position_embedding")
    std = 1.5 / math.sqrt(hidden) if wide else 1 / math.sqrt(int(np.prod(shape[1:])))
    return u * np.float32(np.float32(std * math.sqrt(3.0)))


# ---------------------------------------------------------------------------------------------------------- checkpoints
def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def make_checkpoint(folder, cls, config, tokenizer=True):
    """A whole folder with hashed weights; names and shapes as save_pretrained writes them."""
    import transformers

    config.dtype = torch.float32
    path = os.path.join(GOLDENS, folder)
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model = cls(config)
        model.generation_config = transformers.GenerationConfig(eos_token_id=505, pad_token_id=503)
        model.save_pretrained(scratch)
        with safe_open(os.path.join(scratch, "model.safetensors"), "pt") as f:
            shapes = {k: f.get_slice(k).get_shape() for k in f.keys()}
        for name in ("config.json", "generation_config.json"):
            shutil.copyfile(os.path.join(scratch, name), os.path.join(path, name))
    hidden = config.get_text_config().hidden_size
    tensors = {k: torch.from_numpy(weight(k, tuple(s), hidden)).contiguous() for k, s in shapes.items()}
    save_tensors(tensors, os.path.join(path, "model.safetensors"))
    if tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(os.path.join(GOLDENS, "micro-text", name), os.path.join(path, name))
    return sum(int(np.prod(s)) for s in shapes.values())


def save_tensors(tensors, path):
    save_file(tensors, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)


def load(cls, folder, dtype, config=None):
    model = cls.from_pretrained(os.path.join(GOLDENS, folder), dtype=torch.float32, attn_implementation="sdpa",
                                **({"config": config} if config is not None else {}))
    return model.to(dtype).eval()


def disk_names(model, folder):
    """{parameter name in memory: name on disk}, matched by content (vision-language classes rename on save)."""
    disk = {digest(v.numpy()): k for k, v in load_file(os.path.join(GOLDENS, folder, "model.safetensors")).items()}
    return {n: disk[digest(p.detach().to(FLOAT32).numpy())] for n, p in model.named_parameters()}


def write(name, tensors, meta):
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    if tensors:
        save_tensors(tensors, os.path.join(GOLDENS, name + ".safetensors"))
    meta = dict(meta)
    if tensors:
        meta["tensors"] = {k: {"shape": list(v.shape), "dtype": str(v.dtype).removeprefix("torch.")} for k, v in tensors.items()}
    with open(os.path.join(GOLDENS, name + ".json"), "w", encoding="utf8") as f:
        json.dump(meta, f, indent=1, ensure_ascii=False)
        f.write("\n")


def error(a, b):
    d, b = a.double() - b.double(), b.double()
    return {"max_abs": float(d.abs().max()), "rel_l2": float(d.norm() / b.norm().clamp(min=1e-300))}
