/** Safetensors files: the engine's ring owns the format, data and tests read it from here as well. */
export * from '../engine/safetensors.js';
