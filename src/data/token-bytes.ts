/**
 * The bytes that each token adds to a text, as its decoder writes them: what stop strings are looked for in. A character
 * may lie over several tokens, so bytes say what decoded text cannot.
 */

import type { NativeTokenBytes } from '../binding/contract.js';

/** Token t adds bytes [offsets[t], offsets[t + 1]). */
export type TokenBytes = NativeTokenBytes;

type Json = Readonly<Record<string, unknown>>;
type Read = (token: string) => Uint8Array;

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const utf8 = new TextEncoder();

/** GPT-2's printable stand-ins for bytes (Radford et al. 2019): visible ones are themselves, the rest follow 255 in order. */
function byteOfCharacter(): Map<string, number> {
  const visible = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 256;
  return new Map(Array.from({ length: 256 }, (_, byte) => [String.fromCodePoint(visible(byte) ? byte : next++), byte]));
}

function byteLevel(): Read {
  const bytes = byteOfCharacter();
  // A character without a byte (of a token that was added to the vocabulary) stands for itself.
  return (token) =>
    Uint8Array.from([...token].flatMap((one) => [...(bytes.has(one) ? [bytes.get(one)!] : utf8.encode(one))]));
}

/** SentencePiece's form: a mark for the blank, and tokens <0xNN> for bytes. */
function marked(mark: string, fallback: boolean): Read {
  return (token) => {
    const byte = fallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(token) : null;
    return byte === null ? utf8.encode(token.replaceAll(mark, ' ')) : Uint8Array.of(Number.parseInt(byte[1]!, 16));
  };
}

/** How the decoder of a tokenizer.json writes one token within a text; undefined for a kind that is not known here. */
export function tokenReader(definition: Json): Read | undefined {
  const decoder = definition['decoder'];
  // Without a decoder tokens are joined by blanks. The one before a text's first token is not in the text.
  if (decoder === null || decoder === undefined) return (token) => utf8.encode(` ${token}`);
  if (!isObject(decoder)) return undefined;
  const parts = decoder['type'] === 'Sequence' ? (decoder['decoders'] as unknown[]).filter(isObject) : [decoder];
  const kinds = new Set(parts.map(({ type }) => type));
  if (kinds.has('ByteLevel')) return byteLevel();
  const metaspace = parts.find(({ type }) => type === 'Metaspace');
  if (metaspace !== undefined)
    return marked((metaspace['replacement'] as string | undefined) ?? '▁', kinds.has('ByteFallback'));
  const blank = parts.find(({ type, content }) => type === 'Replace' && content === ' ');
  const pattern = isObject(blank?.['pattern']) ? blank['pattern']['String'] : undefined;
  return typeof pattern === 'string' ? marked(pattern, kinds.has('ByteFallback')) : undefined;
}

/** The table of `count` tokens. */
export function tokenBytesTable(count: number, bytesOf: (id: number) => Uint8Array): TokenBytes {
  const parts = Array.from({ length: count }, (_, id) => bytesOf(id));
  const offsets = new Int32Array(count + 1);
  for (const [id, part] of parts.entries()) offsets[id + 1] = offsets[id]! + part.length;
  const bytes = new Uint8Array(offsets[count]!);
  for (const [id, part] of parts.entries()) bytes.set(part, offsets[id]);
  return { bytes, offsets };
}
