/**
 * TensorBoard's Event messages, encoded by hand: the few fields of event.proto, summary.proto and tensor.proto that scalars,
 * texts and pictures need. Fields stand in ascending order, as protobuf's own encoders write them.
 */

/** One number of an event. */
export interface ScalarValue {
  tag: string;
  /** Stored as float32. */
  value: number;
}

/** A PNG with its size in pixels. */
export interface PngImage {
  png: Uint8Array;
  width: number;
  height: number;
}

const wire = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;
const dataTypeString = 7;
const coloursOfRgb = 3;

/** 7 bits a byte, lowest first; `value` is an integer in [0, 2^53). */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

const key = (field: number, type: number): Buffer => varint(field * 8 + type);
const bytesField = (field: number, bytes: Uint8Array): Buffer =>
  Buffer.concat([key(field, wire.bytes), varint(bytes.length), bytes]);
const message = (field: number, ...parts: Uint8Array[]): Buffer => bytesField(field, Buffer.concat(parts));
const text = (field: number, value: string): Buffer => bytesField(field, Buffer.from(value));
/** Absent where it is zero, the default. */
const integer = (field: number, value: number): Buffer =>
  value === 0 ? Buffer.alloc(0) : Buffer.concat([key(field, wire.varint), varint(value)]);

function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, wire.fixed64), bytes]);
}

function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, wire.fixed32), bytes]);
}

const event = (wallSeconds: number, step: number, ...parts: Uint8Array[]): Buffer =>
  Buffer.concat([double(1, wallSeconds), integer(2, step), ...parts]);

/** The first event of every file. */
export const versionEvent = (wallSeconds: number): Buffer => event(wallSeconds, 0, text(3, 'brain.Event:2'));

/** Numbers of one step. */
export const scalarsEvent = (wallSeconds: number, step: number, scalars: readonly ScalarValue[]): Buffer =>
  event(wallSeconds, step, message(5, ...scalars.map(({ tag, value }) => message(1, text(1, tag), float(2, value)))));

/** Markdown for the text page. */
export function textEvent(wallSeconds: number, step: number, tag: string, markdown: string): Buffer {
  const shape = message(2, message(2, integer(1, 1)));
  const tensor = message(8, integer(1, dataTypeString), shape, text(8, markdown));
  const metadata = message(9, message(1, text(1, 'text')));
  return event(wallSeconds, step, message(5, message(1, text(1, tag), tensor, metadata)));
}

export function imageEvent(wallSeconds: number, step: number, tag: string, { png, width, height }: PngImage): Buffer {
  const image = message(4, integer(1, height), integer(2, width), integer(3, coloursOfRgb), bytesField(4, png));
  return event(wallSeconds, step, message(5, message(1, text(1, tag), image)));
}
