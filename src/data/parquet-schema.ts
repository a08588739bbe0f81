/** A Parquet footer without some leaves of its schema: what is not in it is not read. */
import type { FileMetaData, SchemaElement } from 'hyparquet';

/**
 * Removes leaves named "bytes" that stand beside a "path" (pictures as `datasets` stores them), among those of `leaves`. Gives
 * the footer and the paths that were removed.
 */
export function withoutLeaves(
  metadata: FileMetaData,
  leaves: readonly (readonly string[])[],
): { metadata: FileMetaData; removed: string[][] } {
  const wanted = new Set(leaves.map((path) => path.join('\0')));
  const removed: string[][] = [];
  const schema: SchemaElement[] = [];
  let at = 0;
  const copy = (parents: readonly string[], siblings: readonly string[]): boolean => {
    const element = metadata.schema[at++]!;
    const isRoot = at === 1;
    const path = isRoot ? [] : [...parents, element.name];
    const numChildren = element.num_children ?? 0;
    const isPicture = siblings.length === 2 && siblings.includes('path') && siblings.includes('bytes');
    if (numChildren === 0 && isPicture && element.name === 'bytes' && wanted.has(path.join('\0'))) {
      removed.push(path);
      return false;
    }
    const own = { ...element };
    schema.push(own);
    const names = childNames(metadata.schema, at, numChildren);
    let kept = 0;
    for (let child = 0; child < numChildren; child++) {
      if (at >= metadata.schema.length) throw new Error(`no ${numChildren} columns in "${path.join('.')}"`);
      if (copy(path, names)) kept++;
    }
    if (numChildren > 0) own.num_children = kept;
    return true;
  };
  copy([], []);
  if (removed.length === 0) return { metadata, removed };
  const gone = new Set(removed.map((path) => path.join('\0')));
  const row_groups = metadata.row_groups.map((group) => ({
    ...group,
    columns: group.columns.filter(({ meta_data: column }) => !gone.has(column?.path_in_schema.join('\0') ?? '')),
  }));
  return { metadata: { ...metadata, schema, row_groups }, removed };
}

/** Names of the `count` elements that begin at `from`, each followed by its own descendants. */
function childNames(schema: readonly SchemaElement[], from: number, count: number): string[] {
  const names: string[] = [];
  let at = from;
  const skip = (): void => {
    const children = schema[at++]?.num_children ?? 0;
    for (let child = 0; child < children && at < schema.length; child++) skip();
  };
  for (let child = 0; child < count && at < schema.length; child++) {
    names.push(schema[at]!.name);
    skip();
  }
  return names;
}
