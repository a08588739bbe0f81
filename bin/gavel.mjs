#!/usr/bin/env node
// The command as npm links it. It is there before `dist` is: an `npx gavel` typed before set-up would else leave npm a link
// to nothing, which it keeps.
import { existsSync } from 'node:fs';

const command = new URL('../dist/cli/main.js', import.meta.url);
if (existsSync(command)) await import(command.href);
else {
  process.stderr.write(
    'gavel: Expected the built package but received a clone before its set-up. Run `npm run setup` first. [binary_missing]\n',
  );
  process.exitCode = 1;
}
