// What Composer starts when it runs from TypeScript sources: the composing thread, compiled from the same sources.
import { compileSources } from './compile-sources.mjs';

await import(await compileSources('src/emoji-judge/composer-worker.ts'));
