import { createHash } from "node:crypto";
import { z } from "zod";
import { ThimbleError } from "../errors.js";

const natural = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const digest = z.string().regex(/^[0-9a-f]{64}$/);

const tensorEntry = z.strictObject({
  name: z.string(),
  format: z.string(),
  shape: z.array(natural),
  bytes: natural,
  sha256: digest,
});

const manifestSchema = z.strictObject({
  format: z.literal("thimble-checkpoint"),
  version: z.literal(1),
  /** Completed optimizer steps. */
  step: natural,
  /** Bytes of metrics.jsonl that belong to these steps. */
  metricsBytes: natural,
  /** Everything that must be equal for a resumed run to have the same bits; see identity.ts. */
  run: z.record(z.string(), z.unknown()),
  /** Factor on the learning rate of each completed step, run-length encoded as [factor, count]. */
  rates: z.array(z.tuple([z.number(), natural])),
  /** The code and machine that computed it. */
  machine: z.record(z.string(), z.string()),
  /** In the order of the state file, without gaps. */
  tensors: z.array(tensorEntry),
});

export type Manifest = z.output<typeof manifestSchema>;
export type ManifestTensor = z.output<typeof tensorEntry>;

/** No manifest is near this large. */
export const manifestLimit = 64 * 2 ** 20;

function checksumOf(manifest: object): string {
  return createHash("sha256").update(JSON.stringify(manifest)).digest("hex");
}

/** The manifest as text, with a checksum of itself. */
export function encodeManifest(manifest: Manifest): string {
  return `${JSON.stringify({ ...manifest, checksum: checksumOf(manifest) })}\n`;
}

export function brokenCheckpoint(where: string, given: string, expected?: string): ThimbleError {
  return new ThimbleError("checkpoint-broken", "The checkpoint is damaged or incomplete", {
    where,
    given,
    ...(expected === undefined ? {} : { expected }),
    fix: "Delete its folder; an earlier checkpoint is used instead, where there is one.",
  });
}

/** A manifest from its text; `where` is its path. Throws `checkpoint-broken` or `checkpoint-version`. */
export function decodeManifest(text: string, where: string): Manifest {
  const parsed = parseObject(text, where);
  const { checksum, ...body } = parsed;
  if (checksum !== checksumOf(body)) throw brokenCheckpoint(where, "a manifest that does not match its own checksum");
  if (body["format"] === "thimble-checkpoint" && body["version"] !== 1) {
    throw new ThimbleError("checkpoint-version", "The checkpoint was written by another version of Thimble", {
      where,
      given: `format version ${JSON.stringify(body["version"])}`,
      expected: "1",
    });
  }
  const manifest = manifestSchema.safeParse(body);
  if (manifest.success) return manifest.data;
  const issue = manifest.error.issues[0];
  throw brokenCheckpoint(where, `${issue?.path.map(String).join(".") ?? ""}: ${issue?.message ?? "not a manifest"}`);
}

function parseObject(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw brokenCheckpoint(where, "a manifest that is not JSON");
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw brokenCheckpoint(where, "a manifest that is not a JSON object");
}
