/** A hub on loopback: the three routes a client of model repositories asks, over real files, with the faults a test wants. */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

export const commit = '0123456789abcdef0123456789abcdef01234567';

export interface FakeHubOptions {
  /** Folder whose files are the repository "org/model". */
  folder: string;
  /** What needs a token: nothing, or this one. */
  token?: string;
  gated?: boolean;
  /** Names and sizes that are listed besides those of the folder. */
  alsoListed?: { name: string; sizeBytes: number }[];
}

export class FakeHub {
  /** Method and path of every request so far. */
  readonly requests: string[] = [];
  /** Bytes of a weights file after which the connection breaks, one entry a request; then none breaks. */
  breaks: number[] = [];
  /** Sent instead of a file's bytes. */
  readonly damaged = new Map<string, Buffer>();
  readonly #options: FakeHubOptions;
  #url = '';

  constructor(options: FakeHubOptions) {
    this.#options = options;
  }

  get url(): string {
    return this.#url;
  }

  static async start(options: FakeHubOptions): Promise<FakeHub> {
    const hub = new FakeHub(options);
    const server = createServer((request, response) => {
      hub.#answer(request, response).catch((error: unknown) => response.writeHead(500).end(String(error)));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    hub.#url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return hub;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = decodeURIComponent(new URL(request.url!, 'http://hub').pathname);
    this.requests.push(`${request.method} ${path}`);
    const refuse = (status: number, code: string): void =>
      void response
        .writeHead(status, { 'X-Error-Code': code, 'Content-Type': 'application/json' })
        .end('{"error":"no"}');
    const { token, gated = false } = this.#options;
    if (!/^\/(api\/models\/)?org\/model\//.test(path)) return refuse(404, 'RepoNotFound');
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
      return refuse(401, gated ? 'GatedRepo' : 'RepoNotFound');
    }
    const revision = /\/(?:revision|tree|resolve)\/([^/]+)/.exec(path)![1]!;
    if (!['main', 'v1', commit].includes(revision)) return refuse(404, 'RevisionNotFound');
    if (path.includes('/revision/')) {
      return void response.end(JSON.stringify({ _id: '1', id: 'org/model', sha: commit, lastModified: new Date(0) }));
    }
    if (path.includes('/tree/')) return void response.end(JSON.stringify(await this.#tree()));
    await this.#send(path.slice(path.lastIndexOf('/') + 1), request, response);
  }

  async #tree(): Promise<unknown[]> {
    const names = await readdir(this.#options.folder);
    const files = await Promise.all(
      names.map(async (path) => {
        const bytes = await readFile(join(this.#options.folder, path));
        const oid = createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
        const lfs = { oid: createHash('sha256').update(bytes).digest('hex'), size: bytes.length, pointerSize: 134 };
        return { type: 'file', path, size: bytes.length, oid, ...(path.endsWith('.safetensors') ? { lfs } : {}) };
      }),
    );
    const more = (this.#options.alsoListed ?? []).map(({ name, sizeBytes }) => ({
      ...{ type: 'file', path: name, size: sizeBytes, oid: 'a'.repeat(40) },
      lfs: { oid: 'b'.repeat(64), size: sizeBytes, pointerSize: 134 },
    }));
    return [...files, ...more, { type: 'directory', path: 'original', size: 0, oid: 'c'.repeat(40) }];
  }

  async #send(name: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const bytes = this.damaged.get(name) ?? (await readFile(join(this.#options.folder, name)));
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const start = Number(range?.[1] ?? 0);
    const end = range?.[2] ? Math.min(bytes.length - 1, Number(range[2])) : bytes.length - 1;
    const body = bytes.subarray(start, end + 1);
    response.writeHead(range === null ? 200 : 206, {
      ETag: `"${name}"`,
      'Content-Length': body.length,
      ...(range === null ? {} : { 'Content-Range': `bytes ${start}-${end}/${bytes.length}` }),
    });
    // The first request of a download asks for one byte, to learn the size.
    const limit = name.endsWith('.safetensors') && body.length > 1 ? this.breaks.shift() : undefined;
    if (limit === undefined) return void response.end(body);
    response.write(body.subarray(0, limit), () => setTimeout(() => response.destroy(), 20));
  }
}
