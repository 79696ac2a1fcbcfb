/** Scalar summaries in TensorBoard's event files: TFRecord frames around hand-encoded protobuf messages. */
import crc32c from "crc-32/crc32c.js";

const encoder = new TextEncoder();

/** CRC-32C as TFRecord masks it (tensorflow/core/lib/hash/crc32c.h). */
export function maskedChecksum(bytes: Uint8Array): number {
  const checksum = crc32c.buf(bytes) >>> 0;
  return (((checksum >>> 15) | (checksum << 17)) + 0xa282ead8) >>> 0;
}

/** One record: length, its checksum, data, the data's checksum. */
export function frameRecord(data: Uint8Array): Uint8Array {
  const frame = new Uint8Array(16 + data.length);
  const view = new DataView(frame.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedChecksum(frame.subarray(0, 8)), true);
  frame.set(data, 12);
  view.setUint32(12 + data.length, maskedChecksum(data), true);
  return frame;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return bytes;
}

const wire = { varint: 0, double: 1, bytes: 2, float: 5 } as const;

function key(field: number, type: number): number[] {
  return varint(field * 8 + type);
}

function lengthDelimited(field: number, bytes: ArrayLike<number>): number[] {
  return [...key(field, wire.bytes), ...varint(bytes.length), ...Array.from(bytes)];
}

function float(field: number, value: number): number[] {
  return [...key(field, wire.float), ...new Uint8Array(Float32Array.of(value).buffer)];
}

function double(field: number, value: number): number[] {
  return [...key(field, wire.double), ...new Uint8Array(Float64Array.of(value).buffer)];
}

/** tensorflow.Event (event.proto): wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7. */
function event(seconds: number, step: number, payload: readonly number[]): Uint8Array {
  return frameRecord(Uint8Array.from([...double(1, seconds), ...key(2, wire.varint), ...varint(step), ...payload]));
}

/** What every file starts with. */
export function versionRecord(seconds: number): Uint8Array {
  return event(seconds, 0, lengthDelimited(3, encoder.encode("brain.Event:2")));
}

/** Tells readers to forget what earlier files say of `step` and later: a run was resumed before it. */
export function restartRecord(seconds: number, step: number): Uint8Array {
  const start = [...key(1, wire.varint), ...varint(1)];
  return event(seconds, step, lengthDelimited(7, start));
}

/** Numbers of one step by tag: tensorflow.Summary, value = 1, each with tag = 1 and simple_value = 2. */
export function scalarRecord(seconds: number, step: number, scalars: Readonly<Record<string, number>>): Uint8Array {
  const values = Object.entries(scalars).flatMap(([tag, value]) =>
    lengthDelimited(1, [...lengthDelimited(1, encoder.encode(tag)), ...float(2, value)]),
  );
  return event(seconds, step, lengthDelimited(5, values));
}
