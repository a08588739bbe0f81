/** Which keys a zod schema knows at a path of a value: what the nearest valid name is looked for among. */
import { z } from 'zod';

interface JsonSchema {
  properties?: Record<string, JsonSchema & { const?: unknown }>;
  items?: JsonSchema;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
}

/** Names that may stand at a path; of several alternatives, those whose constants agree with the value. */
export function knownKeys(schema: z.ZodType): (path: readonly PropertyKey[], value: unknown) => string[] {
  const root = z.toJSONSchema(schema, { io: 'input', reused: 'inline', unrepresentable: 'any' }) as JsonSchema;
  const alternatives = (node: JsonSchema, value: unknown): JsonSchema[] => {
    const list = node.anyOf ?? node.oneOf;
    if (list === undefined) return [node];
    const agreeing = list.filter((choice) =>
      Object.entries(choice.properties ?? {}).every(
        ([key, { const: constant }]) =>
          constant === undefined || constant === (value as Record<string, unknown>)?.[key],
      ),
    );
    return agreeing.length > 0 ? agreeing : list;
  };
  return (path, value) => {
    let nodes = alternatives(root, value);
    let place: unknown = value;
    for (const key of path) {
      place = (place as Record<PropertyKey, unknown> | undefined)?.[key];
      nodes = nodes
        .flatMap((node) => (typeof key === 'number' ? (node.items ?? []) : (node.properties?.[String(key)] ?? [])))
        .flatMap((node) => alternatives(node, place));
    }
    return [...new Set(nodes.flatMap((node) => Object.keys(node.properties ?? {})))];
  };
}
