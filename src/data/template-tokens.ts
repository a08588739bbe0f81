/**
 * Tokens that a chat template writes and the tokenizer does not know. They would become ordinary text without a word, and a
 * model that never saw them would answer all the same.
 */
import { GavelError } from '../errors.js';
import type { ChatMessage } from './rows.js';
import type { Tokenizer } from './tokenizer.js';

const tokenForm = /<\|[^|<>\s]{1,64}\|>/g;

/**
 * Throws 'tokenizer_mismatch' for a token of the form <|name|> that the template, not a message, put into `text` and that
 * the vocabulary lacks. Templates that write nothing but such names as plain text (their tokenizers know none of them) pass.
 */
export function checkTemplateTokens(text: string, messages: readonly ChatMessage[], tokenizer: Tokenizer): void {
  const found = [...new Set(text.match(tokenForm) ?? [])];
  const unknown = found.filter((token) => tokenizer.tokenId(token) === undefined);
  if (unknown.length === 0 || unknown.length === found.length) return;
  const written = messages.flatMap(({ content }) =>
    typeof content === 'string' ? [content] : content.map((part) => (part.type === 'text' ? part.text : '')),
  );
  const token = unknown.find((name) => !written.some((piece) => piece.includes(name)));
  if (token === undefined) return;
  throw new GavelError(
    'tokenizer_mismatch',
    `Expected a chat template of known tokens but received "${token}", which the tokenizer lacks. Use template and tokenizer ` +
      'of one checkpoint.',
    { fields: { token } },
  );
}
