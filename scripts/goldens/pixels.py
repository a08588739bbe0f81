#!/usr/bin/env python3
"""Makes test/goldens/pixels.json: transformers' image and video processors with Pillow, bit for bit, as SHA-256 of float32 bytes.

    python scripts/goldens/pixels.py            (transformers 5.17.0, Pillow 12.3.0, numpy, torch 2.13.0, torchvision 0.28.0)
    python scripts/goldens/pixels.py --newer    (the same with Pillow 13.0.0: adds its digest where it differs)

Pillow 13 resizes vertically first when the height shrinks much more than the width (python-pillow/Pillow#9549); before, the
horizontal pass always came first, but for pictures a hundred times as tall as wide. The passes round to bytes, so bits differ.

Videos: transformers 5.17 has torchvision back ends only, so the reference is their rule (sampling, size, patch order) with every
frame resized, rescaled and normalised by the Pillow back end's own functions; the distance to torchvision's result is stated.
"""
import base64
import io
import json
import math
import os
import sys

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch

import torchvision_import  # noqa: F401  before transformers
import numpy as np
import PIL
import transformers
from PIL import Image
from safetensors.numpy import load_file
from transformers.image_utils import SizeDict
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as smart_resize_video
from transformers.video_utils import VideoMetadata

from reference import GOLDENS, digest

HALF = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
SMALL_PINS = [[28, 28], [28, 56], [56, 28], [56, 56]]
# name: (class, arguments)
PROCESSORS = {
    "qwen2_5_vl": (Qwen2VLImageProcessorPil, dict(min_pixels=56 * 56, max_pixels=28 * 28 * 1280)),
    "qwen2_5_vl_small": (Qwen2VLImageProcessorPil, dict(min_pixels=56 * 56, max_pixels=28 * 28 * 12)),
    "qwen3_vl": (Qwen2VLImageProcessorPil, dict(patch_size=16, size={"shortest_edge": 65536, "longest_edge": 16777216}, **HALF)),
    "qwen3_vl_small": (Qwen2VLImageProcessorPil, dict(patch_size=16, size={"shortest_edge": 4096, "longest_edge": 32768}, **HALF)),
    "llava_onevision": (LlavaOnevisionImageProcessorPil, dict(**HALF)),
    "llava_onevision_small": (LlavaOnevisionImageProcessorPil, dict(size={"height": 28, "width": 28}, image_grid_pinpoints=SMALL_PINS, **HALF)),
}
SIZES = [(56, 84), (61, 75), (20, 33), (57, 56), (37, 211), (90, 57), (1, 150), (150, 1), (113, 29), (99, 101), (224, 224)]


