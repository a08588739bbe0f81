#!/usr/bin/env python3
"""Makes test/goldens/{ov_heads,qwen3_vl_heads}.* and their checkpoints: vision towers with heads of 72 columns, as those of the
published LLaVA-OneVision and Qwen3-VL checkpoints are, which is no multiple of 16.

    python scripts/goldens/head_sizes.py      (torch 2.13.0, transformers 5.17.0, safetensors, numpy)
"""
import torch

from cases import measure
from reference import keep_frequencies_in_float32, make_checkpoint, write
from vision_families import COMMON, IMAGE, OV_IMAGE, OV_VIDEO, VIDEO, ov_row, qwen_row

TEXT = dict(vocab_size=512, hidden_size=64, intermediate_size=32, num_hidden_layers=1, rms_norm_eps=1e-6, max_position_embeddings=4096,
            bos_token_id=None, eos_token_id=505, pad_token_id=503)


def keep(name):
    return "attn" in name and "visual" in name or "vision_tower" in name and "self_attn" in name


def ov():
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

    vision = SiglipVisionConfig(hidden_size=72, intermediate_size=40, num_hidden_layers=2, num_attention_heads=1, image_size=28, patch_size=7,
                                vision_use_head=False)
    text = Qwen2Config(**TEXT, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    config = LlavaOnevisionConfig(vision_config=vision, text_config=text, image_token_index=OV_IMAGE, video_token_index=OV_VIDEO,
                                  image_grid_pinpoints=[[28, 28], [28, 56], [56, 28], [56, 56]], tie_word_embeddings=True)
    make_checkpoint("micro-ov-heads", LlavaOnevisionForConditionalGeneration, config, tokenizer=False)
    rows = [ov_row("ovh.wide", [3, ("image", [28, 50], 16 + 4 * (8 + 1), 3), 4], 6), ov_row("ovh.video", [2, ("video", 2), 3], 5)]
    tensors, info = measure("ov_heads", LlavaOnevisionForConditionalGeneration, "micro-ov-heads", rows, keep=keep, lm=False)
    write("ov_heads", tensors, info | {"notes": COMMON})


def qwen3_vl():
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 5000000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text = dict(**TEXT, num_attention_heads=2, num_key_value_heads=1, head_dim=32, rope_parameters=rope)
    vision = dict(depth=2, hidden_size=72, intermediate_size=40, num_heads=1, patch_size=4, out_hidden_size=64, num_position_embeddings=16,
                  deepstack_visual_indexes=[1])
    config = Qwen3VLConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=VIDEO, tie_word_embeddings=True)
    make_checkpoint("micro-qwen3-vl-heads", Qwen3VLForConditionalGeneration, config, tokenizer=False)
    rows = [qwen_row("q3h.image", [4, ("image", [1, 6, 8]), 3], 6, 96), qwen_row("q3h.video", [2, ("video", [2, 4, 4], 1.0), 3], 5, 96, frames_apart=True)]
    tensors, info = measure("qwen3_vl_heads", Qwen3VLForConditionalGeneration, "micro-qwen3-vl-heads", rows, keep=keep, lm=False)
    write("qwen3_vl_heads", tensors, info | {"notes": COMMON})


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_frequencies_in_float32()
    ov()
    qwen3_vl()
