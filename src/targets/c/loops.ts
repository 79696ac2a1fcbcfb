/** C for the loop IR. */
import { must } from "../../errors.js";
import type { ScalarType } from "../../ir/scalar.js";
import { scalarSteps } from "../../ir/scalar-graph.js";
import type { LoopVariable } from "../loops/linear.js";
import type { LoopNest, Pass, Stage, Statement } from "../loops/nest.js";
import { leastOf } from "../loops/staging.js";
import type { Loop, ReduceValue, Value } from "../loops/value.js";
import { valuesBelow } from "../loops/value.js";
import { contentHash, Names } from "./loops-names.js";
import { loopsSupport } from "./loops-support.js";
import type { Lanes } from "./loops-values.js";
import { acrossLanes, combine, roundedByStores, ValueRenderer } from "./loops-values.js";
import { cSyntax, scalarTypes } from "./scalar.js";

/** A kernel's C: `void NAME(const int64_t* arguments, Context* context)`, to stand behind the prelude. */
export interface RenderedLoops {
  readonly name: string;
  readonly source: string;
  /** Runtime sizes, which follow the addresses in the arguments. */
  readonly sizes: readonly number[];
}

const known = new WeakMap<LoopNest, RenderedLoops>();

/** C source of a nest; kernels that differ in sizes only have the same name and source. */
export function renderLoopsC(nest: LoopNest): RenderedLoops {
  const before = known.get(nest);
  if (before !== undefined) return before;
  const rendered = new Renderer(nest).render();
  known.set(nest, rendered);
  return rendered;
}

/** What the arguments of a kernel are, in order: addresses of inputs, outputs and workspace (if any), then sizes. */
export function loopArguments(nest: LoopNest): {
  inputs: LoopNest["kernel"]["inputs"];
  outputs: LoopNest["kernel"]["outputs"];
  workspaceBytes: (threads: number) => number;
  sizes: readonly number[];
} {
  const { inputs, outputs } = nest.kernel;
  return { inputs, outputs, workspaceBytes: () => nest.workspaceBytes, sizes: renderLoopsC(nest).sizes };
}

/** Elements of the lanes' loop that are dealt to threads at once: whole cache lines of every type. */
const laneGranule = 64;

interface Context {
  readonly lanes: Lanes | undefined;
  /** The accumulator of each reduction under way. */
  readonly accumulators: ReadonlyMap<ReduceValue, string>;
  /** Lanes beyond the end must not count. */
  readonly masked: boolean;
  /** C names of the range of a dealt loop over lanes. */
  readonly range?: { readonly begin: string; readonly end: string };
}

const outside: Context = { lanes: undefined, accumulators: new Map(), masked: false };

class Renderer {
  readonly #names = new Names();
  readonly #values = new ValueRenderer(this.#names);
  readonly #skipped: ReadonlySet<Value>;

