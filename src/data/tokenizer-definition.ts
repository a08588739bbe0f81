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

/** Above any vocabulary there is; the library makes lists as long as the largest id. */
const mostIds = 2 ** 22;

const isId = (value: unknown): boolean =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < mostIds;

/** What is wrong with the ids of a tokenizer.json, if anything. */
export function idsReason(definition: Json): string | undefined {
  const added = definition['added_tokens'];
  for (const token of Array.isArray(added) ? (added as unknown[]) : []) {
    if (!isObject(token)) return 'an added token that is no object';
    if (!isId(token['id'])) return `the id ${JSON.stringify(token['id'])} of an added token`;
  }
  const model = definition['model'];
  const vocab = isObject(model) ? model['vocab'] : undefined;
  if (!isObject(vocab)) return undefined;
  for (const token in vocab) {
    if (!isId(vocab[token])) return `the id ${JSON.stringify(vocab[token])} of ${JSON.stringify(token)}`;
  }
  return undefined;
}
