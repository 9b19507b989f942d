// llama.cpp's speed on a GGUF file, as one line of JSON: node peer.js FILE THREADS PREFILL PROMPT GENERATE
//
// It is llama.cpp as the npm packages of node-llama-cpp carry it: built once for each kind of processor, of which
// it picks the one that it runs on. Only the binding itself is used, so the packages around it are not needed.
//
// llama.cpp keeps its defaults (an f16 key-value cache, flash attention where it thinks it helps). No token is
// chosen: as in llama.cpp's own benchmark, the tokens are given, and a token's time ends with its logits.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { performance } from "node:perf_hooks";
import process from "node:process";
import { fileURLToPath } from "node:url";

const [file, ...numbers] = process.argv.slice(2);
const [threads, prefill, prompt, generate] = numbers.map(Number);

const { llama, version } = load();
const before = process.memoryUsage().rss;
const model = new llama.AddonModel(file, { addonExports: llama, useMmap: true });
if (!(await model.init())) throw new Error(`llama.cpp does not load ${file}`);
const size = Math.max(prefill, prompt + generate);
const context = new llama.AddonContext(model, {
  contextSize: size,
  batchSize: Math.max(prefill, prompt),
  sequences: 1,
  flashAttention: "auto",
  threads,
});
if (!(await context.init())) throw new Error("llama.cpp makes no context for the model");

// Brings the file's pages into memory, and does not count.
await read(prompt);
await read(prefill);
const prefillSeconds = await timed(() => read(prefill));
await read(prompt);
const decodeSeconds = await timed(async () => {
  for (let position = prompt; position < prompt + generate; position++) await feed(position, 1);
});
console.log(
  JSON.stringify({
    peer: `llama.cpp ${version}`,
    threads,
    decode_tokens_per_s: generate / decodeSeconds,
    prefill_tokens_per_s: prefill / prefillSeconds,
    memory_bytes: process.resourceUsage().maxRSS * 1024 - before,
  }),
);
// What is still open belongs to the process.
process.exit(0);

// The binding, and the version of the llama.cpp in it.
function load() {
  const platform = `${process.platform}-${process.arch}`;
  const here = fileURLToPath(new URL(".", import.meta.url));
  const folder = path.join(here, "node_modules", "@node-llama-cpp", platform, "bins", platform);
  if (!existsSync(folder)) throw new Error(`there is no prebuilt llama.cpp for ${platform}`);
  const llama = createRequire(import.meta.url)(path.join(folder, "llama-addon.node"));
  llama.setLoggerLogLevel(0);
  llama.loadBackends(folder);
  const built = JSON.parse(readFileSync(path.join(folder, "_nlcBuildMetadata.json"), "utf8"));
  return { llama, version: built.buildOptions.llamaCpp.release };
}

// An empty cache, then the first tokens in one batch.
async function read(count) {
  context.disposeSequence(0);
  await feed(0, count);
}

// So many tokens from a position on; the logits of the last one.
async function feed(position, count) {
  const tokens = Uint32Array.from({ length: count }, (_, i) => ((position + i + 1) * 31) % 32000);
  context.initBatch(count);
  context.addToBatch(0, position, tokens, Uint32Array.of(count - 1));
  await context.decodeBatch();
}

async function timed(work) {
  const begun = performance.now();
  await work();
  return (performance.now() - begun) / 1000;
}
