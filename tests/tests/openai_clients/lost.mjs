// A stream whose worker is killed in the middle, as OpenAI's package for Node.js sees it. Run by main.rs, which kills the worker.

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const entry = pathToFileURL(process.env.DOVETAIL_OPENAI_NODE + "/index.mjs");
const { default: OpenAI } = await import(entry);
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "any word", timeout: 60_000 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "Count." }];
// An answer that is long, whatever the model would say.
const items = { type: "integer", minimum: 0, maximum: 9 };
const schema = { type: "array", items, minItems: 300, maxItems: 400 };
const stream = await client.chat.completions.create({
  model,
  messages,
  temperature: 0,
  max_tokens: 600,
  response_format: { type: "json_schema", json_schema: { name: "digits", schema } },
  stream: true,
});
const reasons = [];
let text = "";
const read = async () => {
  for await (const chunk of stream) {
    reasons.push(chunk.choices[0].finish_reason);
    const more = chunk.choices[0].delta.content ?? "";
    if (more && !text) console.log("streaming");
    text += more;
  }
};
await assert.rejects(read, (error) => error instanceof OpenAI.APIError && error.code === "worker_lost", `${text}`);
assert.ok(text);
assert.deepEqual([...new Set(reasons)], [null]);
