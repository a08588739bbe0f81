"""Compares an exported folder in transformers (or PEFT) with what Gavel computed, token by token.

    gavel logprobs --model NAME --input rows.jsonl > logprobs.jsonl
    python scripts/verify_export.py --export FOLDER --logprobs logprobs.jsonl [--rows rows.jsonl]

FOLDER is a model, or a PEFT adapter (its base: --base, else what adapter_config.json names). Rows with pictures need --rows:
their prompts then go through the folder's own processor, whose token ids must equal Gavel's. Prints the largest difference
of a log-prob; exit status 0 when it is at most --tolerance, 1 when it is not, 2 for wrong usage, 3 without the packages.
"""

import argparse
import base64
import io
import json
import pathlib
import sys

try:
    import torch
    import transformers
except ImportError as error:
    print(f"skipped: {error}", file=sys.stderr)
    sys.exit(3)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", required=True, help="exported model or adapter")
    parser.add_argument("--logprobs", required=True, help="JSON lines of `gavel logprobs`")
    parser.add_argument("--rows", help="the rows they were made from; needed for pictures")
    parser.add_argument("--base", help="base model of an adapter")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "bfloat16"])
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest allowed difference, in nats")
    return parser.parse_args()


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def load_model(arguments):
    """The model in evaluation mode, the name of what its processor belongs to, and whether it reads pictures."""
    folder = pathlib.Path(arguments.export)
    adapter_path = folder / "adapter_config.json"
    adapter = json.loads(adapter_path.read_text()) if adapter_path.exists() else None
    base = arguments.base or (adapter or {}).get("base_model_name_or_path") if adapter else str(folder)
    if base is None:
        sys.exit("Expected the base model of the adapter but its config names none. Give --base.")
    config = transformers.AutoConfig.from_pretrained(base)
    vision = getattr(config, "vision_config", None) is not None
    kind = transformers.AutoModelForImageTextToText if vision else transformers.AutoModelForCausalLM
    dtype = getattr(torch, arguments.dtype)
    model, report = kind.from_pretrained(base, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    # transformers fills what it misses with random numbers and goes on; that is no export.
    problems = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if problems:
        sys.exit(f"Expected every tensor of the model and no other in {base} but received {problems}.")
    if adapter is not None:
        import peft

        model = peft.PeftModel.from_pretrained(model, str(folder))
    return model.eval(), base, vision


class PillowProcessor:
    """A folder's processor where torchvision, which transformers' own wants for videos, is not installed."""

    def __init__(self, name, image_processor):
        self.config = transformers.AutoConfig.from_pretrained(name)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        self.image_processor, self.image_token_id = image_processor, self.config.image_token_id
        self.onevision = onevision_rule(name, image_processor) if self.config.model_type == "llava_onevision" else None

    def apply_chat_template(self, messages, **options):
        return self.tokenizer.apply_chat_template(messages, **options)

    def tokens_of(self, made, image):
        """How many placeholders a picture has."""
        if self.onevision is not None:
            return len(self.onevision.replace_image_token(made, image)) // len(self.onevision.image_token)
        return made["image_grid_thw"][image].prod().item() // self.image_processor.merge_size**2

    def __call__(self, text, images, return_tensors):
        made = dict(self.image_processor(images=images, return_tensors=return_tensors))
        counts = iter([self.tokens_of(made, image) for image in range(len(images[0]))])
        ids = []
        for token in self.tokenizer(text[0], add_special_tokens=False)["input_ids"]:
            ids += [token] * (next(counts) if token == self.image_token_id else 1)
        made["input_ids"] = torch.tensor([ids])
        if self.onevision is None:
            made["mm_token_type_ids"] = (made["input_ids"] == self.image_token_id).int()
        return made


def onevision_rule(name, image_processor):
    """transformers' own count of LLaVA-OneVision's placeholders: its processor without the part for videos."""
    kind = transformers.LlavaOnevisionProcessor
    settings, _ = kind.get_processor_dict(name)
    rule = kind.__new__(kind)
    rule.image_processor = image_processor
    rule.image_token = settings.get("image_token", "<image>")
    for key in ("num_image_tokens", "vision_feature_select_strategy", "vision_aspect_ratio"):
        setattr(rule, key, settings[key])
    return rule


def load_processor(name):
    """Its processor with the Pillow back end, whose pixels are the ones Gavel computes."""
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    pillow = AutoImageProcessor.from_pretrained(name, backend="pil")
    try:
        processor = transformers.AutoProcessor.from_pretrained(name)
        processor.image_processor = pillow
        return processor
    except ImportError:
        return PillowProcessor(name, pillow)


def messages_of(row):
    """Messages with parts, as chat templates of vision models read them."""

    def parts(content):
        if not isinstance(content, str):
            return content
        pieces = content.split("<image>")
        listed = [{"type": "text", "text": pieces[0]}]
        for piece in pieces[1:]:
            listed += [{"type": "image"}, {"type": "text", "text": piece}]
        return [part for part in listed if part["type"] == "image" or part["text"]]

    turns = row.get("messages", row.get("prompt"))
    turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else list(turns)
    if "messages" in row and "completion" not in row and turns[-1]["role"] == "assistant":
        turns.pop()
    return [{"role": turn["role"], "content": parts(turn["content"])} for turn in turns]


def pictures_of(row):
    """Paths in the order of their places: those of the row, else those that parts carry themselves."""
    parts = [part for turn in row.get("messages", []) if isinstance(turn["content"], list) for part in turn["content"]]
    return row.get("images") or [part["image"] for part in parts if part.get("type") == "image"]


def pillow_version():
    import PIL

    return PIL.__version__


def open_image(source, folder):
    from PIL import Image

    if source.startswith("data:"):
        return Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))).convert("RGB")
    return Image.open(folder / source).convert("RGB")


