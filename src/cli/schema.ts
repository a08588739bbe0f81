/** `gavel schema`: the JSON Schema that editors and other programs read. */
import { expected } from '../errors.js';
import { jsonSchemaOf, schemas } from '../recipes/run-config.js';
import { nearestName } from '../schema/nearest.js';
import { printJson } from './terminal.js';

export function schemaCommand(name: string): void {
  const names = Object.keys(schemas);
  if (!names.includes(name)) {
    const nearest = nearestName(name, names);
    throw expected(
      'invalid_argument',
      'name',
      `one of ${names.join(', ')}`,
      name,
      nearest === undefined ? '' : `Did you mean ${nearest}?`,
    );
  }
  printJson(jsonSchemaOf(name as keyof typeof schemas));
}
