/** `Pace` for recipes; it lives below every ring, since statistics breathe too. */
export { Pace } from '../pace.js';