def vision_inputs(processor, row, line, folder):
    """Pixels and grids of a row, made by the exported processor; its token ids must equal Gavel's."""
    images = [open_image(source, folder) for source in pictures_of(row)]
    text = processor.apply_chat_template(messages_of(row), add_generation_prompt=True, tokenize=False)
    # One list a conversation: LLaVA-OneVision counts the pictures of each.
    made = processor(text=[text], images=[images], return_tensors="pt")
    if made["input_ids"][0].tolist() != line["promptTokens"]:
        sys.exit(f'Expected the processor\'s token ids in row "{row.get("id")}" but Gavel has others.')
    # One entry a token; the completion has none of these.
    per_token = {"input_ids", "attention_mask", "mm_token_type_ids"}
    return {key: value for key, value in made.items() if key not in per_token}, made.get("mm_token_type_ids")


@torch.no_grad()
def logprobs(model, line, extra, types):
    prompt, tokens = line["promptTokens"], line["tokens"]
    ids = torch.tensor([prompt + tokens])
    if types is not None:
        extra = dict(extra, mm_token_type_ids=torch.cat([types, torch.zeros(1, len(tokens), dtype=types.dtype)], 1))
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits[0]
    scores = torch.log_softmax(logits[len(prompt) - 1 : -1].double(), -1)
    return scores.gather(1, torch.tensor(tokens)[:, None])[:, 0]


def main():
    arguments = parse_arguments()
    lines = read_lines(arguments.logprobs)
    rows = {str(row.get("id")): row for row in read_lines(arguments.rows)} if arguments.rows else {}
    row_folder = pathlib.Path(arguments.rows).parent if arguments.rows else None
    if not lines:
        sys.exit("Expected at least one line of log-probs but received none.")
    model, base, vision = load_model(arguments)
    processor = load_processor(base) if vision and rows else None
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(getattr(torch, arguments.dtype))
    worst, total, seen = (-1.0, ""), 0, False
    for line in lines:
        row = rows.get(str(line["id"]))
        if row is not None and (row.get("videos") or '"type": "video"' in json.dumps(row)):
            sys.exit(f'Expected rows without videos but received row "{row["id"]}". Leave it out.')
        with_images = row is not None and pictures_of(row)
        extra, types = vision_inputs(processor, row, line, row_folder) if with_images else ({}, None)
        if with_images:
            seen = True
            extra = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in extra.items()}
        found = logprobs(model, line, extra, types)
        difference = (found - torch.tensor(line["logprobs"], dtype=torch.float64)).abs().max().item()
        worst = max(worst, (difference, str(line["id"])))
        total += len(line["tokens"])
    pillow = f", Pillow {pillow_version()}" if seen else ""
    print(
        f"max difference {worst[0]:.3e} (row {worst[1]}), {total} tokens, {len(lines)} rows, "
        f"tolerance {arguments.tolerance:g}{pillow}"
    )
    if seen and not worst[0] <= arguments.tolerance and int(pillow_version().split(".")[0]) != 12:
        print(
            f"Gavel's pixels are those of Pillow 12. This is Pillow {pillow_version()}, which resizes some pictures in "
            "another order: compare with `pip install 'pillow<13'`.",
            file=sys.stderr,
        )
    # Not `>`: a difference that is no number is no agreement.
    sys.exit(0 if worst[0] <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
