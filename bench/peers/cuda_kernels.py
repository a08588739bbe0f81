"""PyTorch's, FlexAttention's and torch.compile's (Triton) way to do what our kernels do, on one card.

cuda_kernels.py [--device cpu --quick] [--only attention,rms_norm,...] [--out FILE]. Shapes and names are those of
bench/native/cuda/cases.cpp.
"""

import torch
import torch.utils.checkpoint
from cuda_rows import Bench, options

F = torch.nn.functional
chosen = options()
bench = Bench(chosen)
device, quick = bench.device, chosen.quick
torch.manual_seed(0)
bf16 = torch.bfloat16

# Hidden, intermediate, query heads, key heads, head size of Qwen2.5 0.5B, 1.5B and 3B.
LAYERS = [(64, 96, 4, 2, 32)] if quick else [(896, 4864, 14, 2, 64), (1536, 8960, 12, 2, 128), (2048, 11008, 16, 2, 128)]
P, G, C = (37, 2, 9) if quick else (1500, 8, 512)
V = 1000 if quick else 151936
ROWS, TARGETS = P + G * C, G * C


def random(*shape, dtype=bf16, scale=1.0, grad=False):
    return (torch.rand(*shape, device=device) * 2 - 1).mul_(scale).to(dtype).requires_grad_(grad)


def passes(name, shape, peer, run, grad_out, leaves, amounts, unit, dtype="bf16", **sizes):
    """Rows of forward and backward. `amounts`: (forward, backward) of `unit` in a call."""
    with torch.no_grad():
        bench.row(name, f"{shape} forward", peer, bench.time(run), amounts[0], unit, dtype, **sizes)
    out = run()

    def backward():
        for leaf in leaves:
            leaf.grad = None
        out.backward(grad_out, retain_graph=True)
    bench.row(name, f"{shape} backward", peer, bench.time(backward), amounts[1], unit, dtype, **sizes)


def linear():
    for h, f, q, k, d in LAYERS:
        for n, depth in (((q + 2 * k) * d, h), (h, q * d), (2 * f, h), (h, f)):
            x, w = random(ROWS, depth, grad=True), random(n, depth, scale=depth**-0.5, grad=True)
            flop = 2e-9 * ROWS * n * depth
            passes("linear", f"{ROWS} x {depth} by {depth} x {n}", "torch linear", lambda: F.linear(x, w),  # noqa: B023
                   random(ROWS, n), [x, w], (flop, 2 * flop), "GFLOP/s")
    h, f = LAYERS[-1][:2]
    for rows in (1,) if quick else (1, 8, 16, 32, 64, 256):
        x, w = random(rows, h), random(2 * f, h, scale=h**-0.5)
        bench.row("linear", f"{rows} x {h} by {h} x {2 * f} forward", "torch linear", bench.time(lambda: F.linear(x, w)),  # noqa: B023
                  2e-9 * rows * 2 * f * h, "GFLOP/s")


def sequence():
    t = 64 if quick else 4096
    for _, _, q_heads, kv_heads, d in LAYERS:
        q, k, v = (random(1, heads, t, d, grad=True) for heads in (q_heads, kv_heads, kv_heads))
        flop = 4e-9 * t * (t + 1) / 2 * q_heads * d
        passes("attention", f"{q_heads}:{kv_heads} heads of {d}, a sequence", "torch SDPA",
               lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),  # noqa: B023
               random(1, q_heads, t, d), [q, k, v], (flop, 2.5 * flop), "GFLOP/s", P=t)


