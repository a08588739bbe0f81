"""PyTorch's way to do what one of our kernels does.  torch_kernels.py OP fp32|bf16 THREADS SIZES...

linear M N K PASS | attention T Q K D (scaled_dot_product_attention, forward and backward) | head_logprob T V H
(log_softmax over whole logits, clipped GRPO loss, backward) | rms_norm T H | swiglu T F | adamw N (fused) |
sample_token B V TOP_P_PERCENT (top-p as transformers filters it, then multinomial)
"""
import math
import sys

import torch
from session import serve

F = torch.nn.functional
op, dtype, threads = sys.argv[1], {"fp32": torch.float32, "bf16": torch.bfloat16}[sys.argv[2]], int(sys.argv[3])
sizes = [int(text) for text in sys.argv[4:]]
torch.set_num_threads(threads)
torch.manual_seed(0)


def leaf(*shape, scale=1.0):
    return ((torch.rand(*shape) * 2 - 1) * scale).to(dtype).requires_grad_()


def forward_backward(loss, leaves):
    def run():
        for one in leaves:
            one.grad = None
        loss()
    return run


def linear():
    m, n, k, backward = sizes
    x, w = leaf(m, k), leaf(n, k, scale=k**-0.5)
    if not backward:
        def run():
            with torch.no_grad():
                F.linear(x, w)
        return run
    grad = leaf(m, n).detach()
    out = F.linear(x, w)
    w.grad = torch.zeros_like(w)

    def run():
        x.grad = None
        out.backward(grad, retain_graph=True)
    return run


def attention():
    t, q_heads, kv_heads, d = sizes
    q, k, v = leaf(1, q_heads, t, d), leaf(1, kv_heads, t, d), leaf(1, kv_heads, t, d)
    grad = leaf(1, q_heads, t, d).detach()

    def loss():
        F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q_heads != kv_heads).backward(grad)
    return forward_backward(loss, [q, k, v])


def head_logprob():
    t, v, h = sizes
    hidden, weight = leaf(t, h), leaf(v, h, scale=h**-0.5)
    # Gradients count as held, as ours do; every call makes them anew.
    hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)
    tokens = torch.tensor([i * 7919 % v for i in range(t)])[:, None]
    advantage, old = torch.rand(t) * 2 - 1, torch.full((t,), -math.log(v))

    def loss():
        logprob = torch.log_softmax(F.linear(hidden, weight).float(), -1).gather(1, tokens)[:, 0]
        ratio = (logprob - old).exp()
        (-torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()).backward()
    return forward_backward(loss, [hidden, weight])


def rms_norm():
    t, h = sizes
    x, w, grad = leaf(t, h), leaf(h), leaf(t, h).detach()
    return forward_backward(lambda: F.rms_norm(x, (h,), w, 1e-6).backward(grad), [x, w])


def swiglu():
    t, f = sizes
    x, grad = leaf(t, 2 * f), leaf(t, f).detach()

    def loss():
        gate, up = x.chunk(2, -1)
        (F.silu(gate) * up).backward(grad)
    return forward_backward(loss, [x])


def adamw():
    w = torch.rand(sizes[0]).requires_grad_()
    w.grad = torch.rand(sizes[0])
    return torch.optim.AdamW([w], lr=1e-6, weight_decay=0, fused=True).step


def sample_token():
    b, v, percent = sizes
    logits = (torch.rand(b, v) * 2 - 1) * 8

    def run():
        with torch.no_grad():
            ordered, index = logits.sort(-1)
            drop = ordered.softmax(-1).cumsum(-1) <= 1 - percent / 100
            drop[:, -1] = False
            kept = logits.masked_fill(drop.scatter(1, index, drop), -math.inf)
            torch.multinomial(kept.softmax(-1), 1)
    return run


step = globals()[op]()
serve(lambda: step() and None)
