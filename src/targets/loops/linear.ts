/** Index arithmetic: integer expressions that are linear in loop variables, with division as a last resort. */
import type { Atom, Divided, Linear, LoopVariable, Value } from "./expression.js";

export type { Atom, Divided, Linear, LoopVariable, Row, Term } from "./expression.js";

export function constantIndex(constant: number): Linear {
  return { constant, terms: [] };
}

export function atomIndex(atom: Atom): Linear {
  return { constant: 0, terms: [{ atom, coefficient: 1 }] };
}

/** a + factor * b. */
export function addScaled(a: Linear, b: Linear, factor = 1): Linear {
  const terms = new Map(a.terms.map((term) => [term.atom.name, term]));
  for (const { atom, coefficient } of b.terms) {
    const before = terms.get(atom.name)?.coefficient ?? 0;
    terms.set(atom.name, { atom, coefficient: before + factor * coefficient });
  }
  const kept = [...terms.values()].filter((term) => term.coefficient !== 0);
  kept.sort((x, y) => (x.atom.name < y.atom.name ? -1 : 1));
  return rejoined({ constant: a.constant + factor * b.constant, terms: kept });
}

/** Quotient times divisor plus remainder are what was divided: a matrix read in groups that straddle its rows. */
function rejoined(linear: Linear): Linear {
  for (const { atom, coefficient } of linear.terms) {
    if (atom.kind !== "remainder") continue;
    const whole = divided("quotient", atom.of, atom.by).name;
    const quotient = linear.terms.find((term) => term.atom.name === whole);
    if (quotient?.coefficient !== coefficient * atom.by) continue;
    const others = linear.terms.filter((term) => term.atom !== atom && term !== quotient);
    return addScaled({ constant: linear.constant, terms: others }, atom.of, coefficient);
  }
  return linear;
}

export function shifted(a: Linear, by: number): Linear {
  return by === 0 ? a : { ...a, constant: a.constant + by };
}

export function linearKey({ constant, terms }: Linear): string {
  return terms.map(({ atom, coefficient }) => `${coefficient}*${atom.name}+`).join("") + String(constant);
}

/** Smallest and largest value. */
export function rangeOf({ constant, terms }: Linear): { least: number; most: number } {
  let least = constant;
  let most = constant;
  for (const { atom, coefficient } of terms) {
    const reach = coefficient * (atom.extent - 1);
    if (reach < 0) least += reach;
    else most += reach;
  }
  return { least, most };
}

export function coefficientOf(linear: Linear, variable: LoopVariable): number {
  return linear.terms.find((term) => term.atom === variable)?.coefficient ?? 0;
}

/** Every loop variable that the value of the index depends on. */
export function variablesOf(linear: Linear): Set<LoopVariable> {
  const found = new Set<LoopVariable>();
  for (const { atom } of linear.terms) {
    if (atom.kind === "loop") found.add(atom);
    else for (const variable of atom.kind === "row" ? atom.value.depends : variablesOf(atom.of)) found.add(variable);
  }
  return found;
}

/** The tensor values that take part in the index. */
export function rowsOf(linear: Linear): Value[] {
  return linear.terms.flatMap(({ atom }) =>
    atom.kind === "loop" ? [] : atom.kind === "row" ? [atom.value] : rowsOf(atom.of),
  );
}

/** The index itself and those inside its divisions. */
export function nestedLinears(linear: Linear): Linear[] {
  const inner = linear.terms.flatMap(({ atom }) =>
    atom.kind === "quotient" || atom.kind === "remainder" ? nestedLinears(atom.of) : [],
  );
  return [linear, ...inner];
}

/** The linear index that replaces each atom where `replace` gives one. */
export function substitute(linear: Linear, replace: (atom: Atom) => Linear | undefined): Linear {
  return linear.terms.reduce(
    (sum, { atom, coefficient }) => addScaled(sum, replace(atom) ?? substituteInside(atom, replace), coefficient),
    constantIndex(linear.constant),
  );
}

function substituteInside(atom: Atom, replace: (atom: Atom) => Linear | undefined): Linear {
  if (atom.kind === "loop" || atom.kind === "row") return atomIndex(atom);
  return atomIndex(divided(atom.kind, substitute(atom.of, replace), atom.by));
}

function divided(kind: Divided["kind"], of: Linear, by: number): Divided {
  const { most } = rangeOf(of);
  const extent = kind === "remainder" ? by : Math.max(1, Math.floor(most / by) + 1);
  return { kind, name: `${kind}(${linearKey(of)},${by})`, extent, of, by };
}

/** Asks that a loop variable be made of two: an outer one and an inner one of `radix` steps. */
export type SplitRequest = (variable: LoopVariable, radix: number) => void;

/**
 * Floor division by a positive number. Where it would simplify if a loop variable were two, `request` is called (and
 * the caller lowers again); else an opaque quotient and remainder result.
 */
export function divideIndex(
  linear: Linear,
  by: number,
  request: SplitRequest,
): { quotient: Linear; remainder: Linear } {
  let quotient = constantIndex(0);
  let rest = constantIndex(linear.constant);
  for (const { atom, coefficient } of linear.terms) {
    const whole = Math.abs(coefficient) < by ? 0 : Math.floor(coefficient / by);
    quotient = addScaled(quotient, atomIndex(atom), whole);
    rest = addScaled(rest, atomIndex(atom), coefficient - whole * by);
  }
  const { least, most } = rangeOf(rest);
  const whole = Math.floor(least / by);
  if (whole === Math.floor(most / by)) {
    return { quotient: shifted(quotient, whole), remainder: shifted(rest, -whole * by) };
  }
  requestSplit(rest, by, request);
  return {
    quotient: addScaled(quotient, atomIndex(divided("quotient", rest, by))),
    remainder: atomIndex(divided("remainder", rest, by)),
  };
}

function requestSplit(rest: Linear, by: number, request: SplitRequest): void {
  for (const { atom, coefficient } of rest.terms) {
    const radix = by / Math.abs(coefficient);
    if (atom.kind === "loop" && Number.isInteger(radix) && radix > 1 && atom.extent > radix) {
      if (atom.extent % radix === 0) {
        request(atom, radix);
        return;
      }
    }
  }
}
