"""The inputs of every workload, from a counter hash: what bench/engine/batches.mjs draws."""
import torch

REWARD_TOKEN = 1


def hashes(start, count):
    return (((torch.arange(start + 1, start + count + 1) * 2654435761) & 0xFFFFFFFF) >> 8)


def draw_tokens(start, count, vocabulary, low=3):
    return (low + hashes(start, count) % (vocabulary - low)).tolist()


def first_text_id(config):
    return 7 if "vision_config" in config else 3


def vocabulary_of(config):
    return config.get("text_config", config)["vocab_size"]


def picture(index, grid):
    """[patches, 2 * 3 * 14 * 14] in [-1, 1)."""
    count = grid[0] * grid[1] * 1176
    return (hashes(index * count, count).double() / 2**23 - 1).float().view(-1, 1176)


def prompt_of(index, sizes, config):
    """Token ids and the pictures' pixels; the placeholders of the pictures come first."""
    grid, pictures = sizes.get("grid"), sizes.get("pictures", 0)
    images = [picture(index * pictures + i, grid) for i in range(pictures)]
    run = []
    if images:
        run = [config["vision_start_token_id"], *[config["image_token_id"]] * (grid[0] * grid[1] // 4), config["vision_end_token_id"]]
    ids = run * pictures
    return ids + draw_tokens(index * sizes["P"], sizes["P"] - len(ids), vocabulary_of(config), first_text_id(config)), images


def completions_of(index, sizes, config):
    """[G, C] tokens; their advantages are 1 and -1 in turn."""
    c, g = sizes["C"], sizes["G"]
    draw = lambda i: draw_tokens(1_000_000 + (index * g + i) * c, c, vocabulary_of(config), first_text_id(config))  # noqa: E731
    return torch.tensor([draw(i) for i in range(g)])


def pair_of(index, sizes, config):
    """A prompt and two answers, which end with the reward token."""
    low, high = sizes["low"], sizes["high"]
    length = lambda i: low + hashes(3 * index + i, 1).item() % (high - low + 1)  # noqa: E731
    draw = lambda i, count: draw_tokens((3 * index + i) * high, count, config["vocab_size"])  # noqa: E731
    return draw(0, length(0)), [draw(i, length(i) - 1) + [REWARD_TOKEN] for i in (1, 2)]
