/**
 * Tokens that a chat template writes and the tokenizer does not know. They would become ordinary text without a word, and a
 * model that never saw them would answer all the same.
 */
import { GavelError } from '../errors.js';
import type { ChatMessage } from './rows.js';
import type { Tokenizer } from './tokenizer.js';

const tokenForm = /<\|([^|<>\s]{1,64})\|>/g;

/** Roles that templates write as plain text, `<|user|>`: Zephyr's, TinyLlama's and Tulu's tokenizers have no such tokens. */
const spokenRoles = ['system', 'user', 'assistant', 'tool'];

/**
 * Throws 'tokenizer_mismatch' for a token of the form <|name|> that the template, not a message, put into `text` and that
 * the vocabulary lacks. A name that is a role passes: some families write those as plain text by design. Nothing else
 * does, not even where every name is unknown: a template of another tokenizer looks just like that.
 */
export function checkTemplateTokens(text: string, messages: readonly ChatMessage[], tokenizer: Tokenizer): void {
  const roles = new Set([...spokenRoles, ...messages.map(({ role }) => role.toLowerCase())]);
  const written = messages.flatMap(({ content }) =>
    typeof content === 'string' ? [content] : content.map((part) => (part.type === 'text' ? part.text : '')),
  );
  const token = [...text.matchAll(tokenForm)].find(
    ([found, name]) =>
      tokenizer.tokenId(found) === undefined &&
      !roles.has(name!.toLowerCase()) &&
      !written.some((piece) => piece.includes(found)),
  )?.[0];
  if (token === undefined) return;
  throw new GavelError(
    'tokenizer_mismatch',
    `Expected a chat template of known tokens but received "${token}", which the tokenizer lacks. Use template and tokenizer ` +
      'of one checkpoint.',
    { fields: { token } },
  );
}
