"""GRPO updates and decoding by PyTorch on one card, at the text shape of Qwen2.5-VL-3B with random weights. Text alone: ours
with a picture (rows "3.8B VL") run a vision tower besides and have no peer here.

cuda_steps.py [--prompts 2] [--decode-prompts 32] [--decode-tokens 128] [--device cpu --quick] [--out FILE]
- `TRL-style`: transformers' Qwen2 with SDPA, prompt repeated for every completion, micro-batches of 4 rows, gradient
  checkpointing, selective log-softmax: what TRL's trainer runs for an update, without its bookkeeping.
- `lean-prefix`: the same model by hand, prompt once a group through FlexAttention, log-probs in chunks, blocks compiled and
  checkpointed.
Each with LoRA of rank 32 on all linear layers (bf16 base, fp32 adapters) and with all weights (bf16, fused AdamW).
- `transformers generate`: sampled decoding, every prompt repeated.
"""
import time

import torch
import torch.utils.checkpoint
from cuda_rows import Bench, options

F = torch.nn.functional
chosen = options(
    lambda p: p.add_argument("--prompts", type=int, default=2, help="of an update; figures are per completion token"),
    lambda p: p.add_argument("--decode-prompts", type=int, default=32),
    lambda p: p.add_argument("--decode-tokens", type=int, default=128))
bench = Bench(chosen)
device, quick = bench.device, chosen.quick
torch.manual_seed(0)
P, G, C, RANK = (37, 2, 9, 4) if quick else (1500, 8, 512, 32)
SHAPE = dict(vocab_size=1000, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2) if quick else dict(
    vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
    num_key_value_heads=2)
NAME = f"{chosen.prompts} prompts, {'tiny' if quick else '3.1B'} text"


def model_of():
    from transformers import Qwen2Config, Qwen2ForCausalLM
    config = Qwen2Config(**SHAPE, max_position_embeddings=4096, rope_theta=1e6, tie_word_embeddings=True, attn_implementation="sdpa")
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            return Qwen2ForCausalLM(config)
        finally:
            torch.set_default_dtype(before)


class Lora(torch.nn.Module):
    """base(x) + 2 up(down(x)); the adapter in fp32, its products in bf16."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        make = lambda *shape: torch.nn.Parameter(torch.randn(*shape, device=device) * 0.01)  # noqa: E731
        self.down, self.up = make(RANK, base.in_features), make(base.out_features, RANK)

    def forward(self, x):
        return self.base(x) + 2 * F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))


def prepare(lora):
    """The model, its trainable parameters and their optimizer."""
    model = model_of()
    if lora:
        model.requires_grad_(False)
        for layer in model.model.layers:
            for part in (layer.self_attn, layer.mlp):
                for name, child in list(part.named_children()):
                    if isinstance(child, torch.nn.Linear):
                        setattr(part, name, Lora(child))
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, trained, torch.optim.AdamW(trained, lr=1e-5, weight_decay=0, fused=True)


def batch():
    prompts = torch.randint(3, SHAPE["vocab_size"], (chosen.prompts, P), device=device)
    completions = torch.randint(3, SHAPE["vocab_size"], (chosen.prompts, G, C), device=device)
    return prompts, completions, torch.tensor([1.0, -1.0], device=device).repeat(G)[:G, None]


def loss_of(new, advantages):
    """dapo's clipped loss of one update a rollout: old log-probs are these."""
    ratio = (new - new.detach()).exp()
    return -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).sum() / (chosen.prompts * G * C)


def step(trained, optimizer):
    torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def trl_style(model):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    model.enable_input_require_grads()

    def logprobs(ids):
        logits = model(ids, logits_to_keep=C + 1, use_cache=False).logits[:, :-1]
        # TRL's selective log-softmax in bf16: row by row.
        rows = [F.log_softmax(row, -1).gather(-1, index[:, None])[:, 0] for row, index in zip(logits, ids[:, -C:])]
        return torch.stack(rows).float()

    def run(prompts, completions, advantages):
        for prompt, group in zip(prompts, completions):
            rows = torch.cat([prompt.expand(G, -1), group], 1)
            for micro in range(0, G, 4):
                loss_of(logprobs(rows[micro:micro + 4]), advantages[micro:micro + 4]).backward()
    return run, logprobs


