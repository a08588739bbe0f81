// What ParquetThread starts when it runs from TypeScript sources: its thread, compiled from the same sources.
import { compileSources } from './compile-sources.mjs';

await import(await compileSources('src/data/parquet-worker.ts'));
