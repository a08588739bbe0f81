"""A Qwen2 folder as a GGUF file for llama.cpp, with a vocabulary of single words.  write_gguf.py FOLDER FILE BF16|F16|F32"""
import json
import sys

import gguf
import torch
from safetensors.torch import load_file

folder, path, name = sys.argv[1:4]
with open(f"{folder}/config.json") as file:
    c = json.load(file)
writer = gguf.GGUFWriter(path, "qwen2")
writer.add_context_length(c["max_position_embeddings"])
writer.add_embedding_length(c["hidden_size"])
writer.add_block_count(c["num_hidden_layers"])
writer.add_feed_forward_length(c["intermediate_size"])
writer.add_head_count(c["num_attention_heads"])
writer.add_head_count_kv(c["num_key_value_heads"])
writer.add_rope_freq_base(c["rope_parameters"]["rope_theta"])
writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
kind = {"BF16": gguf.GGMLQuantizationType.BF16, "F16": gguf.GGMLQuantizationType.F16, "F32": gguf.GGMLQuantizationType.F32}[name]
writer.add_file_type({"BF16": gguf.LlamaFileType.MOSTLY_BF16, "F16": gguf.LlamaFileType.MOSTLY_F16, "F32": gguf.LlamaFileType.ALL_F32}[name])
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("qwen2")
writer.add_token_list([f"t{i}" for i in range(c["vocab_size"])])
writer.add_token_types([gguf.TokenType.CONTROL if i < 3 else gguf.TokenType.NORMAL for i in range(c["vocab_size"])])
writer.add_token_merges(["t 3"])
writer.add_eos_token_id(c["eos_token_id"])
writer.add_pad_token_id(c["pad_token_id"])
writer.add_add_bos_token(False)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, c["num_hidden_layers"])
for key, value in load_file(f"{folder}/model.safetensors").items():
    target = names.get_name(key, try_suffixes=(".weight", ".bias"))
    value = value.float()
    if value.ndim == 1:
        writer.add_tensor(target, value.numpy())
    else:
        # bf16 as llama.cpp's own converter rounds it.
        writer.add_tensor(target, gguf.quants.quantize(value.numpy(), kind), raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
