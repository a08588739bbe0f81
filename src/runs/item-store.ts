/**
 * What the marked items of a run looked like: `samples/items.jsonl` with prompt and gold answer of every item, and the
 * pictures of the first items as PNGs of bounded size, so that a run shows what it judged when its data is gone or was
 * generated. Written in the background.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { GavelError } from '../errors.js';
import { writeFileAtomically } from './atomic-file.js';
import { guarded } from './file-errors.js';
import { JsonLinesLog, scanJsonLines } from './json-lines.js';

const pictureSchema = z.object({
  file: z.string().optional().describe('PNG in samples/images, when it is kept.'),
  path: z.string().optional().describe('Where the data set had it, when it was a file.'),
  error: z.string().optional().describe('Why it could not be kept.'),
});

export const storedItemSchema = z
  .object({
    item: z.string().describe('Id of the row.'),
    prompt: z.unknown().describe('Text or messages, as in the data set.'),
    solution: z.string().optional().describe('The gold answer.'),
    pictures: z.array(pictureSchema).describe('One an image of the row, in order.'),
    evaluation: z.string().optional().describe('The evaluation set that asked it.'),
  })
  .describe('An item of the sample pool.');

export type StoredItem = z.infer<typeof storedItemSchema>;

/** A picture as rows hold them: a file, an encoded file in memory, or raw 8-bit RGB. */
export type PictureSource =
  { path: string } | { bytes: Uint8Array } | { rgb: Uint8Array; width: number; height: number };

/** What is kept of a row; a `Row` fits. */
export interface MarkedItem {
  id: string;
  prompt: unknown;
  images: readonly PictureSource[];
  solution?: string;
}

export interface ItemStoreOptions {
  /** Items whose pictures are kept, of training and as many of evaluations. Default: 64. */
  maxPictured?: number;
  /** Longest side of a kept picture in pixels; larger ones are shrunk. Default: 448. */
  maxSide?: number;
}

export class ItemStore {
  readonly folder: string;
  readonly #log: JsonLinesLog;
  readonly #known: Set<string>;
  readonly #maxSide: number;
  /** Evaluations have a share of their own: a large one at the start would leave training none. */
  readonly #picturesLeft: { training: number; evaluation: number };
  #writing: Promise<void> = Promise.resolve();

  private constructor(
    folder: string,
    log: JsonLinesLog,
    known: Set<string>,
    picturesLeft: { training: number; evaluation: number },
    maxSide: number,
  ) {
    this.folder = folder;
    this.#log = log;
    this.#known = known;
    this.#picturesLeft = picturesLeft;
    this.#maxSide = maxSide;
  }

  /** Opens or makes the store in `folder` (`samples` of a run). Damaged lines are written again when their item comes again. */
  static async open(folder: string, options: ItemStoreOptions = {}): Promise<ItemStore> {
    const { maxPictured = 64, maxSide = 448 } = options;
    const path = join(folder, 'items.jsonl');
    const log = await JsonLinesLog.open(path);
    const items = await readItems(folder, { onDamage: () => undefined });
    const pictured = [...items.values()].filter(({ pictures }) => pictures.some(({ file }) => file !== undefined));
    const evaluated = pictured.filter(({ evaluation }) => evaluation !== undefined).length;
    const left = {
      training: Math.max(0, maxPictured - (pictured.length - evaluated)),
      evaluation: Math.max(0, maxPictured - evaluated),
    };
    return new ItemStore(folder, log, new Set(items.keys()), left, maxSide);
  }

  /**
   * Keeps an item unless it is known; returns at once. `evaluation` names the set that asked it. A failed write surfaces at
   * the next `sync` or `close`.
   */
  add(row: MarkedItem, evaluation?: string): void {
    if (this.#known.has(row.id)) return;
    this.#known.add(row.id);
    const { id: item, prompt, solution, images } = row;
    const rest = {
      item,
      prompt,
      ...(solution === undefined ? {} : { solution }),
      ...(evaluation === undefined ? {} : { evaluation }),
    };
    const share = evaluation === undefined ? 'training' : 'evaluation';
    if (images.length === 0 || this.#picturesLeft[share] === 0) {
      const pictures = images.map((source) => ('path' in source ? { path: source.path } : {}));
      this.#log.append({ ...rest, pictures } satisfies StoredItem);
      return;
    }
    this.#picturesLeft[share]--;
    // The line follows its pictures, so an item whose pictures a kill cut short is kept anew.
    this.#writing = this.#writing.then(async () => {
      const pictures = [];
      for (const [i, source] of images.entries()) pictures.push(await this.#keep(item, i, source));
      this.#log.append({ ...rest, pictures } satisfies StoredItem);
    });
    this.#writing.catch(() => undefined);
  }

  async sync(): Promise<void> {
    await this.#writing;
    await this.#log.sync();
  }

  async close(): Promise<void> {
    try {
      await this.#writing;
    } finally {
      await this.#log.close();
    }
  }

  async #keep(item: string, index: number, source: PictureSource): Promise<StoredItem['pictures'][number]> {
    const from = 'path' in source ? { path: source.path } : {};
    let png: Buffer;
    try {
      png = await toPng(source, this.#maxSide);
    } catch (error) {
      // A page without one picture is no reason to end a training run; the line says why it is missing.
      return { ...from, error: (error as Error).message };
    }
    const folder = join(this.folder, 'images');
    const file = pictureFile(item, index);
    await guarded('make', folder, () => mkdir(folder, { recursive: true }));
    await writeFileAtomically(join(folder, file), png);
    return { ...from, file };
  }
}

/** Ids are any text, so files are named by their hash. */
const pictureFile = (item: string, index: number): string =>
  `${createHash('sha256').update(item).digest('hex').slice(0, 20)}-${index}.png`;

async function toPng(source: PictureSource, maxSide: number): Promise<Buffer> {
  // A native library: loaded with the first picture.
  const { default: sharp } = await import('sharp');
  const image =
    'rgb' in source
      ? sharp(source.rgb, { raw: { width: source.width, height: source.height, channels: 3 } })
      : sharp('path' in source ? source.path : source.bytes);
  return image.resize(maxSide, maxSide, { fit: 'inside', withoutEnlargement: true }).png().toBuffer();
}

/** The items of a run's `samples` folder by id; none when the run kept none. Errors: 'bad_data' unless `onDamage` is given. */
export async function readItems(
  folder: string,
  options: { onDamage?: (error: GavelError) => void } = {},
): Promise<Map<string, StoredItem>> {
  const items = new Map<string, StoredItem>();
  for await (const { value } of scanJsonLines(join(folder, 'items.jsonl'), options)) {
    const found = storedItemSchema.safeParse(value);
    if (found.success) items.set(found.data.item, found.data);
  }
  return items;
}

/** The bytes of a kept picture, or of the file it came from, as a PNG; nothing when neither is there. */
export async function readPicture(
  folder: string,
  { file, path }: StoredItem['pictures'][number],
  maxSide = 448,
): Promise<Buffer | undefined> {
  // A name in a damaged or foreign file must not lead out of the folder.
  const kept = file !== undefined && /^[\w-]+\.png$/.test(file) ? join(folder, 'images', file) : undefined;
  for (const candidate of [kept, path]) {
    if (candidate === undefined || !existsSync(candidate)) continue;
    try {
      return await toPng({ path: candidate }, maxSide);
    } catch {
      continue;
    }
  }
  return undefined;
}
