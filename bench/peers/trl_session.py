"""What every run of TRL's trainer here shares: quiet, one step a line of stdin, the settings all measured steps are compared under.

dapo loss, beta 0, temperature 1, AdamW, clip 1.0, micro-batches with accumulation, no checkpointing. Import after
torch.set_num_threads.
"""
import logging
import sys
import warnings

from session import Meter, answer, memory_bytes

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from transformers import PreTrainedTokenizerFast, TrainerCallback  # noqa: E402
from trl import GRPOConfig  # noqa: E402

SPECIAL = ["<pad>", "<unknown>", "<end>"]  # ids 0, 1, 2


def tokenizer_of(words):
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=SPECIAL[0], unk_token=SPECIAL[1], eos_token=SPECIAL[2], padding_side="left")


def settings_of(output, sizes, dtype, micro, **more):
    rows = sizes["prompts"] * sizes["G"]
    micro = min(micro, rows)
    return GRPOConfig(
        output_dir=output, per_device_train_batch_size=micro, gradient_accumulation_steps=rows // micro,
        num_generations=sizes["G"], max_completion_length=sizes["C"], max_steps=10_000, learning_rate=1e-5, weight_decay=0.0,
        logging_strategy="no", report_to="none", save_strategy="no", use_cpu=True, bf16=dtype == "bf16",
        gradient_checkpointing=False, temperature=1.0, beta=0.0, loss_type="dapo", disable_tqdm=True, dataloader_pin_memory=False,
        shuffle_dataset=False, seed=1, optim="adamw_torch_fused", **more)


class OnDemand(TrainerCallback):
    """A step begins when a line arrives and is answered when the optimizer has moved, with what `parts(total)` adds."""

    def __init__(self, parts=lambda total: {}):
        self.parts = parts

    def on_step_begin(self, args, state, control, **kwargs):
        if not sys.stdin.readline():
            sys.exit(0)
        self.meter = Meter()

    def on_step_end(self, args, state, control, **kwargs):
        total = self.meter.stop()
        answer(**total, **self.parts(total), memoryBytes=memory_bytes())