def lean_prefix(model):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    owner = torch.cat([torch.full((P,), -1), torch.arange(G).repeat_interleave(C)]).to(device)

    def visible(b, h, query, key):  # noqa: ARG001
        return (key <= query) & ((owner[key] == -1) | (owner[key] == owner[query]))

    mask = create_block_mask(visible, None, None, P + G * C, P + G * C, device=device.type)
    positions = torch.cat([torch.arange(P), torch.arange(P, P + C).repeat(G)]).to(device)[None]
    # The row before every token of a completion: the prompt's last, then its own.
    before = torch.cat([torch.tensor([P - 1]), torch.arange(C - 1)]).repeat(G, 1)
    before[:, 1:] += P + C * torch.arange(G)[:, None]
    before = before.flatten().to(device)
    heads, d = SHAPE["num_attention_heads"], SHAPE["hidden_size"] // SHAPE["num_attention_heads"]
    flex = flex_attention if device.type == "cuda" else dense(visible, P + G * C)

    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def block(layer, x, cos, sin):
        a = layer.self_attn
        y = layer.input_layernorm(x)
        q, k, v = (part(y).view(1, y.shape[1], -1, d).transpose(1, 2) for part in (a.q_proj, a.k_proj, a.v_proj))
        out = flex(rotate(q, cos, sin), rotate(k, cos, sin), v, block_mask=mask, enable_gqa=True)
        x = x + a.o_proj(out.transpose(1, 2).reshape(1, -1, heads * d))
        return x + layer.mlp(layer.post_attention_layernorm(x))

    def select(rows, weight, ids):
        logits = F.linear(rows, weight).float()
        return logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(-1)

    block, select = bench.compiled(block), bench.compiled(select)
    again = lambda *args: torch.utils.checkpoint.checkpoint(*args, use_reentrant=False)  # noqa: E731

    def logprobs(prompt, group):
        core = model.model
        x = core.embed_tokens(torch.cat([prompt, group.flatten()])[None])
        cos, sin = core.rotary_emb(x, positions)
        for layer in core.layers:
            x = again(block, layer, x, cos, sin)
        rows, ids = core.norm(x)[0, before], group.flatten()
        parts = [again(select, a, model.lm_head.weight, b) for a, b in zip(rows.split(512), ids.split(512))]
        return torch.cat(parts).view(G, C)

    def run(prompts, completions, advantages):
        for prompt, group in zip(prompts, completions):
            loss_of(logprobs(prompt, group), advantages).backward()
    return run, logprobs


def dense(visible, rows):
    """FlexAttention has no gradient on a processor: the same by a mask."""
    index = torch.arange(rows)
    seen = visible(0, 0, index[:, None], index[None])
    return lambda q, k, v, block_mask, enable_gqa: F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=enable_gqa)


def update(peer, make, lora):
    model, trained, optimizer = prepare(lora)
    prompts, completions, advantages = batch()
    run, _ = make(model)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def once():
        run(prompts, completions, advantages)
        step(trained, optimizer)
    kind = f"LoRA {RANK}" if lora else "all weights"
    sizes = {"P": P, "G": G, "C": C, "V": SHAPE["vocab_size"], "loraRank": RANK if lora else None}
    timing = bench.time(once, seconds=0, least=2)
    bench.row("grpo_update", f"{NAME}, {kind}", peer, timing, chosen.prompts * G * C, "completion tokens/s", **sizes)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
        # Not a rate: `value` is the memory itself.
        bench.row("grpo_update peak memory", f"{NAME}, {kind}", peer, timing, peak * timing[0], "MiB", **sizes)


def check():
    """Both updates compute the same log-probs."""
    model, _, _ = prepare(False)
    model = model.float()
    prompts, completions, _ = batch()
    ids = torch.cat([prompts[0].expand(G, -1), completions[0]], 1)
    one, other = trl_style(model)[1](ids), lean_prefix(model)[1](prompts[0], completions[0])
    gap = (one - other).abs().max().item()
    assert gap < 1e-4, f"log-probs differ by {gap:.3g}"
    print(f"  log-probs of both agree within {gap:.1e}")


def decode():
    model = model_of().eval()
    prompts, new = (2, 5) if quick else (chosen.decode_prompts, chosen.decode_tokens)
    ids = torch.randint(3, SHAPE["vocab_size"], (prompts, P), device=device)

    def run(count):
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                                 num_return_sequences=G, min_new_tokens=count, max_new_tokens=count, eos_token_id=2, pad_token_id=0)
        assert out.shape == (prompts * G, P + count)

    def seconds(count):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run(count)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start
    run(2)
    sizes, shape = {"P": P, "G": G, "C": new, "V": SHAPE["vocab_size"]}, f"{prompts} prompts, {'tiny' if quick else '3.1B'} text"
    total = seconds(new)
    bench.row("decode", shape, "transformers generate", (total, total, total, 1), prompts * G * new, "tokens/s", **sizes)
    rest = max(total - seconds(1), 1e-9)
    bench.row("decode after the prompts", shape, "transformers generate", (rest, rest, rest, 1), prompts * G * (new - 1), "tokens/s", **sizes)


print(f"{bench.hardware}; {bench.versions}")
if quick:
    bench.guard("check", check)
for lora in (True, False):
    bench.guard("grpo_update lean-prefix", lambda: update("lean-prefix", lean_prefix, lora))  # noqa: B023
    bench.guard("grpo_update TRL-style", lambda: update("TRL-style", trl_style, lora))  # noqa: B023
bench.guard("decode", decode)
bench.end()
