// What users of OpenAI's package for Node.js do, against a pool whose model is SmolLM2. Run by main.rs.

import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const entry = pathToFileURL(process.env.DOVETAIL_OPENAI_NODE + "/index.mjs");
const { default: OpenAI } = await import(entry);
const base = process.argv[2] + "/v1";
const client = new OpenAI({ baseURL: base, apiKey: "any word", timeout: 60_000 });
const model = (await client.models.list()).data[0].id;
const ask = (text, more = {}, options = {}) =>
  client.chat.completions.create(
    { model, messages: [{ role: "user", content: text }], temperature: 0, max_tokens: 24, ...more },
    options,
  );

// Whole, and in chunks, with the same text and the same bill.
const answer = await ask("Name the capital of France.");
const text = answer.choices[0].message.content;
assert.match(text, /Paris/);
const chunks = [];
const usage = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await ask("Name the capital of France.", usage)) chunks.push(chunk);
const last = chunks.pop();
assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), text);
assert.ok(["stop", "length"].includes(chunks.at(-1).choices[0].finish_reason));
assert.deepEqual([last.choices, last.usage], [[], answer.usage]);

// A schema.
const schema = {
  type: "object",
  properties: { city: { type: "string", maxLength: 20 } },
  required: ["city"],
  additionalProperties: false,
};
const response_format = { type: "json_schema", json_schema: { name: "city", schema } };
const city = await ask("Describe Paris.", { response_format, max_tokens: 80 });
assert.deepEqual(Object.keys(JSON.parse(city.choices[0].message.content)), ["city"]);

// Refusals have their codes.
const refused = (more, status, code) =>
  assert.rejects(ask("Hello", more), (error) => error.status === status && error.code === code);
await refused({ model: "gpt-5" }, 404, "model_not_found");
await refused({ logprobs: true }, 400, "unsupported_parameter");
const long = [{ role: "user", content: "word ".repeat(20_000) }];
await refused({ messages: long }, 400, "context_length_exceeded");

// What is aborted in the middle is cancelled, and billed as far as it came.
const stream = await ask("Count to a thousand.", { stream: true, max_tokens: 1000 });
let task;
for await (const chunk of stream) {
  task = chunk.id.replace("chatcmpl-", "");
  if (chunk.choices[0].delta.content) stream.controller.abort();
}
let state;
for (let tries = 0; tries < 200; tries++) {
  state = await (await fetch(`${base}/dovetail/tasks/${task}`)).json();
  if (state.state !== "running") break;
  await setTimeout(50);
}
assert.equal(state.finish_reason, "cancelled");
assert.ok(state.usage.completion_tokens > 0 && state.usage.completion_tokens < 1000);
console.log(JSON.stringify({ answer: text, cancelled_after: state.usage.completion_tokens }));
