/**
 * tokenizer.json as this project's tokenizer library reads it right. Where the library differs from Hugging Face's
 * reference, a part is rewritten into one that it reads alike.
 */

type Json = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `Digits` means every numeric character of Unicode (N*) in the reference; the library splits ASCII digits alone. */
function exactDigits(part: unknown): unknown {
  if (!isObject(part)) return part;
  if (Array.isArray(part['pretokenizers'])) return { ...part, pretokenizers: part['pretokenizers'].map(exactDigits) };
  if (part['type'] !== 'Digits') return part;
  const pattern = part['individual_digits'] === true ? '\\p{N}' : '\\p{N}+';
  return { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
}

/** The same tokenizer, written so that the library's ids equal the reference's. */
export function exactDefinition(definition: Json): Record<string, unknown> {
  return { ...definition, pre_tokenizer: exactDigits(definition['pre_tokenizer']) };
}
