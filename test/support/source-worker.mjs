// What DataThreads starts when it runs from TypeScript sources: the data thread, compiled from the same sources.
import { compileSources } from './compile-sources.mjs';

await import(await compileSources('src/data/worker.ts'));
