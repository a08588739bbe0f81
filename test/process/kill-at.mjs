// Loaded before the command with --import: its process ends by SIGKILL as soon as it has told, as a JSON line, the event that
// GAVEL_KILL_AT names by its type, stage and (of steps or sampled items) number.
const wanted = JSON.parse(process.env['GAVEL_KILL_AT'] ?? '{}');
const write = process.stdout.write.bind(process.stdout);

const isWanted = (line) => {
  const { type, stage, step, done } = JSON.parse(line);
  return type === wanted.type && stage === wanted.stage && (step ?? done) >= wanted.at;
};

process.stdout.write = (chunk, ...rest) => {
  const taken = write(chunk, ...rest);
  if (String(chunk).split('\n').filter(Boolean).some(isWanted)) process.kill(process.pid, 'SIGKILL');
  return taken;
};
