/** Prepares what comes next while the present item is in use. */

/** `make` of each item of `source`, begun one item ahead. Ending the iteration waits for what was begun and ends the source. */
export async function* oneAhead<In, Out>(
  source: AsyncGenerator<In, void, undefined>,
  make: (item: In) => Promise<Out>,
): AsyncGenerator<Out, void, undefined> {
  const fetch = async (): Promise<{ made: Out } | undefined> => {
    const next = await source.next();
    return next.done === true ? undefined : { made: await make(next.value) };
  };
  let coming = fetch();
  try {
    for (;;) {
      const item = await coming;
      if (item === undefined) return;
      coming = fetch();
      // Its failure is thrown when the item is asked for, which may be never.
      coming.catch(() => undefined);
      yield item.made;
    }
  } finally {
    await coming.catch(() => undefined);
    await source.return();
  }
}
