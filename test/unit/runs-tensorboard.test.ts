// The event file: bytes equal to those of TensorBoard's own encoder and record writer (test/goldens/make_tensorboard.py), and
// a run's file, read back record by record with its checksums.
import { appendFileSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { RunFolder } from '../../src/runs/run-folder.js';
import { tensorboardFileName } from '../../src/runs/tensorboard.js';
import { imageEvent, scalarsEvent, textEvent, versionEvent } from '../../src/runs/tensorboard-events.js';
import { crc32c, frameRecord, maskedCrc32c } from '../../src/runs/tfrecord.js';

const golden = JSON.parse(readFileSync(join(import.meta.dirname, '../goldens/tensorboard.json'), 'utf8')) as Record<
  'png' | 'version' | 'scalars' | 'text' | 'image',
  string
>;
const hex = (event: Uint8Array): string => frameRecord(event).toString('hex');

describe('records', () => {
  it('have the CRC32C of RFC 3720', () => {
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  });

  it('equal those that TensorBoard writes, byte for byte', () => {
    const png = Buffer.from(golden.png, 'hex');
    const scalars = [
      { tag: 'grpo/reward', value: 1.25 },
      { tag: 'grpo/kl', value: 0 },
      { tag: 'cold-start/loss', value: 0.1 },
      { tag: 'größe', value: NaN },
      { tag: 'grpo/low', value: -3e-12 },
    ];
    expect(hex(versionEvent(1700000000.25))).toBe(golden.version);
    expect(hex(scalarsEvent(1700000001.5, 300, scalars))).toBe(golden.scalars);
    expect(hex(textEvent(1700000002, 0, 'config', '# ü\n'))).toBe(golden.text);
    expect(hex(imageEvent(1700000003, 2 ** 40, 'plots/reward', { png, width: 300, height: 1 }))).toBe(golden.image);
  });
});

/** Data of every record; throws where a checksum is wrong or bytes are left over. */
function records(path: string): Buffer[] {
  const bytes = readFileSync(path);
  const found: Buffer[] = [];
  let at = 0;
  while (at < bytes.length) {
    const length = bytes.readUInt32LE(at);
    expect(bytes.readUInt32LE(at + 8)).toBe(maskedCrc32c(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(data));
    found.push(data);
    at += 12 + length + 4;
  }
  return found;
}

/** Tag and value of each scalar of a record, with its step: enough of the format to read our own small steps back. */
function scalarsOf(record: Buffer): string[] {
  const step = record[9] === 0x10 ? record[10]! : 0;
  const text = record.toString('latin1');
  const floatKey = String.fromCharCode(0x15);
  return [...text.matchAll(new RegExp(`\\n(.)([\\w/ -]+?)${floatKey}`, 'gs'))].flatMap((match) => {
    const [whole, length, tag] = match;
    if (length!.charCodeAt(0) !== tag!.length) return [];
    return [`${step} ${tag} ${record.readFloatLE(match.index + whole.length)}`];
  });
}

describe("a run's event file", () => {
  let path: string;
  beforeEach(async () => {
    path = await mkdtemp(join(tmpdir(), 'gavel-tensorboard-'));
  });
  afterEach(() => rm(path, { recursive: true, force: true }));
  const config = { model: { path: 'm' } };
  const file = (): string => join(path, 'run', tensorboardFileName);
  const scalars = (): string[] => records(file()).flatMap(scalarsOf);

  it('holds configuration, metrics by stage at the run-wide step, evaluations and pictures', async () => {
    const run = await RunFolder.open(join(path, 'run'), config);
    run.logMetrics({ stage: 'cold', step: 1, loss: 2 });
    run.logMetrics({ stage: 'cold', step: 2, loss: 1, note: 'no number' });
    const result = { accuracy: 0.5, accuracyLow: null, marks: { a: 1 }, extras: { x: 1 } };
    run.logEvent({ type: 'evaluation-end', stage: 'cold', name: 'held out', step: 2, result });
    run.logMetrics({ stage: 'grpo', step: 1, reward: 0.25 });
    run.logImage('plots/loss', { png: Buffer.from(golden.png, 'hex'), width: 1, height: 1 });
    await run.close();
    expect(scalars()).toEqual([
      '1 cold/loss 2',
      '2 cold/loss 1',
      '2 cold/evaluation/held out/accuracy 0.5',
      '3 grpo/reward 0.25',
    ]);
    const texts = records(file()).map((record) => record.toString('utf8'));
    expect(texts[0]).toContain('brain.Event:2');
    expect(texts[1]).toContain(JSON.stringify(config, null, 2));
    expect(texts.at(-1)).toContain('plots/loss');
  });

  it('is cut on resume to its checkpoint, and steps go on where they stood', async () => {
    const first = await RunFolder.open(join(path, 'run'), config);
    first.logMetrics({ stage: 'cold', step: 1, loss: 2 });
    first.logMetrics({ stage: 'cold', step: 2, loss: 1 });
    await first.saveCheckpoint(2, {}, (to) => writeFile(join(to, 'w'), 'w'));
    first.logMetrics({ stage: 'grpo', step: 1, reward: 9 });
    await first.close();
    appendFileSync(file(), 'a torn record');
    const again = await RunFolder.open(join(path, 'run'), config, { resume: true });
    again.logMetrics({ stage: 'grpo', step: 1, reward: 3 });
    await again.close();
    expect(scalars()).toEqual(['1 cold/loss 2', '2 cold/loss 1', '3 grpo/reward 3']);
  });

  it('begins anew in a run whose checkpoint knows of none', async () => {
    const first = await RunFolder.open(join(path, 'run'), config);
    first.logMetrics({ stage: 'cold', step: 1, loss: 2 });
    await first.checkpoints.save(1, {}, { events: 0, metrics: 37 }, (to) => writeFile(join(to, 'w'), 'w'));
    await first.close();
    const again = await RunFolder.open(join(path, 'run'), config, { resume: true });
    again.logMetrics({ stage: 'grpo', step: 1, reward: 3 });
    await again.close();
    expect(scalars()).toEqual(['2 grpo/reward 3']);
  });
});
