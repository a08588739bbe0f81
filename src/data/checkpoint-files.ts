/** Small text files of a checkpoint folder: the engine's ring owns them. */
export * from '../engine/checkpoint-files.js';
