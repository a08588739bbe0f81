"""One GRPO step of TRL's own trainer with plain transformers generate.  trl_step.py FOLDER fp32|bf16 THREADS SIZES_JSON

Micro-batches of 8 with accumulation, dapo loss, beta 0, AdamW, clip 1.0, no checkpointing; EOS cannot be drawn.
"""
import json
import logging
import sys
import tempfile
import warnings

import torch
from batches import draw_tokens
from session import Meter, answer, memory_bytes, reward

folder, dtype, threads, sizes = *sys.argv[1:4], json.loads(sys.argv[4])
torch.set_num_threads(int(threads))
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

with open(f"{folder}/config.json") as file:
    vocabulary = json.load(file)["vocab_size"]
SPECIAL = ["<pad>", "<unknown>", "<end>"]  # ids 0, 1, 2
words = SPECIAL + [f"t{i}" for i in range(3, vocabulary)]
words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[1]))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=words, pad_token=SPECIAL[0], unk_token=SPECIAL[1], eos_token=SPECIAL[2], padding_side="left")
q, g, p, c = sizes["prompts"], sizes["G"], sizes["P"], sizes["C"]
prompts = [" ".join(f"t{token}" for token in draw_tokens(i * p, p, vocabulary)) for i in range(q)]
assert all(len(tokenizer(text)["input_ids"]) == p for text in prompts)


class Trainer(GRPOTrainer):
    def _generate_single_turn(self, *args, **kwargs):
        meter = Meter()
        out = super()._generate_single_turn(*args, **kwargs)
        self.rollout, self.drawn = meter.stop(), sum(len(one) for one in out[0])
        return out


class OnDemand(TrainerCallback):
    """A step begins when a line arrives and is answered when the optimizer has moved."""

    def on_step_begin(self, args, state, control, **kwargs):
        if not sys.stdin.readline():
            sys.exit(0)
        self.meter = Meter()

    def on_step_end(self, args, state, control, **kwargs):
        total = self.meter.stop()
        train = {key: total[key] - trainer.rollout[key] for key in total}
        answer(**total, rollout=trainer.rollout, train=train, tokens=trainer.drawn, memoryBytes=memory_bytes())


with tempfile.TemporaryDirectory() as output:
    micro = min(8, q * g)
    config = GRPOConfig(
        output_dir=output, per_device_train_batch_size=micro, gradient_accumulation_steps=q * g // micro,
        num_generations=g, max_completion_length=c, max_steps=10_000, learning_rate=1e-5, weight_decay=0.0,
        logging_strategy="no", report_to="none", save_strategy="no", use_cpu=True, bf16=dtype == "bf16",
        gradient_checkpointing=False, temperature=1.0, beta=0.0, disable_tqdm=True, dataloader_pin_memory=False,
        shuffle_dataset=False, seed=1, optim="adamw_torch_fused", generation_kwargs={"min_new_tokens": c})
    trainer = Trainer(
        model=folder, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list([{"prompt": x} for x in prompts]),
        reward_funcs=lambda completion_ids, **_: [reward(ids) for ids in completion_ids], callbacks=[OnDemand()])
    answer(ready=True, memoryBytes=memory_bytes())
    trainer.train()
