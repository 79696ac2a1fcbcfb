import { join } from "node:path";
import { ThimbleError } from "../../errors.js";
import { writeJsonAtomically } from "../../io/atomic.js";
import { elements, type Shape } from "../../ir/shape.js";
import type { ModelDefinition } from "../../models/types.js";
import { taskFile } from "../task.js";

/** The head's tensors as they are saved beside an adapter; undefined where the model has no task, or the source no head. */
export function headTensors(
  { task, parameters }: ModelDefinition,
  read: (name: string) => Float32Array | undefined,
): ReadonlyMap<string, { readonly shape: Shape; readonly data: Float32Array }> | undefined {
  if (task === undefined) return undefined;
  const head = new Set(task.head);
  const found = parameters.flatMap(({ name, shape }) => {
    const data = head.has(name) ? read(name) : undefined;
    if (data === undefined) return [];
    if (data.length !== elements(shape)) {
      throw new ThimbleError("adapter-tensor", `${name} has other values than its shape says`, {
        given: `${data.length} values`,
        expected: `[${shape.join(", ")}]`,
      });
    }
    return [[name, { shape, data }] as const];
  });
  return found.length === 0 ? undefined : new Map(found);
}

/** Names the classes of an adapter, which its tensors only count. */
export async function writeTask(folder: string, { task }: ModelDefinition): Promise<void> {
  if (task === undefined) return;
  await writeJsonAtomically(join(folder, taskFile), { task: task.kind, labels: task.labels });
}
