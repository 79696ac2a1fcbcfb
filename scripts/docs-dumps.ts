/** What the walk from graph to machine code shows: every stage of one tiny training step, printed by the compiler. */
import { must, ThimbleError } from "../src/errors.js";
import type { Node } from "../src/ir/node.js";
import { printProgram } from "../src/ir/print.js";
import type { Program } from "../src/ir/program.js";
import { composeMethods } from "../src/methods/compose.js";
import { leafAttributes, leafOp } from "../src/ops/leaves.js";
import { makeOptimizer } from "../src/optim/registry.js";
import type { ContractionKernel, Kernel, LoopsKernel, Operand } from "../src/passes/kernels.js";
import type { Buffer, PlannedStep } from "../src/plan/plan.js";
import { planOnly } from "../src/session/open.js";
import type { SessionPlan } from "../src/session/plan.js";
import { renderLoopsC } from "../src/targets/c/loops.js";
import type { LoweredProgram } from "../src/targets/c/lower.js";
import { lowerProgram } from "../src/targets/c/lower.js";
import { lowerLoops } from "../src/targets/loops/lower.js";
import { printLoopNest } from "../src/targets/loops/print.js";
import { tinyLlama } from "../src/testing/tiny.js";

const threads = 2;

/** One block of a tiny Llama, eight tokens, LoRA of rank 4 on the last linear layer of the MLP. */
export function examplePlan(): SessionPlan {
  const definition = tinyLlama({ num_hidden_layers: 1, vocab_size: 32 });
  const settings = { r: 4, alpha: 8, target_modules: ["down_proj"] };
  return planOnly({
    definition,
    methods: composeMethods([{ id: "lora", settings }], definition),
    optimizer: makeOptimizer({}),
    storedFormat: () => "f32",
    ...{ batch: 1, length: 8, accumulate: 1, dtype: "f32", clip: undefined, segments: false },
    ...{ saved: "cheap", train: true, evaluate: false, decode: undefined, target: "c", threads, seed: 0 },
  });
}

/** Every dump by its name on the page. */
export function makeDumps(): ReadonlyMap<string, string> {
  const session = examplePlan();
  const program = must(session.programs[0], "program");
  const plan = must(session.plans[0], "plan");
  const lowered = lowerProgram(plan, threads);
  const lines = printProgram(program).trimEnd().split("\n");
  const inScope = (pattern: RegExp): string[] => lines.filter((line) => pattern.test(line));
  const mlp = inScope(/ {2}\/\/ blocks\.0\.mlp$/);
  const blockEnd = plan.steps.findIndex(({ step }) =>
    step.kernel.outputs.some(({ scope }) => scope === "blocks.0.mlp"),
  );
  const norm = must(plan.steps.map(({ step }) => step.kernel).find(isNorm), "norm kernel");
  const sum = must(
    plan.steps.find(({ step }) => isSum(step.kernel)),
    "sum of products",
  );
  return new Map([
    ["error", misspeltMethod()],
    ["forward", mlp.slice(mlp.findIndex((line) => line.includes("sigmoid"))).join("\n")],
    ["backward", inScope(/ {2}\/\/ backward/).join("\n")],
    ["effects", lines.slice(lines.indexOf("phase 0:")).join("\n")],
    ["counts", countNodes(program, lines)],
    [
      "kernels",
      plan.steps
        .slice(blockEnd, blockEnd + 6)
        .map(describeStep)
        .join("\n"),
    ],
    ["schedule", describeSchedule(session)],
    ["composition", describeComposition(session)],
    ["buffers", describeBuffers(session)],
    ["nest", printLoopNest(lowerLoops(norm))],
    ["c", withoutSum(functionOf(renderLoopsC(lowerLoops(norm)).source))],
    ["contraction", describeContraction(sum.step.kernel as ContractionKernel)],
    ["contraction-c", partsOf(lowered, plan.steps.indexOf(sum))],
    ["table", describeTable(lowered).slice(blockEnd).join("\n")],
  ]);
}

function misspeltMethod(): string {
  try {
    composeMethods([{ id: "lroa", settings: {} }], tinyLlama());
  } catch (error) {
    if (error instanceof ThimbleError) return error.describe();
  }
  throw new Error("a misspelt method was not refused");
}

const isNorm = (kernel: Kernel): kernel is LoopsKernel =>
  kernel.kind === "loops" && kernel.outputs.some(({ scope }) => scope === "norm");
const isSum = (kernel: Kernel): kernel is ContractionKernel =>
  kernel.kind === "contraction" && kernel.segments.length > 1;

/** A value in short: a leaf by name, anything else by number, op and type. */
function show(node: Node): string {
  if (node.op === leafOp) return leafAttributes(node).name;
  return `%${node.id} ${node.op.name} ${node.dtype}[${node.shape.join(", ")}]`;
}

function countNodes(program: Program, lines: readonly string[]): string {
  const count = (pattern: RegExp): number => lines.filter((line) => pattern.test(line)).length;
  return [
    `forward  ${count(/^%(?!.*\/\/ (backward|update))/)} nodes`,
    `backward ${count(/\/\/ backward/)} nodes, for ${program.gradients.length} gradients`,
    `update   ${count(/\/\/ update/)} nodes`,
  ].join("\n");
}

function describeStep({ step: { kernel } }: PlannedStep): string {
  const kind = kernel.kind === "fixed" ? kernel.node.op.name : kernel.kind;
  const outputs = kernel.outputs.map(show).join("; ");
  return `${kind}: ${outputs}\n    <- ${kernel.inputs.map(show).join("; ")}`;
}

