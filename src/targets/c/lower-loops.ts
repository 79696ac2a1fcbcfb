import type { LoopsKernel } from "../../passes/kernels.js";
import { inPlaceInputs } from "../loops/in-place.js";
import { lowerLoops } from "../loops/lower.js";
import { renderLoopsC } from "./loops.js";
import type { LoweredKernel, SymbolicWord } from "./lower-fixed.js";
import { workspace } from "./lower-fixed.js";

/** Generated kernels: addresses of inputs, outputs and workspace, then sizes. */
export function lowerGenerated(kernel: LoopsKernel): LoweredKernel {
  const nest = lowerLoops(kernel);
  const { name, source, sizes } = renderLoopsC(nest);
  const words: SymbolicWord[] = [
    ...kernel.inputs.map((_, input) => ({ input })),
    ...kernel.outputs.map((_, output) => ({ output })),
    ...(nest.workspaceBytes > 0 ? [workspace] : []),
    ...sizes,
  ];
  return { generated: { name, source }, words, workspaceBytes: nest.workspaceBytes, inPlace: inPlaceInputs(nest) };
}
