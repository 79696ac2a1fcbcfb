import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { diskFiles } from "./files.js";
import { RunLogs } from "./logs.js";
import { medianSpeed } from "./measure.js";
import { frameRecord, maskedChecksum } from "./tfevents.js";
import { LossWatch, oddRate } from "./watch.js";

let out = "";
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), "thimble-logs-"));
});
afterEach(async () => {
  await rm(out, { recursive: true, force: true });
});

/** The records of an event file, their checksums verified. */
function unframe(bytes: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(bytes.readUInt32LE(at + 8)).toBe(maskedChecksum(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedChecksum(data));
    records.push(data);
    at += 16 + length;
  }
  return records;
}

type Field = number | Buffer;

/** A protobuf message as its fields, by number. */
function fieldsOf(message: Buffer): Map<number, Field[]> {
  const fields = new Map<number, Field[]>();
  let at = 0;
  const varint = (): number => {
    let [value, scale] = [0, 1];
    for (;;) {
      const byte = message[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  };
  const read = (type: number): Field => {
    if (type === 0) return varint();
    const length = type === 1 ? 8 : type === 5 ? 4 : varint();
    at += length;
    if (type === 1) return message.readDoubleLE(at - 8);
    return type === 5 ? message.readFloatLE(at - 4) : message.subarray(at - length, at);
  };
  while (at < message.length) {
    const key = varint();
    fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), read(key & 7)]);
  }
  return fields;
}

describe("TensorBoard's event files", () => {
  it("have TFRecord's checksums", () => {
    // RFC 3720, B.4: CRC-32C of 32 zero bytes is 8a9136aa; masked as TFRecord does it.
    const crc = 0x8a9136aa;
    expect(maskedChecksum(new Uint8Array(32))).toBe((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
    expect(unframe(Buffer.from(frameRecord(Buffer.from("abc"))))).toEqual([Buffer.from("abc")]);
  });

  it("hold the numbers of each step, and say where a resumed run starts over", async () => {
    const logs = await RunLogs.open({ files: diskFiles, out, step: 0, metricsBytes: 0, now: () => 12.5 });
    await logs.step({ step: 300, loss: 2.5, rate: 0.25, seconds: 0.5, tokens: 64, gradientNorm: 4 });
    await logs.evaluation({ step: 300, heldOutLoss: 1.5, heldOutPerplexity: 8 });
    await logs.close();
    const [name] = await readdir(join(out, "tensorboard"));
    const records = unframe(await readFile(join(out, "tensorboard", name!))).map(fieldsOf);
    expect(String(records[0]?.get(3)?.[0])).toBe("brain.Event:2");
    expect(fieldsOf(records[1]?.get(7)?.[0] as Buffer).get(1)).toEqual([1]);
    expect(records[1]?.get(2)).toEqual([1]);
    const scalars = (record: Map<number, Field[]> | undefined): [string, Field][] =>
      (fieldsOf(record?.get(5)?.[0] as Buffer).get(1) ?? []).map((value) => {
        const fields = fieldsOf(value as Buffer);
        return [String(fields.get(1)?.[0]), fields.get(2)![0]!];
      });
    expect(records[2]?.get(1)).toEqual([12.5]);
    expect(records[2]?.get(2)).toEqual([300]);
    expect(scalars(records[2])).toEqual([
      ["train/loss", 2.5],
      ["train/learning_rate", 0.25],
      ["train/tokens_per_second", 128],
      ["train/gradient_norm", 4],
    ]);
    expect(scalars(records[3])).toEqual([
      ["held_out/loss", 1.5],
      ["held_out/perplexity", 8],
    ]);
  });
});

describe("metrics.jsonl", () => {
  it("loses what came after the checkpoint, and gives back what came before", async () => {
    const record = { loss: 0.1 + 0.2, rate: 1, seconds: 1 / 3, tokens: 8 };
    const first = await RunLogs.open({ files: diskFiles, out, step: 0, metricsBytes: 0, now: () => 1 });
    await first.step({ ...record, step: 1 });
    const { metricsBytes } = first;
    await first.step({ ...record, step: 2 });
    await first.close();
    const again = await RunLogs.open({ files: diskFiles, out, step: 1, metricsBytes, now: () => 2 });
    expect(again.history).toEqual({ losses: [0.1 + 0.2], stepSeconds: [1 / 3] });
    await again.close();
    expect((await readFile(join(out, "metrics.jsonl"), "utf8")).trim().split("\n")).toHaveLength(1);
    for (const [step, bytes] of [
      [2, metricsBytes],
      [1, metricsBytes - 2],
      [1, metricsBytes + 5],
    ] as const) {
      const lost = await RunLogs.open({ files: diskFiles, out, step, metricsBytes: bytes, now: () => 3 });
      expect(lost.history).toBeUndefined();
      await lost.close();
    }
  });
});

describe("warnings", () => {
  const codes = (losses: readonly number[]): string[] => {
    const watch = new LossWatch();
    return losses.flatMap((loss) => watch.add(loss)?.code ?? []);
  };

  it("come once for a loss that does not fall, and none for one that does", () => {
    expect(codes(Array.from({ length: 400 }, () => 3))).toEqual(["loss-flat"]);
    expect(codes(Array.from({ length: 400 }, (_, step) => 3 - step / 400))).toEqual([]);
    expect(codes(Array.from({ length: 60 }, (_, step) => 3 + step))).toEqual(["loss-rising"]);
    expect(codes(Array.from({ length: 49 }, () => 3))).toEqual([]);
  });

  it("come for a rate far from the method's", () => {
    expect(oddRate(1e-4, 2e-4)).toBeUndefined();
    expect(oddRate(0.5, 2e-4)?.message).toContain("above");
    expect(oddRate(1e-9, 2e-4)?.message).toContain("below");
    expect(oddRate(0, 2e-4)?.code).toBe("rate-zero");
  });
});

it("speed is the median of the steps after the second", () => {
  expect(medianSpeed(10, [100, 100, 1, 2, 4])).toBe(5);
  expect(medianSpeed(10, [100, 100, 1, 2])).toBe(10 / 1.5);
  expect(medianSpeed(10, [2])).toBe(5);
  expect(medianSpeed(10, [])).toBe(0);
});
