/** What the command's exit status means; `gavel --help` prints it. */
import { GavelError } from '../errors.js';

export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 2,
  gateRefused: 3,
  interrupted: 130,
} as const;

/** The status of an error: usage and configuration mistakes are the caller's, a refused gate is a finding. */
export function exitCodeOf(error: unknown): number {
  if (!GavelError.is(error)) return exitCodes.failure;
  switch (error.code) {
    case 'invalid_argument':
    case 'invalid_config':
      return exitCodes.usage;
    case 'gate_refused':
      return exitCodes.gateRefused;
    case 'aborted':
      return exitCodes.interrupted;
    default:
      return exitCodes.failure;
  }
}

export const exitCodeHelp = `
Exit status:
  ${exitCodes.ok}    done
  ${exitCodes.failure}    failed; the message says what was expected, what was received and what to do
  ${exitCodes.usage}    wrong usage or configuration
  ${exitCodes.gateRefused}    a gate refused to start: reinforcement learning from chance accuracy
  ${exitCodes.interrupted}  interrupted; the message says what is kept`;
