#!/usr/bin/env node
import { runCli } from "./program.js";
import { realWorld } from "./world.js";

process.exitCode = await runCli(process.argv.slice(2), realWorld());
