// Template tokens that the tokenizer lacks: refused whichever template they stand in, but tags that are plain text by design.
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ChatMessage } from '../../src/data/rows.js';
import { ChatTemplate } from '../../src/data/template.js';
import { checkTemplateTokens } from '../../src/data/template-tokens.js';
import { Tokenizer } from '../../src/data/tokenizer.js';

const tokenizer = await Tokenizer.load(join(import.meta.dirname, '../goldens/micro-text'));
const messages: ChatMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'which one' },
];

/** ChatML with its two tokens named otherwise. */
const chatml = (start: string, end: string): string =>
  `{% for m in messages %}${start}{{ m['role'] }}\n{{ m['content'] }}${end}\n{% endfor %}${start}assistant\n`;
/** As Zephyr, TinyLlama-Chat and Tulu write it: a role is plain text, the end of a turn a token. */
const roleTags = (end: string): string =>
  `{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '${end}\n' }}{% endfor %}<|assistant|>\n`;

function check(template: string, said: ChatMessage[] = messages): void {
  const text = new ChatTemplate(template).render(said, { addGenerationPrompt: true, variables: {} });
  checkTemplateTokens(text, said, tokenizer);
}

describe('template tokens', () => {
  it.each([
    ['every token unknown', chatml('<|im_turn|>', '<|im_turn_end|>'), '<|im_turn|>'],
    ['a single one, used as both', chatml('<|im_turn|>', ''), '<|im_turn|>'],
    ['some unknown', chatml('<|im_start|>', '<|im_turn_end|>'), '<|im_turn_end|>'],
    ['role tags beside an unknown end', roleTags('<|end|>'), '<|end|>'],
  ])('refuses %s', (_, template, token) => {
    expect(() => check(template)).toThrow(expect.objectContaining({ code: 'tokenizer_mismatch', fields: { token } }));
  });

  it.each([
    ['tokens that the tokenizer knows', chatml('<|im_start|>', '<|im_end|>')],
    ['roles as plain text', roleTags('</s>')],
    ['roles as plain text beside a known token', roleTags('<|im_end|>')],
    ['no tags at all', chatml('[INST]', '[/INST]')],
  ])('passes %s', (_, template) => {
    expect(() => check(template)).not.toThrow();
  });

  it('passes a role of the conversation and what a message wrote', () => {
    expect(() => check(roleTags('</s>'), [{ role: 'Critic', content: 'is <|im_turn|> a token?' }])).not.toThrow();
  });
});
