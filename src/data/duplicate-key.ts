/** Duplicate keys of JSON text: the engine's ring owns the check. */
export * from '../engine/duplicate-key.js';
