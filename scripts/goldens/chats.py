#!/usr/bin/env python3
"""Makes test/goldens/chats.json: conversations through transformers' processors, as rendered text, expanded text and ids.

    python scripts/goldens/chats.py      (transformers 5.17.0, Pillow 12.3.0, torch 2.13.0, torchvision 0.28.0; after families.py)

Also writes the processor files of micro-qwen3-vl. Pictures and frames are the integer picture of pixels.py; frames of one video
have seeds 0, 1, 2 and so on.
"""
import copy
import json
import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

import torchvision_import  # noqa: F401  before transformers
import transformers
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from pixels import picture
from reference import GOLDENS

HEAD = ("{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant."
        "<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for content in message['content'] %}")
TAIL = ("{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
COUNTS = "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
QWEN = (COUNTS + HEAD + "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}"
        "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}"
        "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>" + TAIL)
# Before transformers 5.10 the Qwen3-VL processor replaced start, pad and end together; now it replaces the pad alone, so that the
# ordinary template frames a video twice. This template gives the older form.
BARE = QWEN.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
ONEVISION = (HEAD + "{% if content['type'] == 'image' %}<image>\n{% elif content['type'] == 'video' %}<video>\n" + TAIL)


def text(words):
    return {"type": "text", "text": words}


IMAGE, VIDEO = {"type": "image"}, {"type": "video"}
CHATS = {
    "text": ([{"role": "user", "content": "What is 2+2?"}], [], []),
    "turns": ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
               {"role": "user", "content": "naïve 日本語 😀?"}], [], []),
    "image": ([{"role": "user", "content": [IMAGE, text("What is the sum?")]}], [(61, 75)], []),
    "images": ([{"role": "user", "content": [text("Compare "), IMAGE, IMAGE, text(" and say which is larger.")]}], [(56, 84), (90, 57)], []),
    "images-turns": ([{"role": "user", "content": [IMAGE, text("First.")]}, {"role": "assistant", "content": "Seen."},
                      {"role": "user", "content": [text("Second: "), IMAGE]}], [(40, 120), (20, 33)], []),
    "video": ([{"role": "user", "content": [VIDEO, text("What moves?")]}], [], [{"size": (61, 75), "frames": 6, "fps": 2.0}]),
    "video-odd": ([{"role": "user", "content": [text("See "), VIDEO, text("?")]}], [], [{"size": (64, 64), "frames": 5, "fps": 4.0}]),
    "videos": ([{"role": "user", "content": [text("A: "), VIDEO, text("B: "), VIDEO, text("Which?")]}], [],
               [{"size": (56, 56), "frames": 4, "fps": 2.0}, {"size": (56, 56), "frames": 4, "fps": 1.0}]),
    "video-sampled": ([{"role": "user", "content": [VIDEO, text("And?")]}], [],
                      [{"size": (56, 56), "frames": 3, "fps": 24.0, "of": 90, "indices": [0, 30, 89]}]),
    "mixed": ([{"role": "user", "content": [IMAGE, text("Is it in "), VIDEO, text("?")]}], [(57, 56)], [{"size": (60, 90), "frames": 4, "fps": 2.0}]),
}


def make_qwen3_processor():
    folder = os.path.join(GOLDENS, "micro-qwen3-vl")
    half = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image = transformers.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 4096, "longest_edge": 65536}, **half)
    video = transformers.Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": 131072}, **half)
    processor = transformers.Qwen3VLProcessor(image, tokenizer, video, chat_template=QWEN)
    image.save_pretrained(folder)
    video.save_pretrained(folder)
    processor.save_pretrained(folder)


def pillow_back_end(processor):
    """The same processor with the Pillow back end for images: token counts are alike, and pixels are those of pixels.json."""
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    had = processor.image_processor
    cls = LlavaOnevisionImageProcessorPil if "Onevision" in type(had).__name__ else Qwen2VLImageProcessorPil
    keys = ("size", "image_mean", "image_std", "resample", "patch_size", "merge_size", "temporal_patch_size", "image_grid_pinpoints")
    processor.image_processor = cls(**{k: copy.deepcopy(getattr(had, k)) for k in keys if hasattr(had, k)})


