#!/usr/bin/env python3
"""Goldens of Pillow's resize, mode conversion and of transformers' Qwen2-VL Pillow back end.

  python make_pillow.py > pillow.json      needs pillow 12, numpy, transformers 5 (no torch)
Pictures come from integer arithmetic, so that the tests rebuild them; outputs are stored as SHA-256.
"""
import base64
import hashlib
import io
import json
import sys

import numpy as np
import PIL
import transformers
from PIL import Image, ImageCms
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize


def picture(h, w, channels=3, seed=0):
    y, x, c = np.meshgrid(np.arange(h, dtype=np.uint32), np.arange(w, dtype=np.uint32),
                          np.arange(channels, dtype=np.uint32), indexing="ij")
    noise = (x * np.uint32(2654435761) ^ y * np.uint32(2246822519) ^ (c + np.uint32(seed)) * np.uint32(3266489917)) >> np.uint32(24)
    return ((x * 5 + y * 3 + c * 41 + noise // 4) & 255).astype(np.uint8)


def digest(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


def resize_cases():
    for h, w, oh, ow in [(13, 17, 7, 9), (13, 17, 26, 31), (61, 75, 56, 84), (20, 33, 56, 84), (56, 56, 56, 84), (56, 56, 84, 56),
                         (1, 1, 56, 56), (1, 200, 28, 28), (300, 7, 28, 56), (224, 224, 56, 56), (480, 640, 476, 644), (90, 57, 84, 56),
                         (999, 3, 28, 28), (300, 3, 28, 28), (301, 3, 28, 28), (301, 3, 308, 28), (3, 999, 28, 28), (300, 2, 28, 2), (37, 41, 37, 42)]:
        out = np.asarray(Image.fromarray(picture(h, w)).resize((ow, oh), Image.BICUBIC))
        yield {"from": [h, w], "to": [oh, ow], "sha256": digest(out)}


def processor_cases():
    ip = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    for h, w in [(56, 84), (61, 75), (20, 33), (57, 56), (56, 56), (28, 28), (100, 300), (224, 224), (1080, 1920)]:
        out = ip(images=Image.fromarray(picture(h, w)), return_tensors="np")
        px = out["pixel_values"]
        assert px.dtype == np.float32
        yield {"size": [h, w], "grid": out["image_grid_thw"][0].tolist(), "shape": list(px.shape), "sha256": digest(px)}


def smart_cases():
    rng = np.random.default_rng(7)
    for _ in range(400):
        h, w = (int(v) for v in np.exp(rng.uniform(0, 8, 2)))
        lo, hi = [(3136, 1003520), (784, 50176), (56 * 56, 56 * 56 * 4), (4 * 784, 16384 * 784)][int(rng.integers(4))]
        factor = int(rng.choice([28, 32, 14]))
        try:
            out = list(smart_resize(h, w, factor, lo, hi))
        except ValueError:
            out = None
        yield [h, w, factor, lo, hi, out]


def encoded_cases():
    rgb, gray = picture(23, 31), picture(23, 31, 1)[..., 0]
    alpha = picture(23, 31, 4, 9)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.fromarray(rgb).quantize(16)
    wide = (picture(23, 31, 1)[..., 0].astype(np.uint16) * 257) ^ np.uint16(0x00A5)
    made = [
        ("png-rgb", Image.fromarray(rgb), "PNG", {}),
        ("png-gray", Image.fromarray(gray), "PNG", {}),
        ("png-rgba", Image.fromarray(alpha, "RGBA"), "PNG", {}),
        ("png-gray-alpha", Image.fromarray(np.ascontiguousarray(alpha[..., :2]), "LA"), "PNG", {}),
        ("png-palette", palette, "PNG", {}),
        ("png-palette-transparent", palette, "PNG", {"transparency": 3}),
        ("png-bilevel", Image.fromarray(gray).convert("1"), "PNG", {}),
        ("png-gray16", Image.fromarray(wide), "PNG", {}),
        ("png-profile", Image.fromarray(rgb), "PNG", {"icc_profile": srgb}),
        ("jpeg-rgb", Image.fromarray(rgb), "JPEG", {"quality": 85}),
        ("jpeg-gray", Image.fromarray(gray), "JPEG", {"quality": 85}),
        ("jpeg-444", Image.fromarray(rgb), "JPEG", {"quality": 95, "subsampling": 0}),
        ("jpeg-exif-rotated", Image.fromarray(rgb), "JPEG", {"quality": 85, "exif": exif}),
        ("jpeg-progressive", Image.fromarray(rgb), "JPEG", {"quality": 80, "progressive": True}),
        ("jpeg-cmyk", Image.fromarray(rgb).convert("CMYK"), "JPEG", {"quality": 85}),
        ("webp-lossless", Image.fromarray(rgb), "WEBP", {"lossless": True}),
        ("webp-lossy", Image.fromarray(rgb), "WEBP", {"quality": 80}),
        ("gif", palette, "GIF", {}),
        ("bmp", Image.fromarray(rgb), "BMP", {}),
        ("tiff", Image.fromarray(rgb), "TIFF", {}),
    ]
    for name, image, kind, options in made:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        opened = Image.open(io.BytesIO(buffer.getvalue()))
        out = np.asarray(opened.convert("RGB"))
        yield {"name": name, "mode": opened.mode, "base64": base64.b64encode(buffer.getvalue()).decode(), "height": out.shape[0],
               "width": out.shape[1], "sha256": digest(out)}


json.dump({"pillow": PIL.__version__, "numpy": np.__version__, "transformers": transformers.__version__,
           "picture_sha256": digest(picture(13, 17)), "resize": list(resize_cases()), "processor": list(processor_cases()),
           "smart_resize": list(smart_cases()), "encoded": list(encoded_cases())}, sys.stdout, indent=None, separators=(",", ":"))
