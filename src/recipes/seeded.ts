/** Seeded numbers for recipes; they live below every ring, since statistics draw too. */
export { nameKey, seededUnit, seededWord } from '../seeded.js';
