"""Event records as TensorBoard's own protobuf classes and record writer write them (tensorboard 2.21.0): tensorboard.json."""
import io, json, os
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000" "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)

def event(wall_time, step=0):
    found = event_pb2.Event(wall_time=wall_time, step=step)
    return found

def record(found):
    stream = io.BytesIO()
    RecordWriter(stream).write(found.SerializeToString(deterministic=True))
    return stream.getvalue().hex()

version = event(1700000000.25)
version.file_version = "brain.Event:2"

scalars = event(1700000001.5, 300)
for tag, value in [("grpo/reward", 1.25), ("grpo/kl", 0.0), ("cold-start/loss", 0.1), ("größe", float("nan")), ("grpo/low", -3e-12)]:
    scalars.summary.value.add(tag=tag, simple_value=value)

text = event(1700000002.0)
value = text.summary.value.add(tag="config")
value.metadata.plugin_data.plugin_name = "text"
value.tensor.dtype = 7
value.tensor.tensor_shape.dim.add(size=1)
value.tensor.string_val.append("# ü\n".encode())

image = event(1700000003.0, 2**40)
value = image.summary.value.add(tag="plots/reward")
value.image.height, value.image.width, value.image.colorspace = 1, 300, 3
value.image.encoded_image_string = PNG

golden = {"png": PNG.hex(), "version": record(version), "scalars": record(scalars), "text": record(text), "image": record(image)}
with open(os.path.join(os.path.dirname(__file__), "tensorboard.json"), "w") as file:
    json.dump(golden, file, indent=2)
    file.write("\n")
