#!/usr/bin/env python3
"""Parquet files of pyarrow and of datasets, and what pyarrow reads in them.

  python make_parquet.py          needs pyarrow 26, datasets 5, pillow 12; writes beside this file
Pictures are 4 x 3 PNGs of one colour. expected.json holds rows as JSON, pictures as SHA-256 of their bytes.
"""
import hashlib
import io
import json
import pathlib

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

here = pathlib.Path(__file__).parent


def png(index):
    out = io.BytesIO()
    Image.new("RGB", (4, 3), ((index * 40) % 256, (index * 90) % 256, 7)).save(out, "PNG")
    return out.getvalue()


image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
message = pa.struct([("role", pa.string()), ("content", pa.string())])


def rows(start, count):
    return [
        {
            "id": i,
            "problem": f"Which is better, {i}? 日本",
            "solution": f"<answer>Image {i % 2 + 1} is better</answer>",
            "images": [{"bytes": png(i), "path": None}, {"bytes": png(i + 100), "path": f"{i}.png"}],
            "difficulty": i / 4,
            "big": 2**60 + i,
            "note": None if i % 3 else f"note {i}",
        }
        for i in range(start, start + count)
    ]


problems = pa.schema(
    [
        ("id", pa.int64()),
        ("problem", pa.string()),
        ("solution", pa.string()),
        ("images", pa.list_(image)),
        ("difficulty", pa.float64()),
        ("big", pa.int64()),
        ("note", pa.string()),
    ]
)


def write(name, data, schema, **options):
    pq.write_table(pa.Table.from_pylist(data, schema=schema), here / name, **options)


def plain(value):
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


# One content, four ways to store it.
content = rows(0, 23)
write("snappy.parquet", content, problems, compression="snappy", row_group_size=5)
write("zstd.parquet", content, problems, compression="zstd", row_group_size=10, data_page_version="2.0")
write("gzip.parquet", content, problems, compression="gzip", row_group_size=23, write_page_index=True, data_page_size=256)
write("brotli.parquet", content, problems, compression="brotli", row_group_size=7, use_dictionary=False)
write("lz4.parquet", content, problems, compression="lz4", row_group_size=8)

# Shards of one data set, as a hub folder holds them.
folder = here / "hub" / "data"
folder.mkdir(parents=True, exist_ok=True)
for shard, (start, count) in enumerate([(0, 4), (4, 3)]):
    write(f"hub/data/train-{shard:05d}-of-00002.parquet", rows(start, count), problems, compression="zstd")
write("hub/data/test-00000-of-00001.parquet", rows(50, 2), problems, compression="snappy")

# A chat with a picture by path, one inside, and one without any picture.
chat = pa.schema([("messages", pa.list_(message)), ("images", pa.list_(image))])
write(
    "chat.parquet",
    [
        {
            "messages": [{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "A cat."}],
            "images": [{"bytes": png(1), "path": "a.png"}],
        },
        {
            "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "<image>Where?"}],
            "images": [{"bytes": None, "path": "sub/b.png"}],
        },
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "images": []},
    ],
    chat,
)

# Bad rows: a mark too many, a picture without bytes or path, a path out of the folder, bytes that are no UTF-8, an id twice.
bad = [
    {"id": "a", "prompt": "<image>fine", "image": {"bytes": png(2), "path": None}},
    {"id": "b", "prompt": "<image><image>", "image": {"bytes": png(2), "path": None}},
    {"id": "c", "prompt": "<image>", "image": {"bytes": None, "path": None}},
    {"id": "d", "prompt": "<image>", "image": {"bytes": None, "path": "../secret.png"}},
    {"id": "e", "prompt": "<image>fine too", "image": {"bytes": png(3), "path": None}},
    {"id": "a", "prompt": "<image>again", "image": {"bytes": png(3), "path": None}},
]
for row in bad:
    row["images"] = [row.pop("image")]
write("bad.parquet", bad, pa.schema([("id", pa.string()), ("prompt", pa.string()), ("images", pa.list_(image))]))
# An invalid string can only be written as binary under a string's name: cast without a check.
text = pa.StringArray.from_buffers(2, pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0])), pa.py_buffer(b"ok\xff\xfe"))
pq.write_table(pa.table({"prompt": text}), here / "not_utf8.parquet")

