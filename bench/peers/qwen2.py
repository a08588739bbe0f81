"""Qwen2 as a good PyTorch user writes it for speed: fused projections, functional ops, prompts shared by their group.

float32 masters; with bfloat16 the weights are cast once a pass. `rollout` decodes all completions of all prompts in one
batch against each prompt's keys held once; `logprobs_shared` trains one group with its prompt run once.
"""
import json
import os

import torch
from safetensors.torch import load_file

F = torch.nn.functional


class Qwen2(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        with open(os.path.join(folder, "config.json")) as file:
            self.config = json.load(file)
        c = self.config.get("text_config", self.config)
        self.width, self.layers = c["hidden_size"], c["num_hidden_layers"]
        self.q_heads, self.kv_heads, self.eps = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
        self.head_dim, self.theta = self.width // self.q_heads, c["rope_parameters"]["rope_theta"]
        w = {name: value.float() for name, value in load_file(os.path.join(folder, "model.safetensors")).items()}
        self.embedding = torch.nn.Parameter(w["model.embed_tokens.weight"])
        self.head = torch.nn.Parameter(w["lm_head.weight"]) if "lm_head.weight" in w else None
        self.norm = torch.nn.Parameter(w["model.norm.weight"])
        self.blocks = torch.nn.ParameterList()
        for i in range(self.layers):
            part = lambda name: w[f"model.layers.{i}.{name}"]  # noqa: B023, E731
            attention = [f"self_attn.{x}_proj" for x in "qkv"]
            for value in (
                part("input_layernorm.weight"), torch.cat([part(f"{x}.weight") for x in attention]),
                torch.cat([part(f"{x}.bias") for x in attention]), part("self_attn.o_proj.weight"),
                part("post_attention_layernorm.weight"),
                torch.cat([part("mlp.gate_proj.weight"), part("mlp.up_proj.weight")]), part("mlp.down_proj.weight"),
            ):
                self.blocks.append(torch.nn.Parameter(value.clone()))
        self.load_rest(w)

    def load_rest(self, weights):
        """For models that have more than a decoder."""

    def cast(self, dtype):
        """(blocks, embedding, norm, head) in the dtype of a pass."""
        embedding = self.embedding.to(dtype)
        head = embedding if self.head is None else self.head.to(dtype)
        return [p.to(dtype) for p in self.blocks], embedding, self.norm.to(dtype), head

    def angles(self, positions, dtype):
        inverse = self.theta ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim)
        angle = positions.float()[:, None] * inverse
        angle = torch.cat([angle, angle], -1)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    @staticmethod
    def rotate(x, cos, sin):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def block(self, i, x, cos, sin, attend, weights):
        norm1, qkv, bias, out, norm2, gate_up, down = weights[7 * i:7 * i + 7]
        b, t, _ = x.shape
        y = F.linear(F.rms_norm(x, (self.width,), norm1, self.eps), qkv, bias).view(b, t, -1, self.head_dim).transpose(1, 2)
        q, k, v = y.split([self.q_heads, self.kv_heads, self.kv_heads], 1)
        o = attend(i, self.rotate(q, cos, sin), self.rotate(k, cos, sin), v)
        x = x + F.linear(o.transpose(1, 2).reshape(b, t, -1), out)
        gate, up = F.linear(F.rms_norm(x, (self.width,), norm2, self.eps), gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, down)

    def hidden(self, ids, positions, attend, parts):
        return self.decode_rows(F.embedding(ids, parts[1]), positions, attend, parts)

    def decode_rows(self, x, positions, attend, parts):
        weights, _, norm, _ = parts
        cos, sin = self.angles(positions, x.dtype)
        for i in range(self.layers):
            x = self.block(i, x, cos, sin, attend, weights)
        return F.rms_norm(x, (self.width,), norm, self.eps)

    @staticmethod
    def causal(_, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    @staticmethod
    def select_logits(logits, targets):
        return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)

    def select(self, hidden, head, targets):
        return self.select_logits(F.linear(hidden, head).float(), targets)

    def logprobs(self, ids, dtype):
        """Log-probs of ids[:, 1:]."""
        parts = self.cast(dtype)
        x = self.hidden(ids[:, :-1], torch.arange(ids.shape[1] - 1), self.causal, parts)
        return self.select(x, parts[3], ids[:, 1:])

    def logprobs_shared(self, prompt, completions, dtype, pictures=()):
        """prompt [P], completions [G, C] -> [G, C]; packed as [prompt | completion 0 | completion 1 | ...]."""
        parts, p, (g, c) = self.cast(dtype), prompt.shape[0], completions.shape
        mask = torch.cat([torch.ones(c, p, dtype=torch.bool), torch.ones(c, c, dtype=torch.bool).tril()], 1)

        def attend(_, q, k, v):
            own = lambda z: z[0, :, p:].view(z.shape[1], g, c, self.head_dim).transpose(0, 1)  # noqa: E731
            first = self.causal(0, q[:, :, :p], k[:, :, :p], v[:, :, :p])
            keys, values = (torch.cat([z[:, :, :p].expand(g, -1, -1, -1), own(z)], 2) for z in (k, v))
            rest = F.scaled_dot_product_attention(own(q), keys, values, attn_mask=mask, enable_gqa=True)
            return torch.cat([first, rest.transpose(0, 1).reshape(1, self.q_heads, g * c, self.head_dim)], 2)

        x = F.embedding(torch.cat([prompt, completions.reshape(-1)])[None], parts[1])
        x, start = self.enter_prompt(x, prompt, pictures, parts)
        own = torch.arange(start[-1].max() + 1, start[-1].max() + 1 + c).repeat(g)
        x = self.decode_rows(x, torch.cat([start, own.expand(*start.shape[:-1], -1)], -1), attend, parts)
        rows = torch.cat([x[:, p - 1:p].expand(g, 1, -1), x[0, p:].view(g, c, -1)[:, :-1]], 1)
        return self.select(rows, parts[3], completions)

    def enter_prompt(self, x, prompt, pictures, parts):
        """The embedded rows with the pictures' features in, and the positions of the prompt."""
        return x, torch.arange(prompt.shape[0])

    @torch.no_grad()
    def rollout(self, prompts, group, new, dtype, banned):
        """prompts [Q, P] -> completions [Q * group, new] and the log-probs they were drawn with."""
        parts, (count, p) = self.cast(dtype), prompts.shape
        rows, repeat, head = count * group, self.q_heads // self.kv_heads, parts[3]
        prompt_k = torch.empty(self.layers, count, self.kv_heads, p, self.head_dim, dtype=dtype)
        own_k = torch.empty(self.layers, rows, self.kv_heads, new, self.head_dim, dtype=dtype)
        prompt_v, own_v = torch.empty_like(prompt_k), torch.empty_like(own_k)

        def prefill(i, q, k, v):
            prompt_k[i], prompt_v[i] = k, v
            return self.causal(i, q, k, v)

        def by_prompt(x):
            x = x.view(count, group, self.kv_heads, repeat, -1).transpose(1, 2)
            return x.reshape(count, self.kv_heads, group * repeat, x.shape[-1])

        def by_row(x):
            x = x.view(count, self.kv_heads, group, repeat, -1).transpose(1, 2)
            return x.reshape(rows, self.kv_heads, repeat, x.shape[-1])

        x = self.hidden(prompts, torch.arange(p), prefill, parts)[:, -1]
        logits = F.linear(x, head).float().repeat_interleave(group, 0)
        tokens, logprobs = torch.empty(rows, new, dtype=torch.long), torch.empty(rows, new)
        for t in range(new):
            normalizer = logits.logsumexp(-1)
            logits[:, banned] = -1e30
            drawn = (logits - torch.empty_like(logits).exponential_().log_()).argmax(-1)
            tokens[:, t] = drawn
            logprobs[:, t] = logits.gather(1, drawn[:, None])[:, 0] - normalizer
            if t + 1 == new:
                return tokens, logprobs

            def decode(i, q, k, v):
                own_k[i, :, :, t], own_v[i, :, :, t] = k[:, :, 0], v[:, :, 0]  # noqa: B023
                q = q.reshape(rows, self.kv_heads, repeat, self.head_dim) * self.head_dim**-0.5
                shared = by_row(by_prompt(q) @ prompt_k[i].transpose(-1, -2))
                own = q @ own_k[i, :, :, :t + 1].transpose(-1, -2)  # noqa: B023
                weight = torch.cat([shared, own], -1).softmax(-1)
                out = by_row(by_prompt(weight[..., :p].contiguous()) @ prompt_v[i])
                out = out + weight[..., p:] @ own_v[i, :, :, :t + 1]  # noqa: B023
                return out.reshape(rows, self.q_heads, 1, self.head_dim)
            x = self.hidden(drawn[:, None], torch.tensor([p + t]), decode, parts)[:, 0]
            logits = F.linear(x, head).float()
