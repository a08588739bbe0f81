/**
 * A checkpoint's chat template: messages to the one string the tokenizer sees. Looked for in chat_template.jinja, then
 * chat_template.json, tokenizer_config.json and processor_config.json, as transformers has written them.
 */
import { Template } from '@huggingface/jinja';
import { GavelError } from '../errors.js';
import { corruptFile, readOptionalJson, readOptionalText } from './checkpoint-files.js';
import type { ChatMessage } from './rows.js';

export interface RenderOptions {
  /** Opens the assistant's turn at the end; false by default. */
  addGenerationPrompt?: boolean;
  /** Further variables of the template, such as the named special tokens or `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
}

/** A parsed chat template. */
export class ChatTemplate {
  readonly source: string;
  readonly #template: Template;

  /** `source` is Jinja; a syntax error throws 'corrupt_checkpoint' naming `origin`. */
  constructor(source: string, origin = 'the chat template') {
    this.source = source;
    try {
      this.#template = new Template(source);
    } catch (cause) {
      throw corruptFile(origin, `not a Jinja template: ${(cause as Error).message}`, cause);
    }
  }

  /** The template of a checkpoint folder. Throws 'unsupported' when it has none. */
  static async load(folder: string): Promise<ChatTemplate> {
    const jinja = await readOptionalText(folder, 'chat_template.jinja');
    if (jinja !== undefined) return new ChatTemplate(jinja, `${folder}/chat_template.jinja`);
    for (const name of ['chat_template.json', 'tokenizer_config.json', 'processor_config.json']) {
      const found = pickTemplate((await readOptionalJson(folder, name))?.['chat_template'], `${folder}/${name}`);
      if (found !== undefined) return new ChatTemplate(found, `${folder}/${name}`);
    }
    throw new GavelError(
      'unsupported',
      `Expected a chat template in "${folder}" but found none. Add chat_template.jinja to the checkpoint.`,
      { fields: { folder } },
    );
  }

  /** The text of a conversation. What the template itself refuses (raise_exception) throws 'bad_data'. */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    try {
      return this.#template.render({
        ...options.variables,
        messages: messages,
        add_generation_prompt: options.addGenerationPrompt ?? false,
      });
    } catch (cause) {
      const reason = (cause as Error).message;
      throw new GavelError(
        'bad_data',
        `Expected messages the chat template accepts but received: ${reason}. Change the roles or the order of the messages.`,
        { fields: { reason }, cause },
      );
    }
  }
}

function pickTemplate(value: unknown, origin: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string') return value;
  const named = Array.isArray(value) ? (value as { name?: unknown; template?: unknown }[]) : [];
  const chosen = named.find(({ name }) => name === 'default') ?? (named.length === 1 ? named[0] : undefined);
  if (typeof chosen?.template === 'string') return chosen.template;
  throw corruptFile(origin, 'chat_template is neither a string nor a list with a "default" template');
}
