/** Where checkpoints of the hub come from and go to: options, then the environment variables Python's client reads too. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { expected } from '../errors.js';

export const hubOptionsSchema = z
  .strictObject({
    offline: z
      .boolean()
      .optional()
      .describe('Ask no network: only what the cache holds. Default: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE.'),
    cacheFolder: z
      .string()
      .min(1)
      .optional()
      .describe(
        'Cache, shared with Python. Default: HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub.',
      ),
    endpoint: z.url().optional().describe('Address of the hub. Default: HF_ENDPOINT, else the public one.'),
    token: z.string().min(1).optional().describe('Access token for private and gated models. Default: HF_TOKEN.'),
  })
  .describe('How a checkpoint named by its hub id is fetched.');

export type HubOptions = z.input<typeof hubOptionsSchema>;

/** Options with the environment filled in. */
export interface HubSettings {
  offline: boolean;
  cacheFolder: string;
  /** Undefined for the public hub. */
  endpoint: string | undefined;
  token: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

const isTrue = (value: string | undefined): boolean => /^(1|true|yes|on)$/i.test(value ?? '');

/** Empty variables count as unset, as a shell's `HF_TOKEN= gavel` means it. */
const first = (environment: Environment, ...names: string[]): string | undefined =>
  names.map((name) => environment[name]).find((value) => value !== undefined && value !== '');

export function hubSettings(options: HubOptions = {}, environment: Environment = process.env): HubSettings {
  const home =
    first(environment, 'HF_HOME') ??
    join(first(environment, 'XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface');
  const token = options.token ?? first(environment, 'HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN');
  // The message never shows what was received: it may be a secret of something else.
  if (token !== undefined && !token.startsWith('hf_')) {
    throw expected(
      'invalid_argument',
      'HF_TOKEN',
      'an access token that begins with "hf_"',
      'another text',
      'Copy it again from your hub settings.',
    );
  }
  return {
    offline: options.offline ?? (isTrue(environment['HF_HUB_OFFLINE']) || isTrue(environment['TRANSFORMERS_OFFLINE'])),
    cacheFolder:
      options.cacheFolder ?? first(environment, 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE') ?? join(home, 'hub'),
    endpoint: (options.endpoint ?? first(environment, 'HF_ENDPOINT'))?.replace(/\/+$/, ''),
    token,
  };
}