def picture(h, w, channels=3, seed=0):
    """The integer picture of make_pillow.py."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (h, w, channels)), indexing="ij")
    noise = (x * np.uint32(2654435761) ^ y * np.uint32(2246822519) ^ (c + np.uint32(seed)) * np.uint32(3266489917)) >> np.uint32(24)
    return ((x * 5 + y * 3 + c * 41 + noise // 4) & 255).astype(np.uint8)


def encoded():
    """Small PNG files of kinds that must become RGB first."""
    rgb, alpha, gray = picture(37, 45, 3, 1), picture(37, 45, 4, 2), picture(37, 45, 1, 3)[..., 0]
    palette = Image.fromarray(rgb).quantize(24)
    made = {"gray": Image.fromarray(gray), "rgba": Image.fromarray(alpha), "gray-alpha": Image.fromarray(np.ascontiguousarray(alpha[..., 2:])),
            "palette": palette, "bilevel": Image.fromarray(gray).convert("1")}
    files = {}
    for name, image in made.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files[name] = buffer.getvalue()
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=5)
    files["palette-transparent"] = buffer.getvalue()
    return files


def summary(values):
    values = np.ascontiguousarray(np.asarray(values))
    assert values.dtype == np.float32, values.dtype
    flat = values.reshape(-1)
    at = sorted({0, 1, flat.size // 3, flat.size // 2, flat.size - 1})
    return {"shape": list(values.shape), "sha256": digest(values), "at": at, "values": [float(flat[i]) for i in at]}


def image_tokens(family, processor, out, sizes):
    """Placeholders of each picture, counted by the family's processor class."""
    if family.startswith("qwen"):
        return [int(np.prod(g)) // processor.merge_size**2 for g in out["image_grid_thw"]]
    counter = onevision_counter(processor)
    tile = out["pixel_values"][0].shape[-1]
    return [counter.num_image_tokens + 1 if len(sizes) > 1 else counter._get_number_of_features(h, w, tile, tile) for h, w in sizes]


def onevision_counter(processor):
    """The counting part of LlavaOnevisionProcessor, without a tokenizer: tiles of patch 14 (patch 7 for the 28-pixel tiles)."""
    counter = object.__new__(LlavaOnevisionProcessor)
    side = processor.size["height"]
    counter.image_processor, counter.vision_aspect_ratio = processor, "anyres_max_9"
    counter.num_image_tokens = (side // (7 if side == 28 else 14)) ** 2
    return counter


def image_cases():
    stored = {k.removesuffix(".pixels"): v for k, v in load_file(os.path.join(GOLDENS, "images.safetensors")).items() if k.endswith(".pixels")}
    sources = [({"images_json": k}, Image.fromarray(v)) for k, v in sorted(stored.items())]
    sources += [({"picture": [h, w, 3, 0]}, Image.fromarray(picture(h, w))) for h, w in SIZES]
    sources += [({"file": k}, Image.open(io.BytesIO(v))) for k, v in encoded().items()]
    for name, (cls, arguments) in PROCESSORS.items():
        processor = cls(**json.loads(json.dumps(arguments)))
        for source, image in sources:
            case = {"processor": name, "source": source}
            try:
                out = processor(images=image, return_tensors="np")
            except ValueError as refusal:
                yield case | {"refused": str(refusal)}
                continue
            case["grid_thw" if "image_grid_thw" in out else "image_sizes"] = np.asarray(out["image_grid_thw" if "image_grid_thw" in out else "image_sizes"])[0].tolist()
            yield case | {"tokens": image_tokens(name, processor, out, [(image.height, image.width)])[0]} | summary(out["pixel_values"])
    for name in ("llava_onevision", "llava_onevision_small"):
        processor = PROCESSORS[name][0](**json.loads(json.dumps(PROCESSORS[name][1])))
        shapes = [(61, 75), (90, 57), (56, 56)]
        out = processor(images=[[Image.fromarray(picture(h, w)) for h, w in shapes]], return_tensors="np")
        yield {"processor": name, "source": {"pictures": [[h, w, 3, 0] for h, w in shapes]}, "together": True,
               "tokens": image_tokens(name, processor, out, shapes)} | summary(out["pixel_values"])


def video_cases():
    from transformers import LlavaOnevisionVideoProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

    made = {
        "qwen2_5_vl": (Qwen2VLVideoProcessor, Qwen2VLImageProcessorPil, dict(size={"shortest_edge": 3136, "longest_edge": 28 * 28 * 30})),
        "qwen3_vl": (Qwen3VLVideoProcessor, Qwen2VLImageProcessorPil, dict(size={"shortest_edge": 4096, "longest_edge": 65536})),
        "llava_onevision": (LlavaOnevisionVideoProcessor, LlavaOnevisionImageProcessorPil, dict(size={"height": 28, "width": 28})),
    }
    for name, (cls, pil_cls, arguments) in made.items():
        video_processor, pil = cls(**json.loads(json.dumps(arguments))), pil_cls()
        mean, std = video_processor.image_mean, video_processor.image_std
        for count, h, w in ((4, 56, 84), (5, 61, 75), (2, 90, 57), (3, 200, 120), (1, 64, 64)):
            frames = np.stack([picture(h, w, 3, seed) for seed in range(count)])
            case = {"processor": name, "arguments": arguments, "frames": [[h, w, 3, seed] for seed in range(count)], "image_mean": list(mean), "image_std": list(std)}
            try:
                theirs = video_processor(videos=[frames], do_sample_frames=False, return_tensors="pt")
            except ValueError as refusal:
                yield case | {"refused": str(refusal)}
                continue
            if name == "llava_onevision":
                height = width = 28
            elif name == "qwen3_vl":
                size = video_processor.size
                height, width = smart_resize_video(count, h, w, 2, 32, size["shortest_edge"], size["longest_edge"])
            else:
                height, width = smart_resize(h, w, 28, 3136, 28 * 28 * 30)
            sized = []
            for frame in frames:
                one = super(pil_cls, pil).resize(frame.transpose(2, 0, 1), SizeDict(height=height, width=width), video_processor.resample)
                sized.append(pil.normalize(pil.rescale(one, video_processor.rescale_factor), mean, std).astype(np.float32))
            values, reference = np.stack(sized), theirs["pixel_values_videos"]
            if name != "llava_onevision":
                p, t = video_processor.patch_size, video_processor.temporal_patch_size
                values = np.concatenate([values, np.repeat(values[-1:], -count % t, 0)])
                grid = [len(values) // t, height // p, width // p]
                case |= {"grid_thw": grid, "tokens": int(np.prod(grid)) // 4}
                assert theirs["video_grid_thw"][0].tolist() == grid
                values = values.reshape(grid[0], t, 3, grid[1] // 2, 2, p, grid[2] // 2, 2, p).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
                values = np.ascontiguousarray(values).reshape(int(np.prod(grid)), -1)
            else:
                values = values[None]
                case["tokens"] = count * math.ceil(4 / 2) ** 2 + 1
            gap = float(np.abs(values - np.asarray(reference)).max())
            yield case | {"resized_to": [height, width], "torchvision_max_difference": gap, "torchvision_gray_levels": gap * 255 * min(std)} | summary(values)


def sampling_cases():
    from transformers import LlavaOnevisionVideoProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor

    for name, cls in (("qwen2_5_vl", Qwen2VLVideoProcessor), ("qwen3_vl", Qwen3VLVideoProcessor), ("llava_onevision", LlavaOnevisionVideoProcessor)):
        processor = cls()
        for total, rate in ((8, 24.0), (30, 30.0), (49, 23.976), (100, 25.0), (7, 2.0), (3, 1.0), (301, 29.97)):
            for ask in ({"fps": 2}, {"fps": 1}, {"fps": 0.5}, {"num_frames": 8}, {"num_frames": 5}):
                metadata = VideoMetadata(total_num_frames=total, fps=rate)
                case = {"processor": name, "total_num_frames": total, "fps": rate, "ask": ask}
                try:
                    # as a call of the processor does: the class's own fps steps aside for num_frames
                    extra = {"fps": None} if "num_frames" in ask and name == "qwen3_vl" else {}
                    if extra:
                        processor.fps = None
                    case["indices"] = [int(i) for i in processor.sample_frames(metadata, **ask, **extra)]
                except (ValueError, ZeroDivisionError, RuntimeError) as refusal:
                    case["refused"] = f"{type(refusal).__name__}: {refusal}"
                finally:
                    if name == "qwen3_vl":
                        processor.fps = cls.fps
                yield case


TABLE = [(28, 28), (32, 32), (1, 1), (14, 14), (29, 41), (42, 42), (48, 80), (70, 70), (98, 14), (100, 300), (224, 224), (336, 448), (384, 384), (385, 384),
         (480, 640), (640, 480), (720, 1280), (768, 2304), (1080, 1920), (2160, 3840), (3000, 20), (56, 11000), (13, 2000), (2304, 2304), (5000, 5000)]


def tables():
    rows = []
    for h, w in TABLE:
        row = {"size": [h, w]}
        for name, factor, low, high in (("qwen2_5_vl", 28, 56 * 56, 28 * 28 * 1280), ("qwen2_5_vl_hub", 28, 3136, 12845056), ("qwen3_vl", 32, 65536, 16777216)):
            try:
                to = smart_resize(h, w, factor, low, high)
                row[name] = {"resized": list(to), "tokens": to[0] * to[1] // factor**2}
            except ValueError:
                row[name] = None
        processor = LlavaOnevisionImageProcessorPil(**HALF)
        row["llava_onevision"] = {"tokens": onevision_counter(processor)._get_number_of_features(h, w, 384, 384)}
        small = LlavaOnevisionImageProcessorPil(**PROCESSORS["llava_onevision_small"][1])
        row["llava_onevision_small"] = {"tokens": onevision_counter(small)._get_number_of_features(h, w, 28, 28)}
        rows.append(row)
    videos = []
    for frames, h, w in [(2, 32, 32), (4, 480, 640), (16, 480, 640), (64, 1080, 1920), (768, 720, 1280), (3, 20, 50), (5, 17, 3000), (1, 64, 64), (8, 224, 224), (2, 100, 4000)]:
        row = {"size": [frames, h, w]}
        for name, rule in (("qwen3_vl", lambda: smart_resize_video(frames, h, w, 2, 32, 128 * 32 * 32, 32 * 32 * 768)),  # noqa: B023
                           ("qwen3_vl_hub", lambda: smart_resize_video(frames, h, w, 2, 32, 4096, 25165824)),  # noqa: B023
                           ("qwen2_5_vl", lambda: smart_resize(h, w, 28, 128 * 28 * 28, 28 * 28 * 768))):  # noqa: B023
            try:
                row[name] = list(rule())
            except ValueError as refusal:
                row[name] = None
                row[name + "_refused"] = str(refusal)
        videos.append(row)
    return {"images": rows, "videos": videos}


def main():
    torch.set_num_threads(1)
    out = {"versions": {"transformers": transformers.__version__, "pillow": PIL.__version__, "numpy": np.__version__, "torch": torch.__version__},
           "notes": [part.replace("\n", " ").strip() for part in __doc__.split("\n\n")[2:]], "processors": {k: {"class": c.__name__, "arguments": a} for k, (c, a) in PROCESSORS.items()},
           "files": {k: base64.b64encode(v).decode() for k, v in encoded().items()}, "images": list(image_cases()), "videos": list(video_cases()),
           "frame_sampling": list(sampling_cases()), "tables": tables()}
    path = os.path.join(GOLDENS, "pixels.json")
    newer = "--newer" in sys.argv
    assert PIL.__version__.startswith("13." if newer else "12."), PIL.__version__
    if newer:
        made, version = out, PIL.__version__
        with open(path, encoding="utf8") as f:
            out = json.load(f)
        out["versions"]["newer_pillow"] = version
        assert made["files"] == out["files"]
        for kind in ("images", "videos"):
            for mine, theirs in zip(out[kind], made[kind], strict=True):
                assert mine["source" if kind == "images" else "frames"] == theirs["source" if kind == "images" else "frames"]
                mine.pop("sha256_newer_pillow", None)
                if mine.get("sha256") != theirs.get("sha256"):
                    mine["sha256_newer_pillow"] = theirs["sha256"]
    with open(path, "w", encoding="utf8") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {one_a_line(v)}" for k, v in out.items()) + "\n}\n")


def one_a_line(value):
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in value) + "\n]"
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in value.items()) + "\n}"
    return json.dumps(value)


if __name__ == "__main__":
    main()
