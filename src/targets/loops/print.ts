/** Loop nests as text, for people. */
import { must } from "../../errors.js";
import type { Linear } from "./linear.js";
import { linearKey } from "./linear.js";
import type { LoopNest, Stage, Statement, Store } from "./nest.js";
import type { Loop, MemoryType, Value } from "./value.js";

/** What a kernel does: loops with their extents, loads, operations and stores, one a line. */
export function printLoopNest(nest: LoopNest): string {
  const names = new Map<Value, string>();
  const nodes = [...nest.kernel.inputs.map((node, index) => [`in${index}`, node] as const)];
  const outputs = nest.kernel.outputs.map((node, index) => [`out${index}`, node] as const);
  const head = [...nodes, ...outputs].map(([name, { dtype, shape }]) => `${name}: ${dtype}[${shape.join(", ")}]`);
  const workspace = nest.workspaceBytes > 0 ? [`workspace: ${nest.workspaceBytes} bytes`] : [];
  const printer = new Printer(names);
  return [...head, ...workspace, ...nest.stages.flatMap((stage) => printer.stage(stage))].join("\n");
}

class Printer {
  constructor(readonly names: Map<Value, string>) {}

  stage({ barrier, prologue, parallel, splitLanes, body }: Stage): string[] {
    const loops = parallel.map((variable) => `${variable.name} < ${variable.extent}`);
    const dealt = [...loops, ...(splitLanes ? ["lanes"] : [])];
    const head = dealt.length === 0 ? "first thread:" : `all threads, by ${dealt.join(", ")}:`;
    const inner = [...prologue, ...body].flatMap((statement) => this.#statement(statement));
    return [...(barrier ? ["barrier"] : []), head, ...inner.map(indent)];
  }

  #statement(statement: Statement): string[] {
    switch (statement.kind) {
      case "compute":
        return [`${this.#name(statement.value)} = ${this.#code(statement.value)}`];
      case "store":
        return [this.#store(statement.store)];
      case "loop": {
        const inner = statement.body.flatMap((part) => this.#statement(part));
        return [`${statement.lanes ? "lanes" : "for"} ${bounds(statement.loop)}:`, ...inner.map(indent)];
      }
      case "accumulate":
        return [`${this.#name(statement.reduce)} ${statement.reduce.combine}= ${this.#name(statement.reduce.body)}`];
      case "pass":
        return statement.body.flatMap((part) => this.#statement(part));
    }
  }

  #store({ target, offset, value, memory, combine }: Store): string {
    const place = `${target.kind === "workspace" ? "work" : `out${target.index}`}[${show(offset)}]`;
    return `${place} ${combine ?? ""}= ${this.#name(value)} as ${memoryName(memory)}`;
  }

  #name(value: Value): string {
    if (value.kind === "constant") return String(value.value);
    const name = this.names.get(value) ?? `v${this.names.size}`;
    this.names.set(value, name);
    return name;
  }

  #code(value: Value): string {
    switch (value.kind) {
      case "load": {
        const source = value.source.kind === "workspace" ? "work" : `in${value.source.index}`;
        const guards = value.guards.map(({ index, size }) => ` if 0 <= ${show(index)} < ${size}`);
        return `${source}[${show(value.offset)}]${guards.join("")}`;
      }
      case "index":
        return show(value.index);
      case "inside":
        return `0 <= ${show(value.guard.index)} < ${value.guard.size}`;
      case "apply":
        return `${must(value.name.split(" ")[0], "name")}(${value.operands.map((part) => this.#name(part)).join(", ")})`;
      case "round":
        return `${value.to}(${this.#name(value.operand)})`;
      case "constant":
      case "reduce":
        return this.#name(value);
    }
  }
}

function bounds({ variable, limit }: Loop): string {
  const rest = limit === undefined ? "" : ` and ${limit.total} - ${show(limit.start)}`;
  return `${variable.name} < ${variable.extent}${rest}`;
}

function show(index: Linear): string {
  return index.terms.length === 0 ? String(index.constant) : linearKey(index).replace(/\+0$/, "").replaceAll("1*", "");
}

function memoryName(memory: MemoryType): string {
  return typeof memory === "string" ? memory : memory.format;
}

function indent(line: string): string {
  return `  ${line}`;
}
