import { execFile, spawn } from "node:child_process";
import { readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { jsonOf } from "./testing/run.js";
import { workspace } from "./testing/workspace.js";

const { place, tiny } = workspace();

describe("the program as a process", () => {
  const main = fileURLToPath(new URL("./main.ts", import.meta.url));
  const command = ["--import", "tsx", main];

  it("prints one line, and its status is the process's", async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [...command, "methods", "--json"]);
    expect(JSON.parse(stdout)).toHaveProperty("methods");
    const failed = promisify(execFile)(process.execPath, [...command, "trian"]);
    await expect(failed).rejects.toMatchObject({ code: 2 });
  });

  it("survives a reader that goes away", async () => {
    const child = spawn(process.execPath, [...command, "config"], { stdio: ["ignore", "pipe", "pipe"] });
    child.stdout.once("data", () => child.stdout.destroy());
    const status = await new Promise((resolve) => child.once("exit", resolve));
    expect(status).toBe(0);
  });

  it("leaves a checkpoint at SIGINT and exits with 130", async () => {
    const out = place("signal");
    const args = [...command, "train", ...tiny("--steps", "100000", "--out", out, "--json")];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => {
      if (!said.includes("step 1/") && (said += chunk.toString()).includes("step 1/")) child.kill("SIGINT");
    });
    let printed = "";
    child.stdout.on("data", (chunk: Buffer) => (printed += chunk.toString()));
    const status = await new Promise((resolve) => child.once("close", resolve));
    expect(status).toBe(130);
    expect(jsonOf({ status: 130, stdout: printed, stderr: said })).toMatchObject({ interrupted: true });
    expect((await readdir(out)).some((name) => name.startsWith("checkpoint-"))).toBe(true);
  });
});
