"""Qwen2.5-VL as a good PyTorch user writes it for speed: the decoder of qwen2.py with rotary positions on three axes.

The vision tower runs once a picture, all pictures of a prompt in one batch; windows of one size share one attention call.
"""
import torch
from qwen2 import Qwen2

F = torch.nn.functional


class Qwen25Vl(Qwen2):
    def load_rest(self, weights):
        vision = self.config["vision_config"]
        self.depth, self.vision_width, self.vision_heads = vision["depth"], vision["hidden_size"], vision["num_heads"]
        self.full = set(vision["fullatt_block_indexes"])
        self.side = vision["window_size"] // vision["spatial_merge_size"] // vision["patch_size"]
        text = self.config["text_config"]
        self.sections = text["rope_parameters"]["mrope_section"]
        part = lambda name: weights[f"visual.{name}"]  # noqa: E731
        self.patch = torch.nn.Parameter(part("patch_embed.proj.weight").flatten(1).clone())
        self.merger = torch.nn.ParameterList(
            torch.nn.Parameter(part(f"merger.{name}").clone())
            for name in ("ln_q.weight", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"))
        self.tower = torch.nn.ParameterList()
        for i in range(self.depth):
            one = lambda name: part(f"blocks.{i}.{name}")  # noqa: B023, E731
            gates = [f"mlp.{x}_proj" for x in ("gate", "up")]
            for value in (
                one("norm1.weight"), one("attn.qkv.weight"), one("attn.qkv.bias"), one("attn.proj.weight"), one("attn.proj.bias"),
                one("norm2.weight"), torch.cat([one(f"{x}.weight") for x in gates]), torch.cat([one(f"{x}.bias") for x in gates]),
                one("mlp.down_proj.weight"), one("mlp.down_proj.bias"),
            ):
                self.tower.append(torch.nn.Parameter(value.clone()))
        self.plans = {}

    def plan(self, rows, columns):
        """Of one grid of patches: order of its merged units by window, windows by size, and the rotary angles in that order."""
        if (rows, columns) in self.plans:
            return self.plans[rows, columns]
        height, width = rows // 2, columns // 2
        units = torch.arange(height * width).view(height, width)
        windows = [units[i:i + self.side, j:j + self.side].reshape(-1)
                   for i in range(0, height, self.side) for j in range(0, width, self.side)]
        # Windows of one size are neighbours, so that one call runs them all.
        windows.sort(key=len)
        order = torch.cat(windows)
        sizes = [4 * len(window) for window in windows]
        groups = [(size, sizes.count(size)) for size in sorted(set(sizes))]
        place = lambda x: x.reshape(height, 2, width, 2).transpose(1, 2).reshape(-1, 4)[order].reshape(-1)  # noqa: E731
        axis_rows, axis_columns = (place(axis) for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
        quarter = self.vision_width // self.vision_heads // 2
        inverse = 10000.0 ** (-torch.arange(0, quarter, 2, dtype=torch.float32) / quarter)
        angle = torch.cat([axis_rows[:, None] * inverse, axis_columns[:, None] * inverse], -1)
        angle = torch.cat([angle, angle], -1)
        self.plans[rows, columns] = order, groups, angle.cos(), angle.sin()
        return self.plans[rows, columns]

    def features(self, pixels, grid, dtype):
        """Pixels [pictures, patches, 1176] of one grid -> [pictures * merged units, width of the decoder]."""
        order, groups, cos, sin = self.plan(*grid)
        weights, heads, count = [p.to(dtype) for p in self.tower], self.vision_heads, pixels.shape[0]
        cos, sin = cos.to(dtype), sin.to(dtype)
        x = F.linear(pixels.to(dtype).view(count, -1, 4, pixels.shape[-1])[:, order], self.patch.to(dtype))
        x = x.reshape(count, -1, self.vision_width)

        def attend_windows(q, k, v):
            parts, start = [], 0
            for size, number in groups:
                cut = slice(start, start + size * number)
                batch = lambda z: z[:, :, cut].reshape(count, heads, number, size, -1).transpose(1, 2).flatten(0, 1)  # noqa: B023, E731
                out = F.scaled_dot_product_attention(batch(q), batch(k), batch(v))
                parts.append(out.view(count, number, heads, size, -1).transpose(1, 2).reshape(count, heads, size * number, -1))
                start += size * number
            return torch.cat(parts, 2)

        for i in range(self.depth):
            norm1, qkv, qkv_bias, out, out_bias, norm2, gates, gate_bias, down, down_bias = weights[10 * i:10 * i + 10]
            y = F.linear(F.rms_norm(x, (self.vision_width,), norm1, 1e-6), qkv, qkv_bias)
            q, k, v = y.view(count, -1, 3, heads, self.vision_width // heads).permute(2, 0, 3, 1, 4)
            q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
            o = F.scaled_dot_product_attention(q, k, v) if i in self.full else attend_windows(q, k, v)
            x = x + F.linear(o.transpose(1, 2).flatten(2), out, out_bias)
            gate, up = F.linear(F.rms_norm(x, (self.vision_width,), norm2, 1e-6), gates, gate_bias).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down, down_bias)
        norm, first, first_bias, second, second_bias = (p.to(dtype) for p in self.merger)
        x = F.rms_norm(x, (self.vision_width,), norm, 1e-6).reshape(count, -1, 4 * self.vision_width)
        x = F.linear(F.gelu(F.linear(x, first, first_bias)), second, second_bias)
        return x[:, order.argsort()].flatten(0, 1)

    def enter_prompt(self, x, prompt, pictures, parts):
        pixels, grid = pictures
        image = prompt == self.config["image_token_id"]
        place = image.nonzero()[:, 0]
        x = x.index_copy(1, place, self.features(pixels, grid, x.dtype)[None])
        return x, self.positions(image, grid)

    def positions(self, image, grid):
        """[3, P]: text counts on all axes; a picture's units stand at (start, start + row, start + column)."""
        height, width = grid[0] // 2, grid[1] // 2
        spots, at, i, flags = [], 0, 0, image.tolist()
        while i < len(flags):
            if flags[i]:
                row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
                spots.append(torch.stack([torch.zeros_like(row), row, column]).reshape(3, -1) + at)
                at, i = at + max(height, width), i + height * width
            else:
                spots.append(torch.full((3, 1), at))
                at, i = at + 1, i + 1
        return torch.cat(spots, 1)

    def angles(self, positions, dtype):
        inverse = self.theta ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim)
        angle = positions.float()[..., None] * inverse
        if angle.ndim == 3:
            angle = torch.cat([part[i % 3] for i, part in enumerate(angle.split(self.sections, -1))], -1)
        angle = torch.cat([angle, angle], -1)
        return angle.cos().to(dtype), angle.sin().to(dtype)
