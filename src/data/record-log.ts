/** What opening a file finds out about its records: which are good, which are bad and why, which forms, which ids. */
import { createHash } from 'node:crypto';
import { badRow, type BadRow } from './bad-row.js';
import type { DataFormat } from './formats.js';
import { idHash } from './id-hash.js';
import type { Refusal } from './imported-row.js';
import type { MediaFolder } from './media-folder.js';
import { MediaCheck } from './media-check.js';
import { readRecord, type CheckedRecord, type ReadOptions } from './read-record.js';

export interface LogOptions extends ReadOptions {
  onBadRow: 'fail' | 'skip';
  /** Whether pictures and videos are looked at. */
  checkMedia: boolean;
  /** False where the caller cannot set `onBadRow`: messages then do not name it. */
  canSkip?: boolean;
}

/** How many rows were left out, and the first of them. */
export interface Skipped {
  numSkipped: number;
  skipped: BadRow[];
}

/** A record that may be good. */
export interface Candidate {
  parsed: { value: unknown } | { reason: string };
  /** Used where the record has no id. */
  defaultId: string;
  place: Omit<BadRow, 'reason'>;
  /** How another record of the same id is told of it. */
  inFile: string;
  /** Pictures inside the record. */
  numEmbedded?: number;
}

type Read = { record: CheckedRecord } | { refusal: Refusal } | { thrown: unknown };

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
  readonly #mediaHash = createHash('sha256');
  #numWithoutMedia = 0;
  readonly #ids = new Map<string, string>();
  readonly #options: LogOptions;
  readonly #media: MediaFolder;
  readonly #check: MediaCheck | undefined;
  readonly #onSkip: ((bad: BadRow) => void) | undefined;

  constructor(options: LogOptions, media: MediaFolder, onSkip?: (bad: BadRow) => void) {
    this.#options = options;
    this.#media = media;
    this.#check = options.checkMedia ? new MediaCheck(media) : undefined;
    this.#onSkip = onSkip;
  }

  /** For a fingerprint: which records were left out for their pictures, which a file's bytes do not say. */
  get mediaKey(): string {
    return this.#numWithoutMedia === 0 ? '' : ` media ${this.#mediaHash.copy().digest('hex')}`;
  }

  /** Adds records in order; true for each good one. Their pictures and videos are looked at together. */
  async add(candidates: readonly Candidate[]): Promise<boolean[]> {
    const read = candidates.map((candidate) => this.#read(candidate));
    const records = read.map((result) => ('record' in result ? result.record : undefined));
    const problems = (await this.#check?.problemsOf(records)) ?? [];
    return candidates.map((candidate, at) => {
      const result = read[at]!;
      if ('thrown' in result) throw result.thrown;
      if ('refusal' in result) return this.#refuse({ ...candidate.place, ...result.refusal });
      const reason = problems[at];
      if (reason === undefined) return this.#accept(result.record, candidate);
      this.#numWithoutMedia++;
      this.#mediaHash.update(`${candidate.defaultId}\n`);
      return this.#refuse({ ...candidate.place, reason });
    });
  }

  /** What is thrown waits until the records before it have been reported. */
  #read({ parsed, defaultId, numEmbedded }: Candidate): Read {
    if ('reason' in parsed) return { refusal: parsed };
    try {
      const record = readRecord(parsed.value, defaultId, this.#media, this.#options, numEmbedded);
      return 'reason' in record ? { refusal: record } : { record };
    } catch (thrown) {
      return { thrown };
    }
  }

  #accept(record: CheckedRecord, { place, inFile }: Candidate): boolean {
    const { id } = 'row' in record ? record.row : record.pair;
    const earlier = this.#ids.get(id);
    if (earlier !== undefined) return this.#refuse({ ...place, reason: `id "${id}" already stands in ${earlier}` });
    this.#ids.set(id, inFile);
    this.idHashes.push(idHash(id));
    this.formats.set(record.format, (this.formats.get(record.format) ?? 0) + 1);
    return true;
  }

  #refuse(bad: BadRow): false {
    if (this.#options.onBadRow !== 'skip') throw badRow(bad, this.#options.canSkip);
    this.numSkipped++;
    if (this.skipped.length < maxReported) this.skipped.push(bad);
    this.#onSkip?.(bad);
    return false;
  }
}
