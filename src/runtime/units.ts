/** How kernels are put together into the translation units that compile at the same time. */

/** The part of a kernel that matters here. */
export interface UnitKernel {
  readonly name: string;
  readonly source: string;
  readonly includes?: readonly string[];
}

/**
 * C without the blocks `#ifndef X`, `#define X`, ..., `#endif` that a preprocessor would skip since X is in `met`; adds
 * the X that it keeps. Only blocks that no other condition surrounds count.
 */
export function withoutRepeats(text: string, met: Set<string>): string {
  const kept: string[] = [];
  /** The conditions around a line, innermost last: whether each is such a block. */
  const around: boolean[] = [];
  let dropping = 0;
  const lines = text.split("\n");
  for (const [place, line] of lines.entries()) {
    const opens = line.startsWith("#if");
    const closes = line.startsWith("#endif");
    if (dropping > 0) {
      dropping += opens ? 1 : closes ? -1 : 0;
      continue;
    }
    const guard = opens && !around.includes(false) ? guardAt(lines, place) : undefined;
    if (guard !== undefined && met.has(guard)) {
      dropping = 1;
      continue;
    }
    if (guard !== undefined) met.add(guard);
    if (opens) around.push(guard !== undefined);
    if (closes) around.pop();
    kept.push(line);
  }
  return kept.join("\n");
}

function guardAt(lines: readonly string[], place: number): string | undefined {
  const guard = /^#ifndef (\w+)$/.exec(lines[place] ?? "")?.[1];
  return guard !== undefined && lines[place + 1] === `#define ${guard}` ? guard : undefined;
}

/** The length of each source without what it shares with another. */
function ownLengths(kernels: readonly UnitKernel[]): Map<UnitKernel, number> {
  const seen = new Map<string, number>();
  for (const { source } of kernels) {
    const guards = new Set<string>();
    withoutRepeats(source, guards);
    for (const guard of guards) seen.set(guard, (seen.get(guard) ?? 0) + 1);
  }
  const shared = [...seen].filter(([, count]) => count > 1).map(([guard]) => guard);
  return new Map(kernels.map((kernel) => [kernel, withoutRepeats(kernel.source, new Set(shared)).length]));
}

/** Kernels dealt to at most `units` units, longest own text first, each to the unit that is then shortest. */
export function deal<Kernel extends UnitKernel>(kernels: readonly Kernel[], units: number): Kernel[][] {
  const count = Math.min(units, kernels.length);
  const own = ownLengths(kernels);
  const dealt = Array.from({ length: count }, () => ({ length: 0, met: new Set<string>(), kernels: [] as Kernel[] }));
  for (const kernel of [...kernels].sort((a, b) => (own.get(b) ?? 0) - (own.get(a) ?? 0))) {
    const lengths = dealt.map(({ length, met }) => length + withoutRepeats(kernel.source, new Set(met)).length);
    const place = lengths.indexOf(Math.min(...lengths));
    const unit = dealt[place];
    if (unit === undefined) continue;
    unit.length = lengths[place] ?? 0;
    unit.kernels.push(kernel);
    withoutRepeats(kernel.source, unit.met);
  }
  return dealt.map((unit) => unit.kernels);
}

/** The text of a unit: what its kernels include, once, then the kernels. */
export function unitText(kernels: readonly UnitKernel[]): string {
  const includes = new Set(kernels.flatMap((kernel) => kernel.includes ?? []));
  const met = new Set<string>();
  const bodies = kernels.map((kernel) => `#line 1 "${kernel.name}"\n${withoutRepeats(kernel.source, met)}`);
  return [...includes, ...bodies].join("\n");
}
