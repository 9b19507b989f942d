"""Keys and their money, as OpenAI's package for Python sees them, against a pool whose operator pays for nobody. Run by main.rs."""

import sys
import threading
import time

import openai

base, used_up, busy = sys.argv[1] + "/v1", *sys.argv[2:]


def client_of(key, **more):
    return openai.OpenAI(base_url=base, api_key=key, timeout=60, **more)


model = client_of(busy).models.list().data[0].id


def ask(client, text, max_tokens, **more):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=messages, max_tokens=max_tokens, temperature=0, **more)


def refused_at_once(key, kind, status, code):
    try:
        ask(client_of(key), "Name the capital of France.", 24)
    except kind as error:
        assert (error.status_code, error.code) == (status, code), error
        # The request that was refused is the first one, and the package has not asked again.
        assert error.request.headers["x-stainless-retry-count"] == "0"
        return error
    raise AssertionError("it is not refused")


# No key of this pool's: unknown, or no key at all.
for key in ("sk-" + 64 * "0", "any word"):
    refused_at_once(key, openai.AuthenticationError, 401, "invalid_api_key")

# What the first answer leaves does not do for another one, once it is settled and nothing is set aside.
client = client_of(used_up)
first = ask(client, "Name the capital of France.", 24)
assert first.usage.cost_msat > 0
for _ in range(600):
    if client.get(f"/dovetail/tasks/{first.dovetail['task_id']}", cast_to=object)["state"] == "settled":
        break
    time.sleep(0.1)
error = refused_at_once(used_up, openai.APIStatusError, 402, "insufficient_balance")
assert error.type == "insufficient_quota", error.type
money = error.body["dovetail"]
assert money["balance_msat"] < money["required_msat"] == 24_000 and money["reserved_msat"] == 0, money

# What another request holds will be free again: the package waits as it is told, and is answered.
client = client_of(busy, max_retries=30)
stream = ask(client, "Tell me a long story.", 350, stream=True)
while not next(stream).choices[0].delta.content:
    pass
threading.Timer(0.5, stream.close).start()
answered = client.chat.completions.with_raw_response.create(
    model=model, messages=[{"role": "user", "content": "Name the capital of France."}], max_tokens=100, temperature=0
)
assert answered.retries_taken >= 1, "the balance was not held"
assert answered.parse().choices[0].message.content
