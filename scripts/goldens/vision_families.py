"""Goldens of the vision-language families: Qwen2.5-VL (windows, video), LLaVA-OneVision (several images, video), Qwen3-VL."""
import torch

from cases import feature_rows, greedy, measure
from reference import PIXELS, float64_everywhere, load, make_checkpoint, pixels, tokens, write

START, END, IMAGE, VIDEO, OV_IMAGE, OV_VIDEO = 506, 507, 508, 509, 510, 511
COMMON = ["pixel values are not stored: " + PIXELS, "a row's items follow its prompt; each is a run of its own of `pixels.shape` values",
          "lm_loss is the mean negative log-likelihood of the completion tokens at temperature 1"]


def small(name):
    """The embedding and the head are most of a micro model and tell least: samples of their gradients do."""
    return not name.endswith(("embed_tokens.weight", "lm_head.weight"))


def grid_pixels(items, columns):
    return torch.cat([pixels(i["pixels"]["seed"], *i["pixels"]["shape"]) for i in items]) if items else None


def qwen_row(name, parts, completion, columns, frames_apart=False):
    """parts: a number of text tokens, or ('image', grid), or ('video', grid, seconds a grid); merge size 2."""
    prompt, types, items = [], [], []

    def add(ids, kind=0):
        prompt.extend(ids)
        types.extend([kind] * len(ids))

    for i, part in enumerate(parts):
        if isinstance(part, int):
            add(tokens(f"{name}.text{i}", part))
            continue
        kind, grid = part[0], part[1]
        seed = sum(ord(c) * (k + 1) for k, c in enumerate(name)) + 7 * i
        item = {"kind": kind, "grid": grid, "pixels": {"seed": seed, "shape": [grid[0] * grid[1] * grid[2], columns]}}
        if kind == "video":
            item["seconds_per_grid"] = part[2]
        items.append(item)
        runs = grid[0] if kind == "video" and frames_apart else 1
        for run in range(runs):
            if kind == "video" and frames_apart:
                add(tokens(f"{name}.stamp{i}.{run}", 4))
            add([START])
            add([IMAGE if kind == "image" else VIDEO] * (grid[0] // runs * grid[1] * grid[2] // 4), 1 if kind == "image" else 2)
            add([END])
    forward = {}
    for kind, values, grids in (("image", "pixel_values", "image_grid_thw"), ("video", "pixel_values_videos", "video_grid_thw")):
        mine = [i for i in items if i["kind"] == kind]
        if mine:
            forward[values], forward[grids] = grid_pixels(mine, columns), torch.tensor([i["grid"] for i in mine])
    seconds = [i["seconds_per_grid"] for i in items if i["kind"] == "video"]
    if seconds and not frames_apart:
        forward["second_per_grid_ts"] = torch.tensor(seconds)
    return {"prompt_ids": prompt, "completion_ids": tokens(name + ".completion", completion), "types": types, "items": items, "forward": forward}


def qwen_observations(cls, folder, rows, deepstack=False):
    """Positions, image features and, per row, whatever else the model derives from the grids."""
    model, out = load(cls, folder, torch.float64), {}
    for r, row in enumerate(rows):
        forward = row["forward"]
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        kinds = torch.tensor([row["types"] + [0] * len(row["completion_ids"])])
        grids = {k: v for k, v in forward.items() if k.endswith("grid_thw") or k == "second_per_grid_ts"}
        positions, deltas = model.model.get_rope_index(ids, mm_token_type_ids=kinds, attention_mask=torch.ones_like(ids), **grids)
        out[f"row{r}.position_ids"] = positions[:, 0]
        row["rope_delta"] = int(deltas.flatten()[0])
        for kind, values in (("image", "pixel_values"), ("video", "pixel_values_videos")):
            if values not in forward:
                continue
            get = model.model.get_image_features if kind == "image" else model.model.get_video_features
            with float64_everywhere(), torch.no_grad():
                found = get(forward[values].double(), forward[f"{kind}_grid_thw"])
            out[f"row{r}.{kind}_features"] = feature_rows(found).float()
            if deepstack:
                for k, level in enumerate(found.deepstack_features):
                    out[f"row{r}.{kind}_deepstack{k}"] = feature_rows(level).float()
    return out


def vl_windows():
    from transformers import Qwen2_5_VLForConditionalGeneration as Model
    from transformers.vision_utils import get_vision_window_index

    columns = 1176
    rows = [
        qwen_row("vlw.many", [4, ("image", [1, 20, 28]), 5], 7, columns),
        qwen_row("vlw.two", [3, ("image", [1, 12, 20]), 2, ("image", [1, 10, 10]), 4], 6, columns),
        qwen_row("vlw.video", [2, ("video", [3, 10, 6], 1.0), 5], 5, columns),
        qwen_row("vlw.slow", [2, ("video", [4, 4, 6], 0.5), 3, ("video", [2, 6, 4], 2.0), 3], 4, columns),
        qwen_row("vlw.both", [3, ("video", [2, 12, 4], 1.0), 2, ("image", [1, 6, 14]), 3], 5, columns),
    ]
    observed = qwen_observations(Model, "micro-vl", rows)
    for r, row in enumerate(rows):
        for kind in ("image", "video"):
            if f"{kind}_grid_thw" in row["forward"]:
                order, bounds = get_vision_window_index(row["forward"][f"{kind}_grid_thw"], 2, 112, 14, kwargs={})
                observed[f"row{r}.{kind}_window_index"], observed[f"row{r}.{kind}_cu_window_seqlens"] = order, bounds
    tensors, info = measure("vl_windows", Model, "micro-vl", rows, keep=small)
    info["generate"] = greedy(Model, "micro-vl", rows)
    info["notes"] = [*COMMON, "tokens_per_second is 4 in the config; transformers 5.17 truncates the seconds per grid to an integer before it multiplies: "
                     "with 0.5 s every grid of the video has temporal position 0 (row 3, first video); images step by 1",
                     "the text after a vision run starts at its start + max(rows, columns) / 2, however long the video"]
    write("vl_windows", tensors | observed, info)


def ov_row(name, parts, completion):
    """parts: a number of text tokens, ('image', [height, width], feature count, tiles) or ('video', frames); 28-pixel tiles of 4 x 4 patches."""
    prompt, items = [], []
    for i, part in enumerate(parts):
        if isinstance(part, int):
            prompt += tokens(f"{name}.text{i}", part)
            continue
        seed = sum(ord(c) * (k + 1) for k, c in enumerate(name)) + 7 * i
        if part[0] == "image":
            items.append({"kind": "image", "size": part[1], "pixels": {"seed": seed, "shape": [part[3], 3, 28, 28]}})
            prompt += [OV_IMAGE] * part[2]
        else:
            items.append({"kind": "video", "frames": part[1], "pixels": {"seed": seed, "shape": [part[1], 3, 28, 28]}})
            prompt += [OV_VIDEO] * (4 * part[1] + 1)
    forward, stack = {}, lambda found: torch.stack([pixels(i["pixels"]["seed"], *i["pixels"]["shape"]) for i in found])
    images, videos = ([i for i in items if i["kind"] == kind] for kind in ("image", "video"))
    if images:
        forward |= {"pixel_values": stack(images), "image_sizes": torch.tensor([i["size"] for i in images]), "batch_num_images": torch.tensor([len(images)])}
    if videos:
        forward["pixel_values_videos"] = stack(videos)
    return {"prompt_ids": prompt, "completion_ids": tokens(name + ".completion", completion), "items": items, "forward": forward}


def ov_observations(cls, folder, rows, config=None):
    model, out = load(cls, folder, torch.float64, config), {}
    for r, row in enumerate(rows):
        forward = row["forward"]
        with float64_everywhere(), torch.no_grad():
            if "pixel_values" in forward:
                found = model.model.get_image_features(forward["pixel_values"].double(), forward["image_sizes"], batch_num_images=forward["batch_num_images"])
                out[f"row{r}.image_features"] = feature_rows(found)
            if "pixel_values_videos" in forward:
                out[f"row{r}.video_features"] = feature_rows(model.model.get_video_features(forward["pixel_values_videos"].double()))
    return {k: v.flatten(0, -2).float() for k, v in out.items()}


def ov_multi():
    import json
    import os

    from transformers import AutoConfig
    from transformers import LlavaOnevisionForConditionalGeneration as Model

    from reference import GOLDENS

    rows = [
        ov_row("ovm.tall", [3, ("image", [120, 40], 16 + 8 * (2 + 1), 3), 4], 6),
        ov_row("ovm.wide", [3, ("image", [30, 110], 16 + 2 * (8 + 1), 3), 4], 5),
        ov_row("ovm.large", [2, ("image", [100, 70], 16 + 8 * (6 + 1), 5), 3], 5),
        ov_row("ovm.three", [2, ("image", [100, 70], 17, 1), 2, ("image", [28, 28], 17, 1), 1, ("image", [20, 90], 17, 1), 3], 6),
        ov_row("ovm.video", [3, ("video", 3), 4], 5),
        ov_row("ovm.mixed", [2, ("video", 2), 1, ("image", [28, 50], 16 + 4 * (8 + 1), 3), 1, ("video", 2), 3], 4),
    ]
    tensors, info = measure("ov_multi", Model, "micro-ov", rows, keep=small)
    tensors |= ov_observations(Model, "micro-ov", rows)
    info["generate"] = greedy(Model, "micro-ov", rows)
    folder = os.path.join(GOLDENS, "micro-ov")
    with open(os.path.join(folder, "config.json"), encoding="utf8") as f:
        plain = json.load(f)
    with open(os.path.join(folder, "config-anyres-max-2.json"), "w", encoding="utf8") as f:
        json.dump(plain | {"vision_aspect_ratio": "anyres_max_2"}, f, indent=2)
        f.write("\n")
    config = AutoConfig.from_pretrained(os.path.join(folder, "config-anyres-max-2.json"))
    shrunk = [ov_row("ovm.shrunk", [2, ("image", [100, 70], 16 + 6 * (4 + 1), 5), 3], 5), ov_row("ovm.square", [1, ("image", [60, 56], 16 + 5 * (5 + 1), 5), 3], 4)]
    t, case = measure("ov_multi.max2", Model, "micro-ov", shrunk, config=config, keep=lambda n: "projector" in n or "newline" in n or "patch" in n, lm=False)
    tensors |= {f"anyres_max_2.{k}": v for k, v in (t | ov_observations(Model, "micro-ov", shrunk, config)).items()}
    info["anyres_max_2"] = case | {"config": "config-anyres-max-2.json"}
    info["notes"] = [*COMMON, "pixels are [tile or frame, channel, y, x]; the first tile is the whole picture, the others are the grid row by row",
                     "transformers 5.17: a sample with one image uses anyres tiles; a sample with several (batch_num_images > 1) uses the whole picture alone "
                     "(padded to a square by the processor), 16 features and one newline each. Videos do not count as images: row 5 uses tiles",
                     "a video is pooled bilinearly from 4 x 4 to 2 x 2 a frame and ends with one newline; two videos of one sample have equal frame counts, "
                     "since they are one tensor",
                     "unpad cuts floor(padding / 2) on both sides, so one padded column or row may stay (row 2: 8 x 6 features of a 5.6 wide picture)",
                     "anyres_max_2: more than 1.1^2 * 2 tiles' features are shrunk by plain bilinear interpolation (align_corners false, no antialiasing)"]
    write("ov_multi", tensors, info)


def qwen3_vl():
    from transformers import Qwen3VLConfig
    from transformers import Qwen3VLForConditionalGeneration as Model

    text = dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
                rms_norm_eps=1e-6, max_position_embeddings=32768, bos_token_id=None, eos_token_id=505, pad_token_id=503,
                rope_parameters={"rope_type": "default", "rope_theta": 5000000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True})
    vision = dict(depth=3, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=16, out_hidden_size=64, num_position_embeddings=36,
                  deepstack_visual_indexes=[0, 1])
    config = Qwen3VLConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START,
                           vision_end_token_id=END, tie_word_embeddings=True)
    make_checkpoint("micro-qwen3-vl", Model, config)
    rows = [
        qwen_row("q3v.one", [4, ("image", [1, 8, 10]), 5], 6, 1536),
        qwen_row("q3v.two", [3, ("image", [1, 4, 14]), 2, ("image", [1, 6, 6]), 4], 6, 1536),
        qwen_row("q3v.video", [2, ("video", [3, 4, 8], 0.5), 4], 5, 1536, frames_apart=True),
        qwen_row("q3v.both", [2, ("video", [2, 6, 4], 1.0), 1, ("image", [1, 2, 12]), 3], 5, 1536, frames_apart=True),
        qwen_row("q3v.text", [9], 4, 1536),
    ]
    observed = qwen_observations(Model, "micro-qwen3-vl", rows, deepstack=True)
    tensors, info = measure("qwen3_vl", Model, "micro-qwen3-vl", rows)
    info["generate"] = greedy(Model, "micro-qwen3-vl", rows)
    info["notes"] = [*COMMON, "a video of n grids is n runs of placeholders, each after its time stamp's tokens (here hashed text tokens: chats.json has real ones) "
                     "between vision start and end; every frame has temporal extent 1, seconds_per_grid is not used",
                     "row*.{image,video}_deepstack{k} is added to the placeholders' hidden states after decoder layer k"]
    write("qwen3_vl", tensors | observed, info)


__all__ = ["ov_multi", "qwen3_vl", "vl_windows"]