def group():
    """One group: SDPA over G whole sequences, as trainers without prefix sharing do, and FlexAttention over the pack."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    pairs = P * (P + 1) / 2 + G * (P * C + C * (C + 1) / 2)
    owner = torch.cat([torch.full((P,), -1), torch.arange(G).repeat_interleave(C)]).to(device)

    def visible(b, h, query, key):  # noqa: ARG001
        return (key <= query) & ((owner[key] == -1) | (owner[key] == owner[query]))

    def pack(z):
        """[prompt of the first row | completions of all]."""
        z = torch.cat([z[:1, :, :P], z[:, :, P:].transpose(0, 1).flatten(1, 2)[None]], 2)
        return z.detach().requires_grad_(device.type == "cuda")

    def alike(z):
        """Every row behind the first row's prompt."""
        return torch.cat([z[:1, :, :P].expand(G, -1, -1, -1), z[:, :, P:]], 2).detach()

    def same(one, other):
        gap = (one - other).float().norm() / other.float().norm()
        assert gap < 0.02, f"the packed attention differs by {gap:.3g}"

    mask = create_block_mask(visible, None, None, ROWS, ROWS, device=device.type)
    flex = bench.compiled(flex_attention)
    for _, _, q_heads, kv_heads, d in LAYERS:
        shape, flop = f"{q_heads}:{kv_heads} heads of {d}, a group", 4e-9 * pairs * q_heads * d
        sizes = {"P": P, "G": G, "C": C}
        # Flops are those of the shared pack for both: the rate says how fast the same work is done.
        q, k, v = (random(G, heads, P + C, d, grad=True) for heads in (q_heads, kv_heads, kv_heads))
        passes("attention", shape, "torch SDPA, prompt repeated",
               lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),  # noqa: B023
               random(G, q_heads, P + C, d), [q, k, v], (flop, 2.5 * flop), "GFLOP/s", **sizes)
        shared = lambda z: torch.cat([z[:1, :, :P], z[:, :, P:].transpose(0, 1).flatten(1, 2)[None]], 2)  # noqa: E731
        repeated, (q, k, v) = (q, k, v), (pack(z) for z in (q, k, v))
        run = lambda: flex(q, k, v, block_mask=mask, enable_gqa=True)  # noqa: B023, E731
        same(run(), shared(F.scaled_dot_product_attention(*map(alike, repeated), is_causal=True, enable_gqa=True)))
        if device.type == "cpu":  # no gradient there
            bench.row("attention", f"{shape} forward", "FlexAttention, prompt shared", bench.time(run), flop, "GFLOP/s", **sizes)
            continue
        passes("attention", shape, "FlexAttention, prompt shared", run, random(1, q_heads, ROWS, d), [q, k, v],
               (flop, 2.5 * flop), "GFLOP/s", **sizes)


def attention_decode():
    for group_size in (2,) if quick else (8, 16):
        prompts, drawn = (2, 9) if quick else (256 // group_size, 256)
        rows, keys = prompts * group_size, P + drawn
        for _, _, q_heads, kv_heads, d in LAYERS:
            q = random(rows, q_heads, 1, d)
            k, v = random(rows, kv_heads, keys, d), random(rows, kv_heads, keys, d)
            # Bytes of the shared layout, as ours count them.
            full = P // 64 * 64
            moved = 2e-9 * (rows * (2 * q_heads + 2 * kv_heads) * d + (prompts * full + rows * (P - full + drawn)) * 2 * kv_heads * d)
            bench.row("attention_decode", f"decode, {prompts} prompts, {q_heads}:{kv_heads} heads of {d}", "torch SDPA, prompt repeated",
                      bench.time(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)),  # noqa: B023
                      moved, "GB/s", P=P, G=group_size, C=drawn)


def rms_norm():
    for h, *_ in LAYERS:
        x, w = random(ROWS, h, grad=True), random(h, grad=True)
        grad, unit = random(ROWS, h), 1e-9 * ROWS * h * 2
        for peer, call in (("torch rms_norm", F.rms_norm), ("torch.compile rms_norm", bench.compiled(F.rms_norm))):
            passes("rms_norm", f"T {ROWS}, H {h}", peer, lambda: call(x, (h,), w, 1e-6), grad, [x, w], (2 * unit, 3 * unit), "GB/s")  # noqa: B023


def layer_norm():
    t, h = (20, 64) if quick else (4608, 1152)
    x, w, b = random(t, h, grad=True), random(h, grad=True), random(h, grad=True)
    unit = 1e-9 * t * h * 2
    passes("layer_norm", f"T {t}, H {h}", "torch layer_norm", lambda: F.layer_norm(x, (h,), w, b), random(t, h), [x, w, b],
           (2 * unit, 3 * unit), "GB/s")


