/** What opening a file finds out about its records: which are good, which are bad and why, which forms, which ids. */
import { badRow, type BadRow } from './bad-row.js';
import type { DataFormat } from './formats.js';
import { idHash } from './id-hash.js';
import type { MediaFolder } from './media-folder.js';
import { readRecord, type ReadOptions } from './read-record.js';

export interface LogOptions extends ReadOptions {
  onBadRow: 'fail' | 'skip';
  /** False where the caller cannot set `onBadRow`: messages then do not name it. */
  canSkip?: boolean;
}

/** How many rows were left out, and the first of them. */
export interface Skipped {
  numSkipped: number;
  skipped: BadRow[];
}

// Enough to see what is wrong; a file of a million bad rows is not kept.
const maxReported = 100;

/** Checks records one by one. Throws at the first bad one unless they may be skipped. */
export class RecordLog implements Skipped {
  numSkipped = 0;
  readonly skipped: BadRow[] = [];
  /** How many good records have each form. */
  readonly formats = new Map<DataFormat, number>();
  /** Hashes of the ids of good records, in order. */
  readonly idHashes: number[] = [];
  readonly #ids = new Map<string, string>();
  readonly #options: LogOptions;
  readonly #media: MediaFolder;
  readonly #onSkip: ((bad: BadRow) => void) | undefined;

  constructor(options: LogOptions, media: MediaFolder, onSkip?: (bad: BadRow) => void) {
    this.#options = options;
    this.#media = media;
    this.#onSkip = onSkip;
  }

  /** True for a good record. `place` says where it stands; `inFile` is how another record of the same id is told of it. */
  add(value: unknown, defaultId: string, place: Omit<BadRow, 'reason'>, inFile: string, numEmbedded = 0): boolean {
    const record = readRecord(value, defaultId, this.#media, this.#options, numEmbedded);
    if ('reason' in record) return this.refuse({ ...place, ...record });
    const { id } = 'row' in record ? record.row : record.pair;
    const earlier = this.#ids.get(id);
    if (earlier !== undefined) return this.refuse({ ...place, reason: `id "${id}" already stands in ${earlier}` });
    this.#ids.set(id, inFile);
    this.idHashes.push(idHash(id));
    this.formats.set(record.format, (this.formats.get(record.format) ?? 0) + 1);
    return true;
  }

  /** Reports a record that could not even be parsed. */
  refuse(bad: BadRow): false {
    if (this.#options.onBadRow !== 'skip') throw badRow(bad, this.#options.canSkip);
    this.numSkipped++;
    if (this.skipped.length < maxReported) this.skipped.push(bad);
    this.#onSkip?.(bad);
    return false;
  }
}
