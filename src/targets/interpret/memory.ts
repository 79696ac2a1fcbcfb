import type { Node } from "../../ir/node.js";
import { bf16Bits, bf16FromBits, f16Bits, f16FromBits } from "../../ir/dtype.js";
import { elements } from "../../ir/shape.js";
import type { Tensor, TensorData } from "../../ir/tensor.js";
import { leafAttributes, leafOp } from "../../ops/leaves.js";
import { compileDecoder } from "../../storage/decoder.js";
import { bytesOf } from "../../storage/format.js";
import { storageFormat } from "../../storage/registry.js";

/** Bytes of an arena; `offset` is from the start of the shard. */
export type ReadBytes = (offset: number, length: number, shard: number) => Uint8Array;

/** The value of a node from its bytes in memory, decoded. */
export function tensorFromBytes(node: Node, bytes: Uint8Array): Tensor {
  const { shape, dtype } = node;
  const count = elements(shape);
  if (node.op === leafOp && leafAttributes(node).format !== dtype) {
    const data = new Float32Array(count);
    const format = storageFormat(leafAttributes(node).format);
    compileDecoder(format)(bytes.subarray(0, bytesOf(format, shape)), data);
    return { shape, dtype, data };
  }
  return { shape, dtype, data: numbersFrom(dtype, bytes, count) };
}

function numbersFrom(dtype: Node["dtype"], bytes: Uint8Array, count: number): TensorData {
  const { buffer, byteOffset } = bytes;
  switch (dtype) {
    case "f64":
      return new Float64Array(buffer, byteOffset, count).slice();
    case "f32":
      return new Float32Array(buffer, byteOffset, count).slice();
    case "i32":
      return new Int32Array(buffer, byteOffset, count).slice();
    case "u32":
      return new Uint32Array(buffer, byteOffset, count).slice();
    case "u8":
    case "bool":
      return bytes.slice(0, count);
    case "bf16":
      return Float32Array.from(new Uint16Array(buffer, byteOffset, count), bf16FromBits);
    case "f16":
      return Float32Array.from(new Uint16Array(buffer, byteOffset, count), f16FromBits);
  }
}

/** Writes a value into memory in its element type. */
export function tensorToBytes(value: Tensor, bytes: Uint8Array): void {
  const { dtype, data } = value;
  const { buffer, byteOffset } = bytes;
  const count = data.length;
  switch (dtype) {
    case "f64":
      new Float64Array(buffer, byteOffset, count).set(data);
      return;
    case "f32":
      new Float32Array(buffer, byteOffset, count).set(data);
      return;
    case "i32":
      new Int32Array(buffer, byteOffset, count).set(data);
      return;
    case "u32":
      new Uint32Array(buffer, byteOffset, count).set(data);
      return;
    case "u8":
    case "bool":
      bytes.set(data);
      return;
    case "bf16":
      new Uint16Array(buffer, byteOffset, count).set(Uint16Array.from(data, bf16Bits));
      return;
    case "f16":
      new Uint16Array(buffer, byteOffset, count).set(Uint16Array.from(data, f16Bits));
      return;
  }
}