def one(processor, template, name, **variables):
    messages, pictures, videos = CHATS[name]
    case = {"chat": name, "messages": messages}
    if variables:
        case["variables"] = variables
    rendered = processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False, **variables)
    case["text"] = rendered
    arguments = {}
    if pictures:
        case["pictures"] = [[h, w, 3, 0] for h, w in pictures]
        arguments["images"] = [[Image.fromarray(picture(h, w)) for h, w in pictures]]
    if videos:
        case["videos"] = videos
        arguments["videos"] = [np.stack([picture(*v["size"], 3, seed) for seed in range(v["frames"])]) for v in videos]
        arguments["video_metadata"] = [{"total_num_frames": v.get("of", v["frames"]), "fps": v["fps"], "frames_indices": v.get("indices", list(range(v["frames"])))} for v in videos]
        arguments["do_sample_frames"] = False
    try:
        out = processor(text=[rendered], return_tensors="pt", **arguments)
    except (ValueError, RuntimeError, IndexError, TypeError, StopIteration) as refusal:
        return case | {"refused": f"{type(refusal).__name__}: {refusal}"}
    case["ids"] = out["input_ids"][0].tolist()
    case["expanded"] = processor.tokenizer.decode(case["ids"])
    for key in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "image_sizes", "batch_num_images"):
        if key in out:
            case[key] = out[key].tolist() if hasattr(out[key], "tolist") else [float(x) for x in out[key]]
    return case


def main():
    torch.set_num_threads(1)
    make_qwen3_processor()
    cases = []
    for folder, template in (("micro-vl", QWEN), ("micro-ov", ONEVISION), ("micro-qwen3-vl", QWEN)):
        processor = AutoProcessor.from_pretrained(os.path.join(GOLDENS, folder))
        pillow_back_end(processor)
        kind = "qwen" if template == QWEN else "onevision"
        for name in CHATS:
            cases.append({"model": folder, "template": kind} | one(processor, template, name))
        if kind == "qwen":
            cases.append({"model": folder, "template": kind} | one(processor, template, "images", add_vision_id=True))
        if folder == "micro-qwen3-vl":
            for name in (n for n, chat in CHATS.items() if chat[2]):
                cases.append({"model": folder, "template": "qwen_bare_video"} | one(processor, BARE, name))
    for case in cases:
        videos = len(CHATS[case["chat"]][2])
        assert videos == 0 or "refused" in case or any(k in case["expanded"] for k in ("<video>", "<|video_pad|>"))
    out = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}, "templates": {"qwen": QWEN, "qwen_bare_video": BARE, "onevision": ONEVISION},
           "notes": ["videos are arrays with metadata, do_sample_frames false; a video's frames are picture(h, w, 3, seed = 0, 1, ...); fps is that of the "
                     "source, of which `indices` (default: all) were kept", "micro-qwen3-vl and micro-vl have the template `qwen`, micro-ov `onevision`",
                     "since transformers 5.10 (and vLLM with it) the ordinary template frames Qwen3-VL's videos twice, by an outer vision start and end around "
                     "the stamps; before, the outer pair was dropped: the cases of qwen_bare_video hold that form", "a time stamp is Python's '%.1f': 0.25 becomes 0.2, ties to even digits"], "cases": cases}
    for folder, template in (("micro-vl", QWEN), ("micro-ov", ONEVISION)):
        with open(os.path.join(GOLDENS, folder, "chat_template.jinja"), "w", encoding="utf8") as f:
            f.write(template)
    with open(os.path.join(GOLDENS, "chats.json"), "w", encoding="utf8") as f:
        head = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in out.items() if k != "cases")
        rows = ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases)
        f.write("{\n" + head + ',\n"cases": [\n' + rows + "\n]\n}\n")


if __name__ == "__main__":
    main()
