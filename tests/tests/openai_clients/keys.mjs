// Keys and their money, as OpenAI's package for Node.js sees them, against a pool whose operator pays for nobody. Run by main.rs.

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const entry = pathToFileURL(process.env.DOVETAIL_OPENAI_NODE + "/index.mjs");
const { default: OpenAI } = await import(entry);
const [base, usedUp] = [process.argv[2] + "/v1", process.argv[3]];

const refusedAtOnce = async (apiKey, status, code) => {
  let requests = 0;
  const counted = (...request) => {
    requests += 1;
    return fetch(...request);
  };
  const client = new OpenAI({ baseURL: base, apiKey, timeout: 60_000, fetch: counted });
  const model = (await client.models.list()).data[0].id;
  const messages = [{ role: "user", content: "Name the capital of France." }];
  requests = 0;
  await assert.rejects(
    client.chat.completions.create({ model, messages, max_tokens: 24 }),
    (error) => error instanceof OpenAI.APIError && error.status === status && error.code === code,
  );
  assert.equal(requests, 1);
};

await refusedAtOnce("sk-" + "0".repeat(64), 401, "invalid_api_key");
await refusedAtOnce(usedUp, 402, "insufficient_balance");
