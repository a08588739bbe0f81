"""The update of TRL's own trainer over given completions, pictures included.  trl_update.py FOLDER fp32|bf16 THREADS SIZES_JSON

Nothing is generated: the batch that `_generate_and_score_completions` would return is put in its place, so what is timed is
TRL's loss, backward, clipping and AdamW. Micro-batches of `micro` (4) rows, which are no slower than of 8 and take less memory;
dapo loss, beta 0, no checkpointing.
"""
import json
import sys
import tempfile

import torch
from batches import completions_of, prompt_of
from session import answer, memory_bytes

folder, dtype, threads, sizes = *sys.argv[1:4], json.loads(sys.argv[4])
torch.set_num_threads(int(threads))

from trl_session import SPECIAL, OnDemand, settings_of, tokenizer_of  # noqa: E402
from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import Qwen2_5_VLForConditionalGeneration  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

# The trainer wants a tokenizer; nothing is tokenized.
words = {word: i for i, word in enumerate(SPECIAL)}
tokenizer = tokenizer_of(Tokenizer(models.WordLevel(words, unk_token=SPECIAL[1])))
q, g, c = sizes["prompts"], sizes["G"], sizes["C"]
model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
with open(f"{folder}/config.json") as file:
    settings = json.load(file)


def batch():
    drawn = [prompt_of(i, sizes, settings) for i in range(q)]
    prompts = torch.tensor([ids for ids, _ in drawn]).repeat_interleave(g, 0)
    completions = torch.cat([completions_of(i, sizes, settings) for i in range(q)])
    kinds = torch.cat([prompts == settings["image_token_id"], torch.zeros_like(completions)], 1).int()
    pictures = sizes["pictures"]
    return {
        "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_ids": completions,
        "completion_mask": torch.ones_like(completions), "advantages": torch.tensor([1.0, -1.0]).repeat(q * g)[:q * g],
        "num_items_in_batch": torch.tensor(q * g * c), "mm_token_type_ids": kinds, "num_images": [pictures] * (q * g),
        "pixel_values": torch.cat([torch.cat(images * g) for _, images in drawn]),
        "image_grid_thw": torch.tensor([[1, *sizes["grid"]]] * (pictures * q * g)),
    }


class Trainer(GRPOTrainer):
    def _generate_and_score_completions(self, inputs):
        return {key: value.clone() if torch.is_tensor(value) else list(value) for key, value in given.items()}


given = batch()
with tempfile.TemporaryDirectory() as output:
    config = settings_of(output, sizes, dtype, sizes.get("micro", 4))
    trainer = Trainer(
        model=model, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list([{"prompt": "<end>"}] * q),
        reward_funcs=lambda completion_ids, **_: [0.0] * len(completion_ids), callbacks=[OnDemand()])
    answer(ready=True, memoryBytes=memory_bytes())
    trainer.train()
