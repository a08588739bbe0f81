/** `gavel data inspect`: what a data file holds, before anything is trained on it. */
import { Command, InvalidArgumentError } from 'commander';
import { dataFormats, type DataFormat } from '../data/formats.js';
import type { DataDescription, InspectDataOptions } from '../data/inspect-data.js';
import type { PairRow } from '../data/pairs.js';
import type { ImageSource, Row, VideoSource } from '../data/rows.js';
import { Interrupts } from './interrupt.js';
import { print, printJson, progressOnTerminal } from './terminal.js';

interface InspectOptions {
  imageFolder?: string;
  format?: DataFormat;
  split?: string;
}

/** Adds `data` and its sub-command. */
export function registerData(program: Command): void {
  const data = program.command('data').description('look into data files');
  // Made by itself, since `data` has an `inspect` beside that of models; how errors end is main.ts's to say.
  const inspect = new Command('inspect')
    .copyInheritedSettings(program)
    .description('check every row of a file and say what it holds')
    .argument('<path>', 'JSONL, JSON or Parquet file, or a folder of Parquet shards')
    .option('--image-folder <folder>', "where relative image paths start; default: the file's folder")
    .option('--format <name>', 'form of the rows; default: their fields decide', formatName)
    .option('--split <name>', 'of a folder of shards: which split')
    .option('--json', 'print JSON')
    .action(async (path: string, options: InspectOptions, command: Command) => {
      await inspectDataCommand(path, options, command.optsWithGlobals<{ json?: boolean }>().json === true);
    });
  data.addCommand(inspect);
}

function formatName(text: string): DataFormat {
  const format = dataFormats.find((name) => name === text);
  if (format === undefined) throw new InvalidArgumentError(`Expected one of ${dataFormats.join(', ')}.`);
  return format;
}

async function inspectDataCommand(path: string, options: InspectOptions, json: boolean): Promise<void> {
  const { inspectData } = await import('../data/inspect-data.js');
  const progress = progressOnTerminal();
  using interrupts = new Interrupts((text) => progress.line(text), 'nothing was written.');
  const inspecting: InspectDataOptions = { ...options, signal: interrupts.signal };
  const found = await inspectData(path, inspecting);
  if (json) return printJson({ ...found, first: found.first === null ? null : shown(found.first) });
  for (const line of descriptionLines(found)) print(line);
}

/** The report as lines. */
export function descriptionLines(found: DataDescription): string[] {
  const lines: string[] = [];
  const row = (name: string, value: string): number => lines.push(`${name.padEnd(12)}  ${value}`);
  row(found.files.length === 1 ? 'file' : 'files', found.files.join(', '));
  row('holds', found.gives === 'pairs' ? 'preference pairs' : (found.gives ?? 'rows and pairs, or nothing usable'));
  row('usable', String(found.rows));
  for (const [format, count] of Object.entries(found.formats)) row('  form', `${format}: ${count}`);
  row('bad', String(found.numBad));
  for (const { reason, count, first } of found.bad)
    row('', `${count} x ${reason} (first: ${first.unit} ${first.line})`);
  row('fingerprint', found.fingerprint);
  if (found.first !== null) lines.push('first:', JSON.stringify(shown(found.first), null, 2));
  return lines;
}

/** A row or pair with its pictures as paths or sizes. */
function shown(value: Row | PairRow): object {
  if ('first' in value) return { ...value, first: shown(value.first), second: shown(value.second) };
  const { images, videos, ...rest } = value;
  return {
    ...rest,
    images: images.map(shownImage),
    ...(videos === undefined ? {} : { videos: videos.map(shownVideo) }),
  };
}

function shownImage(image: ImageSource): object {
  if ('rgb' in image) return { width: image.width, height: image.height };
  return 'bytes' in image ? { bytes: image.bytes.length } : image;
}

const shownVideo = (video: VideoSource): object =>
  'frames' in video ? { ...video, frames: video.frames.map(shownImage) } : video;
