"""One GRPO step of TRL's own trainer with plain transformers generate.  trl_step.py FOLDER fp32|bf16 THREADS SIZES_JSON

Micro-batches of 8 with accumulation, dapo loss, beta 0, AdamW, clip 1.0, no checkpointing; EOS cannot be drawn.
"""
import json
import sys
import tempfile

import torch
from batches import draw_tokens
from session import Meter, answer, memory_bytes, reward

folder, dtype, threads, sizes = *sys.argv[1:4], json.loads(sys.argv[4])
torch.set_num_threads(int(threads))

from trl_session import SPECIAL, OnDemand, settings_of, tokenizer_of  # noqa: E402
from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

with open(f"{folder}/config.json") as file:
    vocabulary = json.load(file)["vocab_size"]
words = SPECIAL + [f"t{i}" for i in range(3, vocabulary)]
words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[1]))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = tokenizer_of(words)
q, g, p, c = sizes["prompts"], sizes["G"], sizes["P"], sizes["C"]
prompts = [" ".join(f"t{token}" for token in draw_tokens(i * p, p, vocabulary)) for i in range(q)]
assert all(len(tokenizer(text)["input_ids"]) == p for text in prompts)


class Trainer(GRPOTrainer):
    def _generate_single_turn(self, *args, **kwargs):
        meter = Meter()
        out = super()._generate_single_turn(*args, **kwargs)
        self.rollout, self.drawn = meter.stop(), sum(len(one) for one in out[0])
        return out


def parts(total):
    train = {key: total[key] - trainer.rollout[key] for key in total}
    return {"rollout": trainer.rollout, "train": train, "tokens": trainer.drawn}


with tempfile.TemporaryDirectory() as output:
    config = settings_of(output, sizes, dtype, 8, generation_kwargs={"min_new_tokens": c})
    trainer = Trainer(
        model=folder, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list([{"prompt": x} for x in prompts]),
        reward_funcs=lambda completion_ids, **_: [reward(ids) for ids in completion_ids], callbacks=[OnDemand(parts)])
    answer(ready=True, memoryBytes=memory_bytes())
    trainer.train()
