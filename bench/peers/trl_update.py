"""The update of TRL's own trainer over given completions, pictures included.  trl_update.py FOLDER fp32|bf16 THREADS SIZES_JSON

Nothing is generated: the batch that `_generate_and_score_completions` would return is put in its place, so what is timed is
TRL's loss, backward, clipping and AdamW. Micro-batches of `micro` (4) rows, which are no slower than of 8 and take less memory;
dapo loss, beta 0, no checkpointing.
"""
import json
import logging
import sys
import tempfile
import warnings

import torch
from batches import completions_of, prompt_of
from session import Meter, answer, memory_bytes

folder, dtype, threads, sizes = *sys.argv[1:4], json.loads(sys.argv[4])
torch.set_num_threads(int(threads))
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

# The trainer wants a tokenizer; nothing is tokenized.
words = Tokenizer(models.WordLevel({"<pad>": 0, "<unknown>": 1, "<end>": 2}, unk_token="<unknown>"))
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words, pad_token="<pad>", unk_token="<unknown>", eos_token="<end>", padding_side="left")
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


class OnDemand(TrainerCallback):
    """A step begins when a line arrives and is answered when the optimizer has moved."""

    def on_step_begin(self, args, state, control, **kwargs):
        if not sys.stdin.readline():
            sys.exit(0)
        self.meter = Meter()

    def on_step_end(self, args, state, control, **kwargs):
        answer(**self.meter.stop(), memoryBytes=memory_bytes())


given = batch()
with tempfile.TemporaryDirectory() as output:
    micro = min(sizes.get("micro", 4), q * g)
    config = GRPOConfig(
        output_dir=output, per_device_train_batch_size=micro, gradient_accumulation_steps=q * g // micro,
        num_generations=g, max_completion_length=c, max_steps=10_000, learning_rate=1e-5, weight_decay=0.0,
        logging_strategy="no", report_to="none", save_strategy="no", use_cpu=True, bf16=dtype == "bf16",
        gradient_checkpointing=False, temperature=1.0, beta=0.0, disable_tqdm=True, dataloader_pin_memory=False,
        shuffle_dataset=False, seed=1, optim="adamw_torch_fused")
    trainer = Trainer(
        model=model, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list([{"prompt": "<end>"}] * q),
        reward_funcs=lambda completion_ids, **_: [0.0] * len(completion_ids), callbacks=[OnDemand()])
    answer(ready=True, memoryBytes=memory_bytes())
    trainer.train()