  constructor(readonly nest: LoopNest) {
    this.#skipped = roundedByStores(
      nest.sections.flatMap((section) => section.pieces.flatMap((piece) => piece.stores)),
    );
  }

  render(): RenderedLoops {
    const stages = this.nest.stages.flatMap((stage) => this.#stage(stage));
    const { sizes, functions, locals } = this.#names;
    const { inputs, outputs } = this.nest.kernel;
    const addresses = [
      ...inputs.map((_, index) => `const char* in${index}`),
      ...outputs.map((_, index) => `char* out${index}`),
      ...(this.nest.workspaceBytes > 0 ? ["char* work"] : []),
    ];
    const declarations = addresses.map(
      (address, index) =>
        `${address} = (${address.startsWith("const") ? "const " : ""}char*)(uintptr_t)arguments[${index}];`,
    );
    const used = declarations.map((text) => `${text} (void)${/(\w+) =/.exec(text)?.[1] ?? ""};`);
    const counts = sizes.map((_, index) => `const int64_t s${index} = arguments[${addresses.length + index}];`);
    const body = [...used, ...counts, ...locals, ...stages].map((line) => `  ${line}`).join("\n");
    const text = `(const int64_t* arguments, Context* context) {\n${body}\n}\n`;
    const helpers = [loopsSupport, ...functions.values()].join("");
    const name = `loops_${contentHash(helpers + text)}`;
    return { name, source: `${helpers}EXPORT void ${name}${text}`, sizes };
  }

  #stage(stage: Stage): string[] {
    const lines = stage.barrier ? ["barrier(context);"] : [];
    if (stage.parallel.length === 0 && !stage.splitLanes) {
      const body = [...stage.prologue, ...stage.body];
      return [...lines, "if (context->thread == 0) {", ...this.#block(body, outside), "}"];
    }
    const prologue = this.#statements(stage.prologue, outside);
    return [...lines, "{", ...indented([...prologue, ...this.#dealt(stage)]), "}"];
  }

  /** The stage's body for this thread's part of the parallel loops, and of the lanes where they are dealt too. */
  #dealt(stage: Stage): string[] {
    const { parallel, splitLanes, body } = stage;
    const lanes = splitLanes
      ? must(
          body.find((statement) => statement.kind === "loop"),
          "lane loop",
        ).loop
      : undefined;
    const names = this.#names;
    const range = { begin: "begin", end: "end" };
    const context = splitLanes ? { ...outside, range } : outside;
    if (lanes !== undefined && parallel.length === 0) {
      return [
        "int64_t begin, end;",
        `share(${names.end(lanes)}, ${laneGranule}, context->thread, context->threads, &begin, &end);`,
        ...this.#statements(body, context),
      ];
    }
    const extents = parallel.map((variable) => names.extent(variable));
    const units = lanes === undefined ? undefined : `(${names.end(lanes)} + ${laneGranule - 1}) / ${laneGranule}`;
    const total = [...extents, ...(units === undefined ? [] : ["units"])].join(" * ");
    return [
      ...(units === undefined ? [] : [`const int64_t units = ${units};`]),
      "int64_t first, last;",
      `share(${total}, 1, context->thread, context->threads, &first, &last);`,
      ...this.#starts(parallel, extents, units !== undefined),
      units === undefined
        ? "for (int64_t task = first; task < last; task++) {"
        : "for (int64_t task = first, unit = first % units, taken; task < last; task += taken, unit = 0) {",
      ...(lanes === undefined ? [] : indented(this.#laneRange(lanes))),
      ...this.#block(body, context),
      ...indented([
        advance(
          parallel.map((variable) => names.variable(variable)),
          extents,
        ),
      ]),
      "}",
    ];
  }

  #laneRange(lanes: Loop): string[] {
    return [
      "taken = smaller(units - unit, last - task);",
      `const int64_t begin = unit * ${laneGranule};`,
      `const int64_t end = smaller((unit + taken) * ${laneGranule}, ${this.#names.end(lanes)});`,
    ];
  }

  /** The first iteration of this thread, as a counter for each parallel loop. */
  #starts(parallel: readonly LoopVariable[], extents: readonly string[], units: boolean): string[] {
    return parallel.map((variable, place) => {
      const inner = [...extents.slice(place + 1), ...(units ? ["units"] : [])];
      const quotient = inner.length === 0 ? "first" : `first / (${inner.join(" * ")})`;
      const wrapped = place === 0 ? quotient : `${quotient} % ${extents[place] ?? "1"}`;
      return `int64_t ${this.#names.variable(variable)} = ${wrapped};`;
    });
  }

  #block(statements: readonly Statement[], context: Context): string[] {
    return indented(this.#statements(statements, context));
  }

  #statements(statements: readonly Statement[], context: Context): string[] {
    return statements.flatMap((statement) => this.#statement(statement, context));
  }

  #statement(statement: Statement, context: Context): string[] {
    switch (statement.kind) {
      case "compute":
        return this.#skipped.has(statement.value) ? [] : this.#values.compute(statement.value, context.lanes);
      case "store":
        return [this.#values.store(statement.store, context.lanes)];
      case "loop":
        return statement.lanes
          ? this.#laneLoop(statement.loop, statement.body, context)
          : this.#loop(statement.loop, statement.body, context);
      case "accumulate":
        return [this.#accumulate(statement.reduce, context)];
      case "pass":
        return this.#pass(statement, context);
    }
  }

  #loop(loop: Loop, body: readonly Statement[], context: Context): string[] {
    const name = this.#names.variable(loop.variable);
    const end = this.#names.end(loop);
    const head =
      loop.limit === undefined
        ? [`for (int64_t ${name} = 0; ${name} < ${end}; ${name}++) {`]
        : [`for (int64_t ${name} = 0, ${name}_end = ${end}; ${name} < ${name}_end; ${name}++) {`];
    return [...head, ...this.#block(body, context), "}"];
  }

  #laneLoop(loop: Loop, body: readonly Statement[], context: Context): string[] {
    const { variable } = loop;
    const name = this.#names.variable(variable);
    const begin = context.range?.begin ?? "0";
    const end = context.range?.end ?? this.#names.end(loop);
    const inner = (partial: boolean): Context => ({ ...context, lanes: { variable, partial }, masked: false });
    return [
      "{",
      `  int64_t ${name} = ${begin};`,
      `  const int64_t ${name}_end = ${end};`,
      `  for (; ${name} + 16 <= ${name}_end; ${name} += 16) {`,
      ...indented(this.#block(body, inner(false))),
      "  }",
      `  if (${name} < ${name}_end) {`,
      `    const int n = (int)(${name}_end - ${name}); (void)n;`,
      ...indented(this.#block(body, inner(true))),
      "  }",
      "}",
    ];
  }

  #pass(pass: Pass, context: Context): string[] {
    const copies = pass.lanes ? accumulatorsFor(pass) : 1;
    const lines: string[] = [];
    const names = pass.reduces.map((reduce) => {
      const base = `${this.#names.value(reduce)}_sum`;
      const own = Array.from({ length: copies }, (_, copy) => `${base}${copy}`);
      const type = scalarTypes.vector[reduce.type];
      const start = identity(reduce);
      lines.push(`${type} ${own.map((name) => `${name} = ${start}`).join(", ")};`);
      return own;
    });
    const contexts = Array.from({ length: copies }, (_, copy): Context => {
      const own = pass.reduces.map((reduce, place) => [reduce, must(names[place]?.[copy], "accumulator")] as const);
      return { lanes: context.lanes, masked: false, accumulators: new Map([...context.accumulators, ...own]) };
    });
    lines.push(...pass.body.flatMap((statement) => this.#passLoop(statement, contexts)));
    pass.reduces.forEach((reduce, place) => {
      const whole = tree(
        must(names[place], "accumulators"),
        (a, b) => `(${combine(reduce.combine, reduce.type, a, b)})`,
      );
      const code = pass.lanes ? acrossLanes(reduce.combine, reduce.type, whole) : whole;
      lines.push(`const ${scalarTypes.vector[reduce.type]} ${this.#names.value(reduce)} = ${code};`);
    });
    return lines;
  }

  /** A pass's loop nest; the loop over lanes is unrolled, each copy with an accumulator of its own. */
  #passLoop(statement: Statement, contexts: readonly Context[]): string[] {
    const first = must(contexts[0], "context");
    if (statement.kind !== "loop") return this.#statement(statement, first);
    const { loop, body } = statement;
    const name = this.#names.variable(loop.variable);
    if (!statement.lanes) {
      const end = this.#names.end(loop);
      const inner = body.flatMap((part) =>
        part.kind === "loop" ? this.#passLoop(part, contexts) : this.#statement(part, first),
      );
      const head = `for (int64_t ${name} = 0, ${name}_end = ${end}; ${name} < ${name}_end; ${name}++) {`;
      return [head, ...indented(inner), "}"];
    }
    const copy = (context: Context, partial: boolean): string[] =>
      this.#block(body, { ...context, lanes: { variable: loop.variable, partial }, masked: partial });
    const unrolled = contexts.flatMap((context, place) => [
      ...(place === 0 ? [] : [`${name} += 16;`]),
      "{",
      ...copy(context, false),
      "}",
    ]);
    const width = 16 * contexts.length;
    return [
      "{",
      `  int64_t ${name} = 0;`,
      `  const int64_t ${name}_end = ${this.#names.end(loop)};`,
      ...(contexts.length === 1
        ? []
        : [`  for (; ${name} + ${width} <= ${name}_end; ${name} += 16) {`, ...indented(indented(unrolled)), "  }"]),
      `  for (; ${name} + 16 <= ${name}_end; ${name} += 16) {`,
      ...indented(copy(first, false)),
      "  }",
      `  if (${name} < ${name}_end) {`,
      `    const int n = (int)(${name}_end - ${name}); (void)n;`,
      ...indented(copy(first, true)),
      "  }",
      "}",
    ];
  }

  #accumulate(reduce: ReduceValue, context: Context): string {
    const name = must(context.accumulators.get(reduce), "accumulator");
    const value = this.#names.value(reduce.body);
    const counted = context.masked ? `${select(reduce.type)}(first_lanes(n), ${value}, ${identity(reduce)})` : value;
    return `${name} = ${combine(reduce.combine, reduce.type, name, counted)};`;
  }
}

/** The code that moves the counters of nested loops on by one iteration. */
function advance(names: readonly string[], extents: readonly string[]): string {
  return names.reduce(
    (inner, name, place) =>
      place === 0 ? `${name}++;` : `if (++${name} == ${extents[place] ?? "1"}) { ${name} = 0; ${inner} }`,
    "",
  );
}

function select(type: ScalarType): string {
  return `select_${{ f32: "f", i32: "i", u32: "u", bool: "i" }[type]}`;
}

/** What changes nothing when it is combined. */
function identity(reduce: ReduceValue): string {
  return cSyntax([], "vector").constant(reduce.type, reduce.combine === "add" ? 0 : leastOf(reduce.type));
}

/** Combines a power of two of names pair by pair. */
function tree(names: readonly string[], join: (a: string, b: string) => string): string {
  if (names.length === 1) return must(names[0], "name");
  const half = names.length / 2;
  return join(tree(names.slice(0, half), join), tree(names.slice(half), join));
}

/** As many accumulators as hide the latency of an addition, fewer where the body is long. */
function accumulatorsFor(pass: Pass): number {
  const work = valuesBelow(pass.reduces.map((reduce) => reduce.body))
    .filter((value) => pass.loops.some((loop) => value.depends.has(loop.variable)))
    .reduce((sum, value) => sum + (value.kind === "apply" ? scalarSteps([value.expression]).steps.length : 1), 0);
  return work <= 24 ? 4 : work <= 60 ? 2 : 1;
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}
