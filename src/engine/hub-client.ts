/**
 * Talks to the hub through @huggingface/hub, an optional dependency that is imported when a hub id is first used. Its own
 * cache function is left alone: it prints, and it trusts what it received without a checksum. Every failure is typed here.
 */
import type { downloadFile, HubApiError, listFiles, modelInfo } from '@huggingface/hub';
import { GavelError } from '../errors.js';
import type { HubFile } from './hub-cache.js';
import type { HubSettings } from './hub-options.js';

interface HubModule {
  downloadFile: typeof downloadFile;
  listFiles: typeof listFiles;
  modelInfo: typeof modelInfo;
}

async function hubModule(): Promise<HubModule> {
  try {
    return await import('@huggingface/hub');
  } catch (cause) {
    throw new GavelError(
      'unsupported',
      'Expected the optional package @huggingface/hub to fetch a checkpoint but it does not load. ' +
        'Run npm install @huggingface/hub, or name a local folder.',
      { fields: { package: '@huggingface/hub' }, cause },
    );
  }
}

export class HubClient {
  readonly #hub: HubModule;
  readonly #repo: string;
  readonly #revision: string;
  readonly #settings: HubSettings;
  readonly #signal: AbortSignal | undefined;
  /** Blobs report the failure of their request as plain text; the typed one is kept here. */
  #failure: GavelError | undefined;

  private constructor(hub: HubModule, repo: string, revision: string, settings: HubSettings, signal?: AbortSignal) {
    this.#hub = hub;
    this.#repo = repo;
    this.#revision = revision;
    this.#settings = settings;
    this.#signal = signal;
  }

  static async open(
    repo: string,
    revision: string,
    settings: HubSettings,
    signal: AbortSignal | undefined,
  ): Promise<HubClient> {
    return new HubClient(await hubModule(), repo, revision, settings, signal);
  }

  /** The commit the revision stands at now. */
  async commit(): Promise<string> {
    const { sha } = await this.#typed(() =>
      this.#hub.modelInfo({ ...this.#common(), name: this.#repo, revision: this.#revision, additionalFields: ['sha'] }),
    );
    if (/^[0-9a-f]{40}$/.test(sha)) return sha;
    throw this.#error('io', 'no commit', 'Check HF_ENDPOINT: what answers there is no hub.', 'no_hub');
  }

  /** The files beside config.json; folders are left out. */
  async files(commit: string): Promise<HubFile[]> {
    return this.#typed(async () => {
      const found: HubFile[] = [];
      const entries = this.#hub.listFiles({ ...this.#common(), repo: this.#repo, revision: commit, recursive: false });
      for await (const { type, path, size, oid, lfs } of entries) {
        const digest = lfs?.oid ?? oid ?? '';
        // Names and digests become paths of the cache.
        if (type !== 'file' || !/^[\w.-]+$/.test(path) || !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(digest)) continue;
        found.push({ name: path, sizeBytes: lfs?.size ?? size, digest });
      }
      return found;
    });
  }

  /** The bytes of a file from `start` up to `end`, by default its end, as they arrive. */
  async *bytes(
    commit: string,
    { name }: HubFile,
    start: number,
    end?: number,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    this.#failure = undefined;
    try {
      const blob = await this.#hub.downloadFile({ ...this.#common(), repo: this.#repo, path: name, revision: commit });
      if (blob === null)
        throw this.#error('io', `no file ${name}`, 'Try again: it was listed a moment ago.', 'not_found');
      const part = start === 0 && end === undefined ? blob : blob.slice(start, end ?? blob.size);
      yield* part.stream() as unknown as AsyncIterable<Uint8Array>;
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #common(): { fetch: typeof fetch; hubUrl?: string; accessToken?: string } {
    const { endpoint, token } = this.#settings;
    return {
      fetch: (input, init) => this.#fetch(input, init),
      ...(endpoint === undefined ? {} : { hubUrl: endpoint }),
      ...(token === undefined ? {} : { accessToken: token }),
    };
  }

  async #fetch(input: Parameters<typeof fetch>[0], init: RequestInit | undefined): Promise<Response> {
    const response = await fetch(input, { ...init, ...(this.#signal === undefined ? {} : { signal: this.#signal }) });
    if (response.ok) return response;
    await response.body?.cancel();
    this.#failure = this.#refused(response.status, response.headers.get('X-Error-Code') ?? '');
    throw this.#failure;
  }

  async #typed<T>(request: () => Promise<T>): Promise<T> {
    this.#failure = undefined;
    try {
      return await request();
    } catch (error) {
      throw this.#failed(error);
    }
  }

  #failed(error: unknown): unknown {
    if (this.#signal?.aborted === true) return this.#signal.reason;
    if (this.#failure !== undefined) return this.#failure;
    if (GavelError.is(error)) return error;
    const { statusCode } = (error ?? {}) as Partial<HubApiError>;
    if (statusCode !== undefined) return this.#refused(statusCode, '');
    const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const reason = inner instanceof Error ? inner.message || inner.name : String(inner);
    return this.#error(
      'io',
      `no connection (${reason})`,
      'Check the network, or set HF_HUB_OFFLINE=1 to use what the cache holds. What was fetched so far is kept.',
      'unreachable',
      error,
    );
  }

  #refused(status: number, kind: string): GavelError {
    const said = `status ${status}${kind === '' ? '' : ` ${kind}`}`;
    const withToken = this.#settings.token !== undefined;
    if (kind === 'GatedRepo') {
      const advice = `Accept its terms on its page${withToken ? '' : ', then set HF_TOKEN to a token of that account'}.`;
      return this.#error('permission_denied', `${said}: the model is gated`, advice, 'gated');
    }
    if (kind === 'RevisionNotFound') {
      return this.#error(
        'io',
        `${said}: it has no revision "${this.#revision}"`,
        'Name a branch, a tag or a whole commit.',
        'not_found',
      );
    }
    if (status === 404 || kind === 'RepoNotFound') {
      const advice = `Check the spelling; there is no local folder of that name either.${withToken ? '' : ' A private model needs HF_TOKEN.'}`;
      return this.#error('io', `${said}: no such model`, advice, 'not_found');
    }
    if (status === 401 || status === 403) {
      const advice = withToken
        ? 'Check that HF_TOKEN is valid and may read this model.'
        : 'Set HF_TOKEN to a token that may read it.';
      return this.#error('permission_denied', `${said}: access refused`, advice, 'refused');
    }
    return this.#error('io', said, 'Try again later; what was fetched so far is kept.', 'hub_failure');
  }

  #error(
    code: 'io' | 'permission_denied',
    received: string,
    advice: string,
    reason: string,
    cause?: unknown,
  ): GavelError {
    return new GavelError(
      code,
      `Expected the model "${this.#repo}" from the hub${this.#settings.endpoint === undefined ? '' : ` at ${this.#settings.endpoint}`} ` +
        `but received ${received}. ${advice}`,
      { fields: { model: this.#repo, revision: this.#revision, reason }, cause },
    );
  }
}
