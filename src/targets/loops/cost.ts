/** Estimates of what a generated kernel costs. */
import { must } from "../../errors.js";
import { sizeOf } from "../../ir/dtype.js";
import { scalarSteps } from "../../ir/scalar-graph.js";
import { elements } from "../../ir/shape.js";
import { bytesOf } from "../../storage/format.js";
import { storageFormat } from "../../storage/registry.js";
import { memoryOf } from "./lower-node.js";
import type { LoopNest, Piece, Section } from "./nest.js";
import type { LoadValue, Loop, MemoryType, Value } from "./value.js";
import { valuesBelow } from "./value.js";

/** Bytes read from and written to memory, each input at most once. */
export function bytesMoved(nest: LoopNest): number {
  const { inputs, outputs } = nest.kernel;
  const loads = new Set(
    pieces(nest)
      .flatMap(({ piece }) => valuesOf(piece))
      .filter(isLoad),
  );
  const read = inputs.map((input, place) => {
    const memory = memoryOf(input);
    const whole =
      typeof memory === "string"
        ? elements(input.shape) * sizeOf(memory)
        : bytesOf(storageFormat(memory.format), input.shape);
    const own = [...loads].filter(({ source }) => source.kind === "input" && source.index === place);
    const touched = own.reduce((sum, load) => sum + steps(load) * bytesEach(memory), 0);
    return Math.min(whole, touched);
  });
  const written = outputs.map((output) => elements(output.shape) * sizeOf(output.dtype));
  return [...read, ...written].reduce((sum, bytes) => sum + bytes, 2 * nest.workspaceBytes);
}

/** Arithmetic operations on single elements. */
export function operations(nest: LoopNest): number {
  return pieces(nest).reduce((sum, { section, piece }) => {
    const loops = [...section.shared, ...piece.loops];
    return sum + valuesOf(piece).reduce((inner, value) => inner + operationsEach(value) * executions(value, loops), 0);
  }, 0);
}

function pieces(nest: LoopNest): { section: Section; piece: Piece }[] {
  return nest.sections.flatMap((section) => section.pieces.map((piece) => ({ section, piece })));
}

function valuesOf(piece: Piece): Value[] {
  return valuesBelow(piece.stores.map((store) => store.value));
}

function isLoad(value: Value): value is LoadValue {
  return value.kind === "load";
}

function bytesEach(memory: MemoryType): number {
  if (typeof memory === "string") return sizeOf(memory);
  const { block } = storageFormat(memory.format);
  return block.bytes / block.elements;
}

function steps(value: Value): number {
  return elements([...value.depends].map((variable) => variable.extent));
}

function operationsEach(value: Value): number {
  if (value.kind === "apply")
    return scalarSteps([value.expression]).steps.filter(({ operands }) => operands.length > 0).length;
  return value.kind === "reduce" || value.kind === "round" ? 1 : 0;
}

/** How often a value is computed: at every iteration of the loops down to the last that it depends on. */
function executions(value: Value, loops: readonly Loop[]): number {
  const last = loops.findLastIndex((loop) => value.depends.has(loop.variable));
  const outer = loops.slice(0, last + 1).map((loop) => loop.variable);
  const inner = [...value.depends].filter((variable) => !outer.includes(variable));
  const own = value.kind === "reduce" ? value.loops.map((loop) => loop.variable) : [];
  return elements([...outer, ...inner, ...own].map((variable) => must(variable, "variable").extent));
}