/** Columns as wide as their widest cell; the last one is free. */
function columns(rows: readonly (readonly (string | number)[])[]): string {
  const count = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, column) =>
    Math.max(...rows.map((row) => String(row[column] ?? "").length)),
  );
  const cell = (value: string | number, column: number): string => {
    if (typeof value === "number") return String(value).padStart(widths[column] ?? 0);
    return column === count - 1 ? value : value.padEnd(widths[column] ?? 0);
  };
  return rows.map((row) => row.map(cell).join("  ").trimEnd()).join("\n");
}

function describeSchedule({ plans, report }: SessionPlan): string {
  const plan = must(plans[0], "plan");
  const timeline = must(report.programs[0], "report").timeline;
  const rows = plan.steps.map(({ step, outputs }, index) => {
    const pass = step.again ? "again" : step.forward ? "forward" : "backward";
    const kind = step.kernel.kind === "fixed" ? step.kernel.node.op.name : step.kernel.kind;
    const places = [
      ...new Set(outputs.map(({ name, offset }) => `${name.replace(/^model\.layers\.0\./, "")} @${offset}`)),
    ].join(", ");
    return [index, pass, must(timeline[index], "entry").bytes, kind, places];
  });
  return columns([["step", "pass", "bytes", "kernel", "writes"], ...rows]);
}

function describeComposition({ report, layout }: SessionPlan): string {
  const { planBytes, boundBytes, composition, programs } = report;
  const peak = must(programs[0], "report").peak;
  const parts = Object.entries(composition).map(([kind, bytes]) => [`  ${kind}`, bytes]);
  return columns([
    ["plan", planBytes],
    ["no placement needs less than", boundBytes],
    ["of these always there", layout.bytes],
    [`peak at step ${peak.step}, made of`],
    ...parts,
  ]);
}

function describeBuffers({ plans }: SessionPlan): string {
  const kept = must(plans[0], "plan").buffers.filter(({ kind }) => kind !== "workspace");
  const rows = [...kept].sort((a, b) => a.start - b.start || a.offset - b.offset);
  return columns([
    ["offset", "bytes", "steps", "kind", "first value"],
    ...rows.map(({ name, kind, bytes, offset, start, end }) => [offset, bytes, `${start}..${end}`, kind, name]),
  ]);
}

/** The function itself, without the helpers that all generated kernels share. */
function functionOf(source: string): string {
  return source.slice(source.lastIndexOf("EXPORT void")).trimEnd();
}

function describeOperand({ node, shape, transposed }: Operand): string {
  return `${show(node)}${node.op === leafOp ? ` [${shape.join(", ")}]` : ""}${transposed ? ", transposed" : ""}`;
}

function describeContraction(kernel: ContractionKernel): string {
  const { segments, compute, batch, rows, columns: width, accumulator, epilogue, epilogueInputs, outputs } = kernel;
  return [
    `batch ${batch}, rows ${rows}, columns ${width}, multiplied in ${compute}`,
    ...segments.map(({ a, b }, index) => `product ${index}: ${describeOperand(a)} · ${describeOperand(b)}`),
    `sum of products: ${show(accumulator)}`,
    `epilogue: ${show(epilogue)} = ${epilogue.op.name}(${epilogue.inputs.map(show).join(", ")})`,
    `epilogue reads: ${epilogueInputs.map(show).join("; ")}`,
    `writes: ${outputs.map(show).join("; ")}`,
  ].join("\n");
}

/** The function with the loop over the sum of a row left out, which is unrolled and long. */
function withoutSum(code: string): string {
  const lines = code.split("\n");
  const start = lines.findIndex((line) => line.includes("_sum0 = splat_f")) + 1;
  const end = lines.findIndex((line) => line.includes("sum_lanes("));
  const omitted = `      /* ${end - start} lines: the sum over the row, 64 elements a turn in four vectors, then the rest */`;
  return [...lines.slice(0, start), omitted, ...lines.slice(end)].join("\n");
}

/** The epilogue, and the constant by which the driver knows the kernel. */
function partsOf(lowered: LoweredProgram, index: number): string {
  const name = must(lowered.steps[index]?.entries[0], "entry").kernel;
  const { source } = must(
    lowered.kernels.find((kernel) => kernel.name === name),
    "kernel",
  );
  const own = source.slice(source.lastIndexOf("INLINE void epilogue_")).replace(/^#endif.*\n?/gm, "");
  const finish = own.slice(own.indexOf("static void contraction_"), own.indexOf("static const thimble_contraction"));
  return own
    .replace(finish, "")
    .replace(/\n{2,}/g, "\n\n")
    .trimEnd();
}

/** Entries as the native runner walks them, those of a step on one line; an address is shown as its offset. */
function describeTable(lowered: LoweredProgram): string[] {
  const word = (value: number | { readonly buffer: Buffer }): string =>
    typeof value === "number" ? String(value) : `@${value.buffer.offset}`;
  return lowered.steps.map(({ entries, copies }, index) => {
    const calls = entries.map(({ kernel, words }) => `${kernel}(${words.map(word).join(", ")})`);
    const moves = copies.map(([from, to]) => `copy(${word({ buffer: to })}, ${word({ buffer: from })}, ${to.bytes})`);
    return `${index} ${[...calls, ...moves].join("; ")}`;
  });
}