def swiglu():
    def call(x):
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up
    for _, f, *_ in LAYERS:
        x, grad, unit = random(ROWS, 2 * f, grad=True), random(ROWS, f), 1e-9 * ROWS * f * 2
        run = bench.compiled(call)
        passes("swiglu", f"T {ROWS}, F {f}", "torch.compile silu * up", lambda: run(x), grad, [x], (3 * unit, 5 * unit), "GB/s")  # noqa: B023


def head_logprob():
    """log_softmax over whole logits in fp32, and compiled over chunks of 512 targets, which are computed again backwards."""
    for h, *_ in LAYERS:
        hidden, w = random(TARGETS, h, grad=True), random(V, h, scale=h**-0.5, grad=True)
        tokens, grad = torch.arange(TARGETS, device=device) * 7919 % V, random(TARGETS, dtype=torch.float32)
        flop = 2e-9 * TARGETS * V * h

        def whole(rows, weight, ids):
            logits = F.linear(rows, weight).float()
            return logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(-1)

        one = bench.compiled(whole)

        def chunks():
            parts = [torch.utils.checkpoint.checkpoint(one, rows, w, ids, use_reentrant=False)  # noqa: B023
                     for rows, ids in zip(hidden.split(512), tokens.split(512))]  # noqa: B023
            return torch.cat(parts)
        for peer, run in (("torch log_softmax", lambda: whole(hidden, w, tokens)), ("torch.compile in chunks", chunks)):  # noqa: B023
            passes("head_logprob", f"R {TARGETS}, H {h}", peer, run, grad, [hidden, w], (flop, 2 * flop), "GFLOP/s", V=V)


def sample_token():
    for rows in (2,) if quick else (1, 64, 256):
        logits = random(rows, V, dtype=torch.float32, scale=8.0)
        moved = 4e-9 * rows * V
        gumbel = bench.compiled(lambda x: (x - torch.empty_like(x).exponential_().log()).argmax(-1))
        bench.row("sample_token", f"B {rows}, top-k 0, top-p 100 %", "torch.compile Gumbel-max", bench.time(lambda: gumbel(logits)),  # noqa: B023
                  moved, "GB/s", "fp32", V=V)

        def filtered():
            top, ids = logits.topk(50, -1)  # noqa: B023
            p = top.softmax(-1)
            p = p.masked_fill(p.cumsum(-1) - p >= 0.9, 0)
            return ids.gather(-1, torch.multinomial(p, 1))
        bench.row("sample_token", f"B {rows}, top-k 50, top-p 90 %", "torch topk + multinomial", bench.time(filtered), moved, "GB/s", "fp32", V=V)


def adamw():
    n = 4096 if quick else 128 << 20
    p = torch.nn.Parameter(random(n, dtype=torch.float32))
    p.grad = random(n, dtype=torch.float32)
    optimizer = torch.optim.AdamW([p], lr=1e-6, fused=True)
    bench.row("adamw", f"N {n}, moments of 4 bytes", "torch fused AdamW", bench.time(optimizer.step), 28e-9 * n, "GB/s", "fp32")


def global_norm():
    n = 4096 if quick else 128 << 20
    grads = [random(n // 64, dtype=torch.float32) for _ in range(64)]
    bench.row("global_norm", f"N {n} in 64 tensors", "torch foreach norm", bench.time(lambda: torch.nn.utils.get_total_norm(grads)),
              4e-9 * n, "GB/s", "fp32")


print(f"{bench.hardware}; {bench.versions}")
for name, body in (("linear", linear), ("attention sequence", sequence), ("attention group", group),
                   ("attention_decode", attention_decode), ("rms_norm", rms_norm), ("layer_norm", layer_norm), ("swiglu", swiglu),
                   ("head_logprob", head_logprob), ("sample_token", sample_token), ("adamw", adamw), ("global_norm", global_norm)):
    bench.guard(name, body)
bench.end()