# As `datasets` writes them: pictures, a class label, a list of structs, features in the metadata.
features = datasets.Features(
    {
        "question": datasets.Value("string"),
        "image": datasets.Image(),
        "answer": datasets.Value("string"),
        "choices": datasets.List(datasets.Value("string")),
        "subject": datasets.ClassLabel(names=["geometry", "tables"]),
    }
)
hub = datasets.Dataset.from_list(
    [
        {"question": "How many?", "image": {"bytes": png(5), "path": None}, "answer": "B", "choices": ["1", "2"], "subject": 1},
        {"question": "Which?", "image": {"bytes": png(6), "path": None}, "answer": "seven", "choices": None, "subject": 0},
    ],
    features=features,
)
hub.to_parquet(here / "features.parquet")

# Published benchmarks as the hub holds them: a shard of several row groups, pictures inside, lists of numbers, of pictures.
def hub_file(name, features, rows, **options):
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(path, **options)


text, texts, integers = datasets.Value("string"), datasets.List(datasets.Value("string")), datasets.List(datasets.Value("int64"))
hub_file(
    "benchmarks/vl-reward-bench/data/test-00000-of-00001.parquet",
    {
        **{"id": text, "query": text, "response": texts, "image": datasets.Image(), "human_ranking": integers},
        **{"models": texts, "judge": text, "ground_truth": text},
    },
    [
        {
            "id": name,
            "query": f"How many, {i}? 日本",
            "response": ["Two.", f"Three {i}."],
            "image": {"bytes": png(i), "path": f"{name}.png"},
            "human_ranking": [0, 1] if i % 2 == 0 else [1, 0],
            "models": ["a", "b"],
            "judge": None,
            "ground_truth": None,
        }
        for i, name in enumerate(["mmmu_1", "svit-2", "RLHF-V-3", "RLHF-V-3", "wildvision-battle-5"])
    ],
    batch_size=2,
)
hub_file(
    "benchmarks/edit-reward-bench-editscore/data/train-00000-of-00001.parquet",
    {
        **{"key": texts, "instruction": text, "task_type": text, "dimension": datasets.ClassLabel(names=["consistency", "overall"])},
        **{"input_image": datasets.Image(), "output_images": datasets.List(datasets.Image())},
    },
    [
        {
            "key": [f"{i}a", f"{i}b"],
            "instruction": "Make it red.",
            "task_type": "color_alter",
            "dimension": i,
            "input_image": {"bytes": png(i), "path": None},
            "output_images": [{"bytes": png(i + 10), "path": None}, {"bytes": png(i + 20), "path": None}],
        }
        for i in range(2)
    ],
)

# TRL's preferences with messages: part structs are merged by Arrow, so absent keys are null.
part = pa.struct([("text", pa.string()), ("type", pa.string())])
parts = pa.list_(pa.struct([("content", pa.list_(part)), ("role", pa.string())]))
turn = lambda role, *items: {"role": role, "content": list(items)}
say = lambda words: {"type": "text", "text": words}
write(
    "preferences.parquet",
    [
        {
            "prompt": [turn("user", {"type": "image", "text": None}, say(f"Describe {i}."))],
            "chosen": [turn("assistant", say("good"))],
            "rejected": [turn("assistant", say("bad"))],
            "images": [{"bytes": png(i), "path": None}],
        }
        for i in range(3)
    ],
    pa.schema([("prompt", parts), ("chosen", parts), ("rejected", parts), ("images", pa.list_(image))]),
)

# 64 MB of pictures that compress to nothing: something to decode that takes time.
write(
    "zeros.parquet",
    [{"id": i, "prompt": "<image>", "images": [{"bytes": bytes(1 << 20), "path": None}]} for i in range(64)],
    pa.schema([("id", pa.int64()), ("prompt", pa.string()), ("images", pa.list_(image))]),
    compression="zstd",
    row_group_size=16,
    use_dictionary=False,
)

expected = {
    "made_by": {"pyarrow": pa.__version__, "datasets": datasets.__version__},
    "snappy": plain(pq.read_table(here / "snappy.parquet").to_pylist()),
}
(here / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
