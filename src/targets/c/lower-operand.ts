import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { leafAttributes, leafOp } from "../../ops/leaves.js";
import { storageFormat } from "../../storage/registry.js";
import type { ContractionDType, Decoder } from "./contraction-types.js";
import { renderDecoderC } from "./decoder.js";
import { renderPlaneDecoderC } from "./plane-decoder.js";

/** How a value that a contraction multiplies lies in memory. */
export function storageForm(node: Node): { readonly dtype: ContractionDType; readonly decoder?: Decoder } {
  if (node.op === leafOp) {
    const { format } = leafAttributes(node);
    if (format !== "f32" && format !== "bf16" && format !== "f16") {
      const storage = storageFormat(format);
      const { planes } = storage;
      return {
        dtype: "f32",
        decoder: planes === undefined ? renderDecoderC(storage) : renderPlaneDecoderC(storage, planes),
      };
    }
    return { dtype: format };
  }
  return { dtype: denseType(node) };
}

/** The element type of a value that is not a packed leaf. */
export function denseType(node: Node): "f32" | "bf16" {
  return node.dtype === "bf16" ? "bf16" : "f32";
}

export function sizeAt(node: Node, axis: number): number {
  return must(node.shape.at(axis), "size");
}
